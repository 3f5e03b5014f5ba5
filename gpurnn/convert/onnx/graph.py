"""The nodes of an ONNX model, with the names that each can see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...layers.description import Kind

_LSTM = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
DYNAMIC = "DynamicQuantizeLSTM"  # ONNX Runtime's, whose weights are integers
INPUTS = {
    "LSTM": _LSTM,
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    DYNAMIC: (*_LSTM, "W_scale", "W_zero_point", "R_scale", "R_zero_point"),
}
DOMAINS = {"LSTM": ("", "ai.onnx"), "GRU": ("", "ai.onnx"), DYNAMIC: ("com.microsoft",)}
# no model has more
NODES = 100_000  # nodes, those of subgraphs included
PARTS = 10 * NODES  # constants and inputs of its graphs, and attributes of its nodes
RECURRENT = NODES // 10  # recurrent operators


class Scope:
    """The names of one graph, and of those around it."""

    def __init__(self, graph: Any, outer: Scope | None) -> None:
        self.outer = outer
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.tensors |= {tensor.values.name: None for tensor in graph.sparse_initializer}
        self.producers: dict[str, Any] = {name: node for node in graph.node for name in node.output if name}
        self.inputs = {value.name for value in graph.input}

    def holder(self, name: str) -> Scope | None:
        """Gives the innermost graph that defines a name."""
        scope: Scope | None = self
        while scope is not None and not (name in scope.tensors or name in scope.producers or name in scope.inputs):
            scope = scope.outer
        return scope


class Node(NamedTuple):
    """A node of the model, and the names that it can see."""

    proto: Any
    scope: Scope

    @property
    def label(self) -> str:
        """The node's name, or its first output's."""
        return str(self.proto.name or next((name for name in self.proto.output if name), "?"))

    @property
    def kind(self) -> Kind:
        """The kind of layer that a recurrent operator is."""
        return "GRU" if self.proto.op_type == "GRU" else "LSTM"

    def input(self, name: str) -> str:
        """Gives the graph's name for one of the node's inputs; "" if it is absent."""
        index = INPUTS[self.proto.op_type].index(name) if name in INPUTS[self.proto.op_type] else len(self.proto.input)
        return str(self.proto.input[index]) if index < len(self.proto.input) else ""


def subgraphs(node: Any) -> list[Any]:
    """Gives the graphs inside a node: branches of an If, the body of a Loop."""
    return [one for attribute in node.attribute for one in (attribute.g, *attribute.graphs) if one.node]


def nodes(graph: Any) -> Iterator[Node]:
    """Gives every node of a graph and of the graphs inside its nodes, in their order. Raises ValueError for too many."""
    count = parts = 0
    waiting: list[tuple[Any, Scope | None, bool]] = [(graph, None, True)]
    while waiting:
        one, scope, is_graph = waiting.pop()
        if is_graph:
            count += len(one.node)
            parts += len(one.initializer) + len(one.sparse_initializer) + len(one.input)
        else:
            parts += len(one.attribute)
        if count > NODES or parts > PARTS:
            raise ValueError(f"more than {NODES} nodes, or {PARTS} constants, inputs and attributes: no model has as many")
        if is_graph:
            inside = Scope(one, scope)
            waiting += [(node, inside, False) for node in reversed(one.node)]
            continue
        assert scope is not None
        yield Node(one, scope)
        waiting += [(inner, scope, True) for inner in reversed(subgraphs(one))]


def recurrent(graph: Any) -> list[Node]:
    """Gives the recurrent operators of a graph and of the graphs inside its nodes. Raises ValueError for too many."""
    found: list[Node] = []
    for node in nodes(graph):
        if node.proto.domain in DOMAINS.get(node.proto.op_type, ()):
            found.append(node)
        if len(found) > RECURRENT:
            raise ValueError(f"more than {RECURRENT} operators LSTM and GRU: no model has as many")
    return found
