"""Residual sums that only a threshold reads, in int32 without shifts.

The integer graph brings both operands to one fixed-point step before it adds them,

    code = #{ i : ((a * m + r) >> s) + g(v) >= T_i },    g(v) the other operand's rescale                       (1)

with 64-bit products. Where nothing but the code is read, the sum itself is not needed. For a channel with m > 0 and a
value v of the other operand, step i is reached exactly from a = B_i(v) on,

    B_i(v) = ceil( ((T_i - g(v)) * 2**s - r) / m )                                                              (2)

so any integers L > 0, D and t_i serve for which, at every v and i,

    L * (B_i(v) - 1) + D * v < t_i <= L * B_i(v) + D * v                                                        (3)

(only one side where B_i(v) lies outside the range of a), and code = #{ i : L * a + D * v >= t_i }. D / L approximates
the ratio of the two steps, L being as large as int32 allows; (3) is checked for every v, so the codes are equal for all
integers the operands can take. For m < 0, -a takes the place of a.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.ir import Graph, Node, TensorType
from qexport.ir.types import INT32_MAX
from qexport.ops import Add, Rescale, Threshold

MOST_VALUES = 2**12
"""Values of the other operand that are checked one by one."""

LARGEST_SHIFT = 24
"""With thresholds and operands of 32 bits, the dividend of (2) then stays in 63 bits."""

SCALES_COMPARED, SCALES_TRIED = 4096, 4
"""How many values of L below the largest are compared, and how many of them are tried."""


@dataclass(frozen=True, eq=False)
class PlainSum:
    """L * a + D * v compared with t.

    Attributes:
        scaled: the rescale whose input is a; its multiplier becomes `gain`.
        other: the rescale whose input is v; its multiplier becomes `other_gain`.
        gain, other_gain: int64 [C], L (with the sign of m) and D.
        thresholds: int64 [C, n].
    """

    scaled: Node
    other: Node
    gain: NDArray[np.int64]
    other_gain: NDArray[np.int64]
    thresholds: NDArray[np.int64]


def plain_sums(graph: Graph) -> Graph:
    """The same graph with every sum that allows it in the plain form.

    Tensors of equal names hold equal integers; the operands and the sum itself, which the form does not compute, are
    replaced by tensors of other names.
    """
    found = _find(graph)
    if not found:
        return graph
    add_of = {name: graph.node(name).inputs[0] for name in found}
    gone = {n for name, s in found.items() for n in (add_of[name], s.scaled.name, s.other.name)}
    out = Graph(dict(graph.inputs), types=dict(graph.inputs), outputs=list(graph.outputs))
    taken = set(graph.types)

    def fresh(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    for node in graph.nodes:
        if node.name in gone:
            continue
        if node.name not in found:
            out.add(node.name, node.op, *node.inputs, source=node.source)
            continue
        plain, parts = found[node.name], []
        for operand, gain in ((plain.scaled, plain.gain), (plain.other, plain.other_gain)):
            op = Rescale(gain, np.zeros_like(gain), 0)
            parts.append(out.add(fresh(f"{operand.name}.plain"), op, *operand.inputs))
        total = out.add(fresh(f"{add_of[node.name]}.plain"), Add(), *parts)
        assert isinstance(node.op, Threshold)
        signs = np.ones(len(plain.gain), np.int8)
        out.add(node.name, Threshold(plain.thresholds, signs, node.op.levels), total, source=node.source)
    return out


def _find(graph: Graph) -> dict[str, PlainSum]:
    """Thresholds behind a sum in its plain form, by name."""
    producers, readers = {node.name: node for node in graph.nodes}, graph.consumers()

    def inner(tensor: str) -> Node | None:
        """The node that makes a tensor for one reader only."""
        return producers.get(tensor) if len(readers[tensor]) == 1 and tensor not in graph.outputs else None

    found = {}
    for node in graph.find(Threshold):
        total = inner(node.inputs[0])
        if total is None or not isinstance(total.op, Add):
            continue
        operands = [inner(tensor) for tensor in total.inputs]
        rescales = [p for p in operands if p is not None and isinstance(p.op, Rescale) and _is_plain(graph, p)]
        if len(rescales) != 2:
            continue
        scaled, other = sorted(rescales, key=lambda p: -_values(graph.types[p.inputs[0]]))
        plain = _plain(graph, node, scaled, other)
        if plain is not None:
            found[node.name] = plain
    return found


def _is_plain(graph: Graph, node: Node) -> bool:
    """Whether a rescale never saturates."""
    op, x = node.op, graph.types[node.inputs[0]]
    assert isinstance(op, Rescale)
    lo, hi = op.exact_sums(x)
    return op.lo <= min(lo) >> op.shift and max(hi) >> op.shift <= op.hi


def _values(x: TensorType) -> int:
    """The most values any channel can take."""
    return int((x.hi - x.lo).max()) + 1


def _plain(graph: Graph, node: Node, scaled: Node, other: Node) -> PlainSum | None:
    """Gains and thresholds of (3); None where none are found, or where the sum needs no shift as it is."""
    op, first, second = node.op, scaled.op, other.op
    assert isinstance(op, Threshold) and isinstance(first, Rescale) and isinstance(second, Rescale)
    a, v = graph.types[scaled.inputs[0]], graph.types[other.inputs[0]]
    m = np.broadcast_to(first.multiplier, a.channels)
    if not (first.shift or second.shift) or first.shift > LARGEST_SHIFT or _values(v) > MOST_VALUES:
        return None
    if np.any(op.sign < 0) or np.any(m == 0):
        return None
    sign = np.sign(m)
    lo, hi = np.minimum(sign * a.lo, sign * a.hi), np.maximum(sign * a.lo, sign * a.hi)
    bars = np.broadcast_to(op.thresholds, (a.channels, op.thresholds.shape[1]))
    slope = np.broadcast_to(second.multiplier, a.channels) / 2.0**second.shift * 2.0**first.shift / np.abs(m)
    addend = np.broadcast_to(first.addend, a.channels)
    offsets, seconds = np.broadcast_to(second.addend, a.channels), np.broadcast_to(second.multiplier, a.channels)
    rows = []
    for c in range(a.channels):
        values = np.arange(v.lo[c], v.hi[c] + 1)
        shifted = (values * seconds[c] + offsets[c]) >> second.shift
        starts = -((addend[c] - ((bars[c][:, None] - shifted) << first.shift)) // abs(int(m[c])))
        row = fit_gains(np.clip(starts, lo[c], hi[c] + 1), values, (int(lo[c]), int(hi[c])), float(slope[c]))
        if row is None:
            return None
        rows.append(row)
    gain, other_gain = (np.array(column, np.int64) for column in list(zip(*rows, strict=True))[:2])
    return PlainSum(scaled, other, sign * gain, other_gain, np.stack([t for _, _, t in rows]))


def fit_gains(
    starts: NDArray[np.int64], values: NDArray[np.int64], ends: tuple[int, int], slope: float
) -> tuple[int, int, NDArray[np.int64]] | None:
    """L, D and the thresholds [n] of one channel that satisfy (3); None where no L that is tried does.

    Args:
        starts: int64 [n, V], B_i(v) of (2), within [lo, hi + 1].
        values: int64 [V], every v.
        ends: (lo, hi), the range of a.
        slope: the ratio of the steps that D / L approximates.
    """
    lo, hi = ends
    reach = max(abs(lo), abs(hi), 1) + (abs(slope) + 1) * max(abs(int(values[0])), abs(int(values[-1])), 1) + 1
    largest = int(INT32_MAX // (2 * reach))
    for gain in _scales(largest, slope):
        other = round(slope * gain)
        moved = other * values
        above = np.where(starts <= hi, gain * starts + moved, INT32_MAX).min(axis=1)
        below = np.where(starts > lo, gain * (starts - 1) + moved, -INT32_MAX).max(axis=1)
        if np.all(below < above):
            first, last = gain * lo + int(moved.min()), gain * hi + int(moved.max())
            thresholds = np.clip(below + (above - below + 1) // 2, first, last + 1)
            if np.all(np.diff(thresholds) >= 0):
                return gain, other, thresholds
    return None


def _scales(largest: int, slope: float) -> Iterator[int]:
    """Values of L to try: the largest serves nearly always; then those at which D / L comes nearest to the ratio."""
    if largest < 1:
        return
    yield largest
    gains = np.arange(largest, max(largest - SCALES_COMPARED, 0), -1)
    distances = np.abs(slope * gains - np.rint(slope * gains))
    yield from gains[np.argsort(distances, kind="stable")[:SCALES_TRIED]].tolist()
