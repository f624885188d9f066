"""Threshold: a sum of integer comparisons, or a binary search where there are many steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import INT8, INT32, UINT8, Emitter, fits
from qexport.ir import TensorType
from qexport.ir.types import INT32_MAX
from qexport.ops import Threshold

SEARCH_FROM = 100
"""Steps from which a binary search (one Gather a bit) is faster than one comparison a step."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """A Threshold rewritten so that x itself is compared: y = base[c] + turn[c] * sum_i gaps[i] * [x >= bars[c, i]].

    Where sign is -1, -x >= t is the opposite of x >= 1 - t, so the sum is subtracted from the last level. This
    spares a multiplication of the int32 accumulator.

    Attributes:
        bars: int64 [R, n], R = C or 1; up to 2**31 + 1.
        gaps: int64 [n], level increments.
        base, turn: int64 [R]; turn is +1 or -1.
    """

    bars: NDArray[np.int64]
    gaps: NDArray[np.int64]
    base: NDArray[np.int64]
    turn: NDArray[np.int64]


def comparisons(op: Threshold, x: TensorType) -> Comparisons:
    """The comparisons of a Threshold, without the steps that no channel can reach."""
    turn = op.sign.astype(np.int64)
    bars = np.where(turn[:, None] > 0, op.thresholds, 1 - op.thresholds)
    levels = op.levels.astype(np.int64)
    base = np.where(turn > 0, levels[0], levels[-1])
    reachable = np.any(bars <= x.hi[:, None], axis=0)
    return Comparisons(bars[:, reachable], np.diff(levels)[reachable], base, turn)


def lower_threshold(e: Emitter, op: Threshold, name: str) -> str:
    """codes by comparison in int32, levels by weighting the comparisons."""
    x = e.graph.types[name]
    compared = e.cast(name, INT32)
    plan = comparisons(op, x)
    if plan.gaps.size >= SEARCH_FROM and np.all(x.hi < INT32_MAX):
        return _binary_search(e, op, compared, len(x.shape))
    rank = len(x.shape)
    return comparison_sum(e, plan, compared, lambda i: _at_least(e, compared, plan.bars[:, i], rank), rank)


def comparison_sum(e: Emitter, plan: Comparisons, compared: str, reached: Callable[[int], str], rank: int) -> str:
    """base + turn * sum of the increments of the steps that are reached.

    Args:
        e: the emitter.
        plan: increments, base and turn.
        compared: the value that is compared, for its shape.
        reached: emits the comparison of one step, a boolean value.
        rank: axes of a sample.
    """
    gaps, turn = plan.gaps, plan.turn
    if gaps.size and np.all(gaps == gaps[0]):  # one multiplication at the end instead of one a step
        gaps, turn = np.ones_like(gaps), turn * gaps[0]
    dtype = _sum_dtype(gaps, turn, plan.base, e.carrier(e.scope))
    total = ""
    for i, gap in enumerate(gaps.tolist()):
        part = e.cast(reached(i), dtype, "step")
        if gap != 1:
            part = e.node("Mul", [part, e.constant(np.array(gap, dtype))], "gap")
        total = e.node("Add", [total, part], "steps") if total else part
    if not total:  # no step can be reached: a constant of the input's shape
        total = e.cast(e.node("Less", [compared, compared], "never", bool), dtype, "zero")
    if np.any(turn != 1):
        total = e.node("Mul", [total, e.per_channel(turn, rank, dtype)], "turned")
    if np.any(plan.base != 0):
        total = e.node("Add", [total, e.per_channel(plan.base, rank, dtype)], "level")
    return total


def _at_least(e: Emitter, compared: str, bars: NDArray[np.int64], rank: int) -> str:
    """x >= bars, where a bar of 2**31 or above (1 - t of a negated channel) is never reached and must not wrap."""
    clamped = np.minimum(bars, INT32_MAX)
    reached = e.node("GreaterOrEqual", [compared, e.per_channel(clamped, rank, INT32)], "reached", bool)
    if np.any(bars > INT32_MAX):
        reached = e.node("And", [reached, e.per_channel(bars <= INT32_MAX, rank, bool)], "reached")
    return reached


def _sum_dtype(gaps: NDArray, turn: NDArray, base: NDArray, preferred: np.dtype) -> np.dtype:
    """Narrowest element type in which neither the parameters nor any partial sum can leave the type."""
    up, down = int(np.maximum(gaps, 0).sum()), int(np.minimum(gaps, 0).sum())
    ends = np.concatenate([turn * up, turn * down, turn * up + base, turn * down + base, turn, base])
    lo = min(0, down, int(gaps.min(initial=0)), int(ends.min()))
    hi = max(1, up, int(gaps.max(initial=0)), int(ends.max()))
    return next((dtype for dtype in (preferred, INT8, UINT8) if fits(lo, hi, dtype)), INT32)


def _binary_search(e: Emitter, op: Threshold, compared: str, rank: int) -> str:
    """count = #{i : x >= bars[c, i]} bit by bit, then levels by table.

    Each round compares x with bars[c, count + half - 1]; rows are filled up to 2**k - 1 bars with one that the
    range of x (below 2**31 - 1) never reaches.
    """
    turn = op.sign.astype(np.int64)
    bars = np.sort(np.where(turn[:, None] > 0, op.thresholds, 1 - op.thresholds), axis=1)
    rows, n_steps = bars.shape
    size = (1 << n_steps.bit_length()) - 1
    bars = np.pad(np.minimum(bars, INT32_MAX), ((0, 0), (0, size - n_steps)), constant_values=INT32_MAX)
    table = e.initializer("bars", bars.reshape(-1).astype(np.int32))
    first = np.arange(rows) * size  # row of each channel in the flat table
    half = (size + 1) // 2
    reached = _at_least(e, compared, bars[:, half - 1], rank)
    count = e.node("Mul", [e.cast(reached, INT32, "bit"), e.constant(np.array(half, INT32))], "count")
    while half > 1:
        half //= 2
        index = e.node("Add", [count, e.per_channel(first + half - 1, rank, INT32)], "index")
        bar = e.node("Gather", [table, index], "bar")
        reached = e.node("GreaterOrEqual", [compared, bar], "reached", bool)
        bit = e.node("Mul", [e.cast(reached, INT32, "bit"), e.constant(np.array(half, INT32))], "bit")
        count = e.node("Add", [count, bit], "count")
    return _levels_by_table(e, op, count, rank)


def _levels_by_table(e: Emitter, op: Threshold, count: str, rank: int) -> str:
    """levels[count], or levels[n - count] for channels of sign -1, by one Gather."""
    levels = op.levels.astype(e.carrier(e.scope))
    negative = op.sign < 0
    table = np.concatenate([levels, levels[::-1]])
    if negative.any():
        count = e.node("Add", [count, e.per_channel(negative * levels.size, rank, INT32)], "index")
    return e.node("Gather", [e.initializer("levels", table), count], "level", levels.dtype)
