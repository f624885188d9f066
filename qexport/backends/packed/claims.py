"""Which ranges a file claims: wide enough to be proven from each other, with per-channel ranges only where needed.

A claim may be wider than the range of the IR, which comes from per-channel ranges throughout: what counts is that
accumulators stay in 32 bits and that no tensor takes more memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from qexport.backends.packed.format import Storage
from qexport.backends.packed.ranges import coarse, hull, result_range
from qexport.errors import AccumulatorError
from qexport.ir import Graph, Node, TensorType, integer
from qexport.ir.types import INT32_MAX, INT32_MIN

BYTE = (0, 255)
"""What a reader knows of an input."""


class Detail(IntEnum):
    """How finely a file states the range of a tensor."""

    WHOLE = 0
    STEPS = 1
    EXACT = 2

    def applied(self, found: TensorType) -> TensorType:
        """The narrowest claim of this detail that holds a range."""
        return (hull, coarse, lambda claim: claim)[self](found)


@dataclass(frozen=True)
class Claims:
    """Claimed ranges of all tensors.

    Attributes:
        ranges: tensor -> claim.
        details: tensor -> how finely it is stated, for those with ranges per channel.
    """

    ranges: dict[str, TensorType]
    details: dict[str, Detail]


def claim_ranges(graph: Graph, stored: frozenset[str]) -> Claims:
    """Claims that a reader can prove.

    Args:
        graph: integer graph whose inputs are bytes.
        stored: tensors that lie in the arena; their claims need no wider storage than their ranges in the IR.

    Raises:
        AccumulatorError: even with exact ranges everywhere an accumulator could overflow, as its inputs' ranges are
            widened to contain zero.
    """
    claims = _propagate(graph, {}, stored, Claims({}, {}))
    while isinstance(claims, _Refused):
        details = claims.so_far.details
        claims = _propagate(graph, details | _refine(graph, claims, details), stored, claims.so_far)
    for tensor in sorted(claims.details, key=lambda t: (-graph.types[t].channels, t)):
        for detail in range(claims.details[tensor]):
            fewer = {t: d for t, d in {**claims.details, tensor: Detail(detail)}.items() if d}
            tried = _propagate(graph, fewer, stored, claims)
            if isinstance(tried, Claims):
                claims = tried
                break
    return claims


@dataclass(frozen=True)
class _Refused:
    """The first node whose claim cannot be made, why, and the claims before it."""

    node: Node
    why: str
    so_far: Claims


def _propagate(graph: Graph, details: dict[str, Detail], stored: frozenset[str], known: Claims) -> Claims | _Refused:
    """The claims that follow from each other; those of `known` are used again where nothing before them changed."""
    ranges = {name: integer(tensor_type.shape, *BYTE) for name, tensor_type in graph.inputs.items()}
    claims, changed = Claims(ranges, details), set[str]()
    for node in graph.nodes:
        before, detail = known.ranges.get(node.name), details.get(node.name, Detail.WHOLE)
        same_detail = detail == known.details.get(node.name, Detail.WHOLE)
        if before is not None and same_detail and changed.isdisjoint(node.inputs):
            ranges[node.name] = before
            continue
        try:
            found = result_range(node.op, [ranges[t] for t in node.inputs])
        except AccumulatorError as error:
            return _Refused(node, f"{error.what}: {error.got}", claims)
        lo, hi = int(found.lo.min()), int(found.hi.max())
        if lo < INT32_MIN or hi > INT32_MAX:
            return _Refused(node, f"values in [{lo}, {hi}]", claims)
        if node.name in stored and Storage.holding(lo, hi) > storage_of(graph, node.name):
            return _Refused(node, f"values in [{lo}, {hi}] in the arena", claims)
        ranges[node.name] = detail.applied(found)
        if before is None or not ranges[node.name].same_as(before):
            changed.add(node.name)
    return claims


def storage_of(graph: Graph, tensor: str) -> Storage:
    """The narrowest storage of a tensor's proven range; inputs are bytes."""
    if tensor in graph.inputs:
        return Storage.U8
    tensor_type = graph.types[tensor]
    return Storage.holding(int(tensor_type.lo.min()), int(tensor_type.hi.max()))


def _refine(graph: Graph, refused: _Refused, details: Mapping[str, Detail]) -> dict[str, Detail]:
    """More detail for the nearest tensors before the refused node that are not stated in steps, or not exactly."""
    for detail in (Detail.STEPS, Detail.EXACT):
        for tensors in _upstream(graph, refused.node):
            coarser = {t: detail for t in tensors - set(graph.inputs) if details.get(t, Detail.WHOLE) < detail}
            if coarser:
                return coarser
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
    tensors, seen = set(node.inputs), set[str]()
    while tensors:
        yield tensors
        seen |= tensors
        tensors = {t for name in tensors if name in makers for t in makers[name].inputs} - seen
