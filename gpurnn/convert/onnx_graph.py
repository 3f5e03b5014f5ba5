"""The nodes of an ONNX model, with the names that each can see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

INPUTS = {
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}


class Scope:
    """The names of one graph, and of those around it."""

    def __init__(self, graph: Any, outer: Scope | None) -> None:
        self.outer = outer
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.tensors |= {tensor.values.name: None for tensor in graph.sparse_initializer}
        self.producers: dict[str, Any] = {name: node for node in graph.node for name in node.output if name}
        self.inputs = {value.name for value in graph.input}

    def holder(self, name: str) -> Scope | None:
        """The innermost graph that defines a name."""
        scope: Scope | None = self
        while scope is not None and not (name in scope.tensors or name in scope.producers or name in scope.inputs):
            scope = scope.outer
        return scope


class Node(NamedTuple):
    """An operator LSTM or GRU, or another."""

    proto: Any
    scope: Scope

    @property
    def label(self) -> str:
        """Its name, or its first output's."""
        return str(self.proto.name or next((name for name in self.proto.output if name), "?"))

    def input(self, name: str) -> str:
        """What the graph calls one of its inputs; "" if it is absent."""
        index = INPUTS[self.proto.op_type].index(name) if name in INPUTS[self.proto.op_type] else len(self.proto.input)
        return str(self.proto.input[index]) if index < len(self.proto.input) else ""


def nodes(graph: Any) -> Iterator[Node]:
    """Every node of a graph and of the graphs inside its nodes, in their order."""
    waiting: list[tuple[Any, Scope]] = []
    scope = Scope(graph, None)
    waiting += [(node, scope) for node in reversed(graph.node)]
    while waiting:
        node, scope = waiting.pop()
        if node.domain in ("", "ai.onnx"):
            yield Node(node, scope)
        for inner in reversed([one for attribute in node.attribute for one in (attribute.g, *attribute.graphs) if one.node]):
            inside = Scope(inner, scope)
            waiting += [(one, inside) for one in reversed(inner.node)]
