"""Which ranges a file claims: wide enough to be proven from each other, with per-channel ranges only where needed.

A claim may be wider than the range of the IR, which comes from per-channel ranges throughout: what counts is that
accumulators stay in 32 bits and that no tensor takes more memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qexport.backends.packed.format import Storage
from qexport.backends.packed.ranges import Range, result_range
from qexport.errors import AccumulatorError
from qexport.ir import Graph, Node
from qexport.ir.types import INT32_MAX, INT32_MIN

BYTE = (0, 255)
"""What a reader knows of an input."""


@dataclass(frozen=True)
class Claims:
    """Claimed ranges of all tensors.

    Attributes:
        ranges: tensor -> range, the same for all channels where the tensor is not in `per_channel`.
        per_channel: tensors whose range is stated channel by channel.
    """

    ranges: dict[str, Range]
    per_channel: frozenset[str]


def claim_ranges(graph: Graph, stored: frozenset[str]) -> Claims:
    """Claims that a reader can prove.

    Args:
        graph: integer graph whose inputs are bytes.
        stored: tensors that lie in the arena; their claims need no wider storage than their ranges in the IR.

    Raises:
        AccumulatorError: even with per-channel ranges everywhere an accumulator could overflow, as its inputs' ranges
            are widened to contain zero.
    """
    per_channel: frozenset[str] = frozenset()
    while True:
        claims = _propagate(graph, per_channel, stored)
        if isinstance(claims, Claims):
            break
        per_channel |= _to_refine(graph, claims, per_channel)
    for tensor in sorted(per_channel, key=lambda t: (-graph.types[t].channels, t)):
        fewer = _propagate(graph, claims.per_channel - {tensor}, stored)
        if isinstance(fewer, Claims):
            claims = fewer
    return claims


@dataclass(frozen=True)
class _Refused:
    """The first node whose claim cannot be made, and why."""

    node: Node
    why: str


def _propagate(graph: Graph, per_channel: frozenset[str], stored: frozenset[str]) -> Claims | _Refused:
    """The claims that follow from each other, given where they are made per channel."""
    ranges = {}
    for name, tensor_type in graph.inputs.items():
        ranges[name] = Range(*(np.full(tensor_type.channels, end, np.int64) for end in BYTE))
    for node in graph.nodes:
        tensor_type = graph.types[node.name]
        try:
            found = result_range(node.op, [ranges[t] for t in node.inputs], tensor_type.shape)
        except AccumulatorError as error:
            return _Refused(node, f"{error.what}: {error.got}")
        hull = int(found.lo.min()), int(found.hi.max())
        if hull[0] < INT32_MIN or hull[1] > INT32_MAX:
            return _Refused(node, f"values in {found}")
        if node.name in stored and Storage.holding(*hull) > storage_of(graph, node.name):
            return _Refused(node, f"values in {found} in the arena")
        ranges[node.name] = found if node.name in per_channel else found.hull()
    return Claims(ranges, per_channel)


def storage_of(graph: Graph, tensor: str) -> Storage:
    """The narrowest storage of a tensor's proven range; inputs are bytes."""
    tensor_type = graph.types[tensor]
    return Storage.U8 if tensor in graph.inputs else Storage.holding(int(tensor_type.lo.min()), int(tensor_type.hi.max()))


def _to_refine(graph: Graph, refused: _Refused, per_channel: frozenset[str]) -> frozenset[str]:
    """The nearest tensors before the refused node that are not yet claimed per channel."""
    for tensors in _upstream(graph, refused.node):
        missing = tensors - per_channel - set(graph.inputs)
        if missing:
            return frozenset(missing)
    raise AccumulatorError(
        "the packed format cannot prove this layer",
        where=refused.node.name,
        got=refused.why,
        expected=f"within [{INT32_MIN}, {INT32_MAX}] even where inputs are zero",
        remedy="use fewer --edge-bits or --act-bits",
    )


def _upstream(graph: Graph, node: Node) -> Iterator[set[str]]:
    """The inputs of a node, then the inputs of their nodes, and so on."""
    makers = {n.name: n for n in graph.nodes}
    tensors, seen = set(node.inputs), set()
    while tensors:
        yield tensors
        seen |= tensors
        tensors = {t for name in tensors if name in makers for t in makers[name].inputs} - seen
