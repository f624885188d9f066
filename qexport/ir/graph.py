"""The graph of the IR: single-output nodes in topological order, and its verifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qexport.errors import GraphError
from qexport.ir.types import INT32_MAX, INT32_MIN, TensorType

if TYPE_CHECKING:
    from qexport.ops.base import Op


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. Its output tensor carries the node's name.

    Attributes:
        name: unique in the graph; also the name of the output tensor.
        op: attributes, type rule and reference semantics.
        inputs: names of the input tensors.
        source: where in the user's model the node comes from, for messages.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    source: str = ""


@dataclass(eq=False)
class Graph:
    """A real or an integer graph. Nodes are added in topological order; types are inferred on adding."""

    inputs: dict[str, TensorType] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)

    def add_input(self, name: str, tensor_type: TensorType) -> str:
        self._claim(name)
        self.inputs[name] = tensor_type
        self.types[name] = tensor_type
        return name

    def add(self, name: str, op: Op, *inputs: str, source: str = "") -> str:
        """Append a node and infer its output type.

        Raises:
            GraphError: the name is taken or an input is unknown.
        """
        self._claim(name)
        for tensor in inputs:
            if tensor not in self.types:
                raise GraphError("a node reads a tensor that no earlier node makes", where=name, got=tensor)
        self.types[name] = op.infer(*(self.types[tensor] for tensor in inputs))
        self.nodes.append(Node(name, op, inputs, source))
        return name

    def unique(self, name: str) -> str:
        """`name`, or `name_2`, `name_3` ... if it is taken."""
        if name not in self.types:
            return name
        count = 2
        while f"{name}_{count}" in self.types:
            count += 1
        return f"{name}_{count}"

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError("no such node", where=name)

    def consumers(self) -> dict[str, list[Node]]:
        """Nodes that read each tensor, in order."""
        readers: dict[str, list[Node]] = {name: [] for name in self.types}
        for node in self.nodes:
            for tensor in node.inputs:
                readers[tensor].append(node)
        return readers

    def find(self, kind: type) -> Iterator[Node]:
        return (node for node in self.nodes if isinstance(node.op, kind))

    def _claim(self, name: str) -> None:
        if name in self.types:
            raise GraphError("a tensor name is used twice", where=name)

    def __str__(self) -> str:
        lines = [f"{name}: {self.types[name]}" for name in self.inputs]
        lines += [f"{n.name}: {self.types[n.name]} = {n.op}({', '.join(n.inputs)})" for n in self.nodes]
        return "\n".join([*lines, "return " + ", ".join(self.outputs)])


def verify(graph: Graph, *, require_integer: bool = False) -> None:
    """Check a graph against the rules every pass relies on.

    Rules: names unique, inputs made before they are read, stored types equal inferred ones, outputs exist,
    every node reaches an output; with `require_integer`, every tensor is an integer of at most 32 bits.

    Raises:
        GraphError: the rule that is broken and the node.
    """
    made = dict(graph.inputs)
    for node in graph.nodes:
        if node.name in made:
            raise GraphError("a tensor name is used twice", where=node.name)
        missing = [tensor for tensor in node.inputs if tensor not in made]
        if missing:
            raise GraphError("a node reads tensors that no earlier node makes", where=node.name, got=missing)
        inferred = node.op.infer(*(made[tensor] for tensor in node.inputs))
        if not inferred.same_as(graph.types[node.name]):
            raise GraphError("stored type differs", where=node.name, got=graph.types[node.name], expected=inferred)
        made[node.name] = inferred
        if require_integer:
            _require_int32(node, inferred)
    for name in graph.outputs:
        if name not in made:
            raise GraphError("the graph returns a tensor that no node makes", where=name)
    unused = set(made) - _live(graph) - set(graph.inputs)
    if not graph.outputs or unused:
        raise GraphError("nodes that reach no output", got=sorted(unused) or "no outputs at all")


def _require_int32(node: Node, tensor_type: TensorType) -> None:
    if not tensor_type.is_integer:
        raise GraphError("a real tensor in an integer graph", where=node.name, got=tensor_type)
    if tensor_type.lo.min() < INT32_MIN or tensor_type.hi.max() > INT32_MAX:
        raise GraphError("an integer tensor leaves int32", where=node.name, got=tensor_type)


def _live(graph: Graph) -> set[str]:
    live = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in live:
            live.update(node.inputs)
    return live


def prune(graph: Graph) -> Graph:
    """The same graph without nodes that reach no output."""
    live = _live(graph)
    pruned = Graph(dict(graph.inputs), [n for n in graph.nodes if n.name in live], list(graph.outputs))
    pruned.types = {name: t for name, t in graph.types.items() if name in live or name in graph.inputs}
    return pruned
