"""One fixed-point step for every residual stream: tensors joined by additions share it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qexport.ir import Graph, Node
from qexport.ops import Add, Affine, Clip, MaxPool, Pad, Reshape, Slice, Step, Transpose
from qexport.passes.fixedpoint import step_for

WIDE_BITS = 31
"""Bits of a 32-bit stream: one is left for the sum."""

NARROW_BITS = 16
NARROW_GAP = Fraction(1, 256)
"""A 16-bit stream is taken only where its step is at most this share of the smallest threshold gap downstream."""

_KEEPS_STEP = (Clip, Pad, Reshape, Slice, MaxPool, Transpose)


@dataclass(frozen=True)
class Stream:
    """Fixed-point format of a group of tensors.

    Attributes:
        step: power of two.
        bits: 32, or 16 with saturation at a calibrated range.
    """

    step: Fraction
    bits: int


def choose_streams(graph: Graph, ranges: dict[str, tuple[float, float]]) -> dict[str, Stream]:
    """Format of every Add of the quantized real graph (docs/arithmetic.md, eq. 7).

    Args:
        graph: quantized real graph.
        ranges: calibrated (lo, hi) by tensor; a group is narrowed to 16 bits only where all its tensors have one.
    """
    producers = {node.name: node for node in graph.nodes}
    leader = {node.name: node.name for node in graph.find(Add)}

    def root(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.find(Add):
        for tensor in node.inputs:
            source = _stream_source(producers, tensor)
            if source is not None:
                leader[root(source)] = root(node.name)
    groups: dict[str, list[Node]] = {}
    for node in graph.find(Add):
        groups.setdefault(root(node.name), []).append(node)
    formats = {name: _format(graph, members, ranges) for name, members in groups.items()}
    return {node.name: formats[root(node.name)] for node in graph.find(Add)}


def _stream_source(producers: dict[str, Node], tensor: str) -> str | None:
    """The Add whose fixed-point integers reach `tensor` unchanged in step, if any."""
    node = producers.get(tensor)
    while node is not None and isinstance(node.op, _KEEPS_STEP):
        node = producers.get(node.inputs[0])
    return node.name if node is not None and isinstance(node.op, Add) else None


def _format(graph: Graph, members: list[Node], ranges: dict[str, tuple[float, float]]) -> Stream:
    tensors = {t for node in members for t in (node.name, *node.inputs)}
    if all(t in ranges for t in tensors):
        narrow = step_for(max(max(abs(v) for v in ranges[t]) for t in tensors), NARROW_BITS)
        gap = _smallest_gap(graph, {node.name for node in members})
        if gap is not None and narrow <= gap * NARROW_GAP:
            return Stream(narrow, NARROW_BITS)
    return Stream(step_for(max(graph.types[t].max_abs for t in tensors), WIDE_BITS), 32)


def _smallest_gap(graph: Graph, adds: set[str]) -> Fraction | None:
    """Smallest distance of two thresholds (of a single one from zero) among the quantizers that read a stream."""
    reached, gaps = set(adds), []
    for node in graph.nodes:
        if not reached.intersection(node.inputs):
            continue
        if isinstance(node.op, (*_KEEPS_STEP, Affine)):
            reached.add(node.name)
        elif isinstance(node.op, Step):
            t = node.op.function.thresholds.astype(np.float64)
            gaps.append(float(np.diff(t).min() if t.size > 1 else np.abs(t).min(initial=np.inf)))
    return Fraction(min(gaps)) if gaps and np.isfinite(min(gaps)) else None
