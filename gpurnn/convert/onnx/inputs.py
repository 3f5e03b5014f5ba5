"""The origins of an operator's initial states and sequence_lens: a call's inputs, or constants of the model.

A call of a layer is handed them, so that values which the model itself holds would be lost: those are refused. Values are
followed back through nodes; where a node only moves numbers about, its inputs that say where to are left out.
"""

from __future__ import annotations

from typing import Any

from ..check import log
from .constants import Constants
from .graph import Node, Scope, subgraphs

ARGUMENTS = {"initial_h": "state", "initial_c": "state", "sequence_lens": "lengths"}
# nodes whose numbers are those of their first input
MOVERS = (
    *("Identity", "Cast", "CastLike", "Transpose", "Reshape", "Expand", "Tile", "Slice", "Split", "Squeeze", "Unsqueeze"),
    *("Flatten", "Dropout"),
)


def check_inputs(node: Node, constants: Constants) -> None:
    """Refuses values that the model keeps for an operator's call; logs those that the call is to be given."""
    for name, argument in ARGUMENTS.items():
        given = node.input(name)
        if not given:
            continue
        found = _origins(node.scope, given, f"{node.label}: {name}", constants)
        if "input" in found or ("shape" in found and argument == "lengths"):
            log.info("%s: %s is an input of the operator: hand it to the call as %s", node.label, name, argument)
        elif argument == "lengths" or found != {"zeros"}:
            raise ValueError(
                f"{node.label}: {name} is {given!r}, a constant of the model, which a layer does not keep: it would compute "
                f"something else; make it an input of the graph and hand it to the call as {argument}"
            )


def _origins(scope: Scope, name: str, label: str, constants: Constants) -> set[str]:
    """Gives the origins of a value: "input", "shape" (sizes of an input), "zeros" and "numbers" of the model."""
    found: set[str] = set()
    seen: set[tuple[int, str]] = set()
    waiting = [(scope, name)]
    while waiting:
        at, name = waiting.pop()
        holder = at.holder(name)
        if holder is None:
            raise ValueError(f"{label}: {name!r} is missing: no initialiser, input or node of the graph has that name")
        if (id(holder), name) in seen:
            continue
        seen.add((id(holder), name))
        if name in holder.tensors:
            found.add(constants.zeros(holder.tensors[name], label))
            continue
        if name not in holder.producers:
            found.add("input")
            continue
        node = holder.producers[name]
        if node.op_type in ("Shape", "Size"):
            found.add("shape")
        elif node.op_type in ("Constant", "ConstantOfShape"):
            found.add(_constant(node, label, constants))
        else:
            if node.op_type not in ("Concat", *MOVERS):
                found.add("numbers")  # even of zeros alone another node may make what it likes
            waiting += [(holder, one) for one in _inputs(node)]
    return found


def _constant(node: Any, label: str, constants: Constants) -> str:
    """Tells whether a node Constant or ConstantOfShape, whose default is 0, gives "zeros" or "numbers"."""
    values = [one for one in node.attribute if one.name.startswith("value")]
    if not values:
        return "zeros" if node.op_type == "ConstantOfShape" else "numbers"
    value = values[0]
    if value.HasField("t"):
        return constants.zeros(value.t, label)
    return "numbers" if value.f or value.i or any(value.floats) or any(value.ints) else "zeros"


def _inputs(node: Any) -> list[str]:
    """Gives the names whose values a node's outputs may hold, and those that its subgraphs take from around them."""
    if node.op_type in MOVERS:
        return [one for one in node.input[:1] if one]
    found = [one for one in node.input if one]
    own: set[str] = set()
    graphs = subgraphs(node)
    while graphs:
        graph = graphs.pop()
        own |= {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        for one in graph.node:
            own.update(one.output)
            found += one.input
            graphs += subgraphs(one)
    return [one for one in found if one and one not in own]
