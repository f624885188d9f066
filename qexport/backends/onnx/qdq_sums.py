"""Which residual sums the QDQ flavour holds as bytes.

ONNX Runtime fuses a convolution only if what it gives is a byte. Bytes lose nothing that matters to a sum of a layer
and codes that only quantizers of few bits read: beyond the outermost thresholds the sum may saturate, and then so may
the layer,

    a in [T_1 - max b, T_n - min b],                                              (1)

which for the few codes b is a narrow window. What it has to tell apart are the thresholds T_i - b, and these get bytes
as in requantize.py, in a unit that divides that of the codes, so that the sum of bytes is exact.

Other sums lose precision: of two layers, or read by another sum. They are held as bytes only on request, over the
ranges that are known of them, if that leaves some bytes between two thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import ceil

import numpy as np

from qexport.backends.onnx.qdq_state import BYTE_MAX, ByteFormat, Encoding
from qexport.ir import Graph, Node
from qexport.ops import Add, Affine, BorderBias, Clip, Conv2d, Linear, MaxPool, Pad, Reshape, Slice, Step, Transpose
from qexport.stepfunction import FEW_STEPS

Span = tuple[float, float]

FEWEST_STEPS = 8
"""Bytes between two thresholds, at least."""

PHASES = 64
"""Fractions of a byte by which the thresholds of a sum are moved together."""

UNITS_TRIED = 24
"""Units whose bytes are fitted to the accumulators of the layer."""

_MOVES = (MaxPool, Pad, Reshape, Slice, Transpose)


@dataclass(frozen=True)
class _Need:
    """What the readers of a tensor tell apart.

    Attributes:
        thresholds: ascending values.
        gap: smallest distance of two thresholds of one reader.
        is_all: whether there are no other readers than quantizers of few bits.
    """

    thresholds: tuple[float, ...] = ()
    gap: float = np.inf
    is_all: bool = True

    def joined(self, other: _Need) -> _Need:
        thresholds = tuple(sorted({*self.thresholds, *other.thresholds}))
        return _Need(thresholds, min(self.gap, other.gap), self.is_all and other.is_all)


Formats = dict[str, ByteFormat]
"""Formats of a sum and of the layers among its operands."""


@dataclass(frozen=True)
class SumFormats:
    """How sums can be held as bytes.

    Attributes:
        choices: of a layer in front of a sum that loses nothing if all its thresholds find bytes: best first.
        rounded: of the sums that lose precision, and of the layers in front of them.
    """

    choices: dict[str, list[Formats]]
    rounded: Formats


def byte_sums(graph: Graph, ranges: Mapping[str, Span], *, rounded: bool) -> SumFormats:
    """Formats of the sums that bytes can hold, and of the layers that give them their operands.

    Args:
        graph: quantized real graph.
        ranges: see `to_qdq`.
        rounded: whether sums may lose precision.
    """
    planner = _Planner(graph, graph.consumers(), {node.name: node for node in graph.nodes}, ranges)
    found = SumFormats({}, {})
    for node in graph.find(Add):
        layers = [tensor for tensor in node.inputs if planner.is_layer(tensor)]
        placed = planner.placed(node, layers)
        if placed:
            found.choices[layers[0]] = placed
        elif rounded:
            found.rounded.update(planner.rounded(node, layers))
    return found


@dataclass(frozen=True)
class _Planner:
    """What formats are chosen by."""

    graph: Graph
    readers: dict[str, list[Node]]
    producers: dict[str, Node]
    ranges: Mapping[str, Span]

    def placed(self, node: Node, layers: list[str]) -> list[Formats]:
        """Formats of a sum of one layer and codes, read by quantizers of few bits; none for others."""
        need, codes = self.need(node.name), [found for found in map(self.codes, node.inputs) if found is not None]
        if not need.is_all or not need.thresholds or len(layers) != 1 or len(codes) != 1:
            return []
        wanted = self.wanted(node, layers, (need.thresholds[0], need.thresholds[-1]), {})
        finest = _finest(wanted)
        if not 0 < finest * FEWEST_STEPS <= need.gap or codes[0].scale < finest:
            return []
        span = self.span(layers[0], {})
        found = (
            _placed_formats(node.name, layers[0], span, need.thresholds, codes[0], unit, phase)
            for unit, phase in _even_units(need.thresholds, codes[0].scale, finest)
        )
        return [formats for formats in found if formats]

    def rounded(self, node: Node, layers: list[str]) -> Formats:
        """Formats of any sum with a layer; empty where bytes would be too coarse."""
        need = self.need(node.name)
        if not layers or not need.thresholds or node.name in self.graph.outputs:
            return {}
        span = (need.thresholds[0], need.thresholds[-1]) if need.is_all else self.span(node.name, self.ranges)
        wanted = self.wanted(node, layers, span, self.ranges)
        unit = _finest(wanted)
        if not 0 < unit * FEWEST_STEPS <= need.gap:
            return {}
        return {tensor: ByteFormat(unit, _zero_point(lo, unit)) for tensor, (lo, _) in wanted.items()}

    def wanted(self, node: Node, layers: list[str], total: Span, ranges: Mapping[str, Span]) -> dict[str, Span]:
        """Values beyond which the sum and the layers among its operands may saturate, equation (1)."""
        wanted = {node.name: _with_zero(*total)}
        for tensor, other in zip(node.inputs, reversed(node.inputs), strict=True):
            if tensor in layers:
                (lo, hi), (other_lo, other_hi) = self.span(tensor, ranges), self.span(other, ranges)
                wanted[tensor] = _with_zero(max(lo, total[0] - other_hi), min(hi, total[1] - other_lo))
        return wanted

    def span(self, tensor: str, ranges: Mapping[str, Span]) -> Span:
        """The proven range of a tensor, within the given one."""
        proven = self.graph.types[tensor]
        lo, hi = ranges.get(tensor, (-np.inf, np.inf))
        return max(float(proven.lo.min()), lo), min(float(proven.hi.max()), hi)

    def need(self, tensor: str) -> _Need:
        """What is asked of a tensor."""
        if tensor in self.graph.outputs:
            return _Need(is_all=False)
        return reduce(_Need.joined, map(self.asked, self.readers[tensor]), _Need())

    def asked(self, node: Node) -> _Need:
        """What one reader asks of its input."""
        op = node.op
        if isinstance(op, Step) and op.function.n_steps <= FEW_STEPS and Encoding.of(op.function) is not None:
            thresholds = op.function.thresholds.astype(np.float64)
            gap = float(np.diff(thresholds).min()) if thresholds.size > 1 else float(op.function.scale)
            return _Need(tuple(thresholds.tolist()), gap)
        if isinstance(op, MaxPool) or (isinstance(op, Clip) and op.lo == 0 and op.hi is None):
            return self.need(node.name)
        return _Need(is_all=False)

    def is_layer(self, tensor: str) -> bool:
        """Whether a tensor that one node reads is a layer, with affines and a border correction behind it."""
        node = self.producers.get(tensor)
        while node is not None and len(self.readers[node.name]) == 1:
            if isinstance(node.op, Conv2d | Linear):
                return True
            if not isinstance(node.op, Affine | BorderBias):
                return False
            node = self.producers.get(node.inputs[0])
        return False

    def codes(self, tensor: str) -> Encoding | None:
        """How a tensor of codes of few bits is held."""
        node = self.producers.get(tensor)
        while node is not None and isinstance(node.op, _MOVES):
            node = self.producers.get(node.inputs[0])
        if node is None or not isinstance(node.op, Step) or node.op.function.n_steps > FEW_STEPS:
            return None
        return Encoding.of(node.op.function)


def _finest(wanted: dict[str, Span]) -> Fraction:
    """The unit in which the widest of some spans leaves room for roundings among the bytes."""
    return Fraction(max(hi - lo for lo, hi in wanted.values())) / (BYTE_MAX - 4)


def _even_units(thresholds: tuple[float, ...], scale: Fraction, finest: Fraction) -> list[tuple[Fraction, float]]:
    """Units that divide the scale of the codes, each with the phase with which the thresholds lie nearest to whole
    bytes; those that move them least come first."""
    most = int(scale / finest)
    found = []
    for parts in range(max(1, most // 2), most + 1):
        unit = scale / parts
        places = np.array(thresholds) / float(unit)
        phases = np.arange(PHASES)[:, None] / PHASES - places[0]
        misses = np.abs(places + phases - np.rint(places + phases)).max(axis=1)
        best = int(np.argmin(misses))
        found.append((float(misses[best]) * float(unit), unit, float(phases[best, 0])))
    return [(unit, phase) for _, unit, phase in sorted(found)[:UNITS_TRIED]]


def _placed_formats(
    total: str,
    layer: str,
    span: Span,
    thresholds: tuple[float, ...],
    codes: Encoding,
    unit: Fraction,
    phase: float,
) -> Formats:
    """Formats in which every threshold of the sum, and of the layer beside every code, has its byte; empty if none.

    Args:
        total, layer: the sum and the layer.
        span: proven range of the layer.
        thresholds: of the sum.
        codes: its other operand.
        unit, phase: see `_even_units`.
    """
    start = round(-phase)  # the phase moves the first threshold to its own neighbourhood of 0
    steps = [start + round(float(Fraction(t) / unit) + phase) for t in thresholds]
    # A ReLU between sum and quantizer cuts at zero: what zero does not reach begins behind its byte.
    lift = max(0, 1 - min((step for t, step in zip(thresholds, steps, strict=True) if t > 0), default=1))
    bars = [(t, step + lift) for t, step in zip(thresholds, steps, strict=True)]
    levels = range(-codes.zero_point, codes.top + 1 - codes.zero_point)
    parts = int(codes.scale / unit)
    beside = [(t - float(codes.scale * level), step - parts * level) for t, step in bars for level in levels]
    told = [place for value, place in beside if span[0] < value <= span[1]]
    if not told or any(step > 0 for t, step in bars if t <= 0):
        return {}
    zeros = {total: _zero_byte([step for _, step in bars]), layer: _zero_byte(told)}
    if max(*zeros.values(), zeros[total] + bars[-1][1], zeros[layer] + max(told)) > BYTE_MAX:
        return {}
    reached = sorted((value, zeros[layer] + place) for value, place in beside)
    return {
        total: ByteFormat(unit, zeros[total], tuple((t, zeros[total] + step) for t, step in bars)),
        # Beyond the bytes are only values that the layer always reaches, or never.
        layer: ByteFormat(unit, zeros[layer], tuple(bar for bar in reached if 0 < bar[1] <= BYTE_MAX)),
    }


def _zero_byte(places: list[int]) -> int:
    """The byte of zero with which the first place is byte 1, or zero byte 0 if that is beyond."""
    return max(0, 1 - min(places))


def _zero_point(lo: float, unit: Fraction) -> int:
    return ceil(Fraction(-lo) / unit) + 1 if lo < 0 else 0


def _with_zero(lo: float, hi: float) -> Span:
    """Zero is a byte of its own."""
    return min(lo, 0.0), max(hi, 0.0)
