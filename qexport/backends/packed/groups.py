"""Operators in groups, their slots, and which tensors stay virtual (docs/packed-format.md, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qexport.backends.packed.claims import storage_of
from qexport.backends.packed.format import SLOTS, aligned
from qexport.ir import Graph

ELEMENTWISE_KINDS = frozenset({"add", "border_bias", "clip", "rescale", "threshold"})

NEVER = 1 << 30
"""A position behind every operator."""


class Network:
    """What scheduling needs to know of a graph; operators are numbers in the order of the graph, tensors too.

    Attributes:
        names: of the tensors; tensor t < inputs is an input, tensor inputs + k the result of operator k.
        inputs, ops: how many there are.
        reads: tensors each operator reads.
        readers: operators that read each tensor, ascending.
        shapes: of the tensors.
        sizes: bytes of each tensor in the arena, rounded up to its alignment.
        widths: bytes of an element of each tensor in the arena.
        elementwise: whether each operator may join a group.
        outputs: tensors the network returns.
    """

    def __init__(self, graph: Graph) -> None:
        self.names = [*graph.inputs, *(node.name for node in graph.nodes)]
        index = {name: t for t, name in enumerate(self.names)}
        self.inputs, self.ops = len(graph.inputs), len(graph.nodes)
        self.reads = [tuple(index[t] for t in node.inputs) for node in graph.nodes]
        self.readers: list[list[int]] = [[] for _ in self.names]
        for op, tensors in enumerate(self.reads):
            for t in dict.fromkeys(tensors):
                self.readers[t].append(op)
        self.shapes = [graph.types[name].shape for name in self.names]
        self.widths = [storage_of(graph, name).bytes for name in self.names]
        self.sizes = [aligned(graph.types[n].size * w) for n, w in zip(self.names, self.widths, strict=True)]
        self.elementwise = [node.op.kind in ELEMENTWISE_KINDS for node in graph.nodes]
        self.outputs = {index[name] for name in graph.outputs}


@dataclass(frozen=True)
class Schedule:
    """An order of the operators and what follows from it.

    Attributes:
        order: operators.
        breaks: operators that open a group although they could join one.
        group: group of each operator, by operator; groups are numbered in order.
        slot: slot of each operator's result, by operator.
        position: place in the order, by operator.
        stored: whether each tensor lies in the arena.
    """

    order: tuple[int, ...]
    breaks: frozenset[int]
    group: list[int]
    slot: list[int]
    position: list[int]
    stored: list[bool]

    @property
    def groups(self) -> int:
        return self.group[self.order[-1]] + 1


def arrange(net: Network, order: Sequence[int], breaks: frozenset[int] = frozenset()) -> Schedule:
    """Form groups greedily: an operator joins the running group wherever it may."""
    position = [0] * net.ops
    for place, op in enumerate(order):
        position[op] = place
    group, slot = [0] * net.ops, [0] * net.ops
    held = [-1] * SLOTS  # which tensor each slot has
    for before, op in zip((-1, *order), order, strict=False):
        joins = before >= 0 and op not in breaks and _may_join(net, op, before, group, slot, held)
        group[op] = 0 if before < 0 else group[before] + (not joins)
        if not joins:
            held = [-1] * SLOTS
        slot[op] = _choose_slot(net, held, position, position[op])
        held[slot[op]] = net.inputs + op
    stored = [t < net.inputs or t in net.outputs for t in range(len(net.names))]
    for t in range(net.inputs, len(net.names)):
        stored[t] |= any(group[reader] != group[t - net.inputs] for reader in net.readers[t])
    return Schedule(tuple(order), breaks, group, slot, position, stored)


def _may_join(net: Network, op: int, before: int, group: list[int], slot: list[int], held: list[int]) -> bool:
    """Whether an operator may join the group of the one before it: what it reads is in its slot, or in the arena."""
    if not net.elementwise[op] or net.shapes[net.inputs + op] != net.shapes[net.inputs + before]:
        return False
    made_here = [t for t in net.reads[op] if t >= net.inputs and group[t - net.inputs] == group[before]]
    return all(held[slot[t - net.inputs]] == t for t in made_here)


def _choose_slot(net: Network, held: list[int], position: list[int], now: int) -> int:
    """The slot whose tensor is read last in the order from here on; ones never read again come first."""

    def next_use(slot: int) -> int:
        if held[slot] < 0:
            return NEVER
        return min((position[r] for r in net.readers[held[slot]] if position[r] > now), default=NEVER)

    return max(range(SLOTS), key=lambda s: (next_use(s), -s))
