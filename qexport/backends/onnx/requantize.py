"""Integer thresholds as one multiplication: what QLinearConv can do instead of comparisons.

QuantizeLinear behind a convolution computes code(acc) = clip(round(m * (acc + b)), 0, n) with an integer bias b
and a real multiplier m per channel. It gives the codes of the thresholds T_1 <= ... <= T_n exactly where

    m * (T_i - 1 + b) < i - 1/2 < m * (T_i + b)    for every i        (1)

(steps that all channels always take, as below a ReLU, or never take are left to the Clip), which leaves an interval
of m for each b. Rounding b and m from the real affine instead would move thresholds.

Thresholds that are not evenly spaced have no such pair. With m = 1 or -1 the byte is a window of the accumulator,

    clip(turn * acc + 1 - first, 0, 255),    turn = +1 or -1, first = the lowest threshold of the channel,    (2)

on which every threshold stands at a byte of its own; comparisons of bytes then give the code, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qexport.ir import TensorType
from qexport.passes.pending import Pending
from qexport.stepfunction import StepFunction

BIAS_SPREAD = 8
"""Integer biases tried on either side of the one the real affine suggests."""

MULTIPLIERS_TRIED = 16

BYTE_MAX = 255

BIAS_LIMIT = 2**30
"""Largest bias, so that accumulator and bias together stay in int32."""


@dataclass(frozen=True, eq=False)
class Requantization:
    """Parameters of every channel.

    Attributes:
        bias: int64 [C], added to the accumulator.
        multiplier: float64 [C], negative where the code falls as the accumulator grows.
        low, top: smallest and largest byte any channel reaches; the result is clipped to them.
        moved: accumulator steps by which thresholds move, summed over all of them; 0 where every code is exact.
    """

    bias: NDArray[np.int64]
    multiplier: NDArray[np.floating]
    low: int
    top: int
    moved: int


def requantization(pending: Pending, function: StepFunction, acc: TensorType, gap: int = 1) -> Requantization | None:
    """The best parameters for a step function behind a chain of the accumulator; None where no int32 bias serves.

    Args:
        pending: gain, bias and chain from the accumulator to the step function's input.
        function: the quantizer.
        acc: integer type of the accumulator, with its range per channel.
        gap: bytes from one code to the next; above 1 only for a single step.
    """
    turn, bars = _accumulator_bars(pending, function, acc)
    if function.n_steps == 1:  # the sum is 0 or less below the threshold, 1 or more from it on
        bias, multiplier, moved, low, top = turn * (1 - bars[:, 0]), turn * float(gap), 0, 0, gap
    else:
        ends = np.sort(np.stack([turn * acc.lo, turn * acc.hi]), axis=0)
        low = int((bars <= ends[0][:, None]).sum(1).min())
        top = int((bars <= ends[1][:, None]).sum(1).max())
        fitted = [fit_channel(row[low:top], int(lo), int(hi), low) for row, lo, hi in zip(bars, *ends, strict=True)]
        bias = turn * np.array([b for b, _, _ in fitted], np.int64)
        multiplier = turn * np.array([m for _, m, _ in fitted])
        moved = sum(misses for _, _, misses in fitted)
    return Requantization(bias, multiplier, low, top, moved) if np.abs(bias).max() <= BIAS_LIMIT else None


@dataclass(frozen=True, eq=False)
class Window:
    """Parameters of every channel for a window of the accumulator, equation (2).

    Attributes:
        bias: int64 [C], added to the accumulator.
        multiplier: float64 [C], 1.0 or -1.0.
        bars: int64 [C, n], the byte from which each step is taken: 0 always, 255 never.
        top: the largest byte the window may hold, to which it is clipped.
    """

    bias: NDArray[np.int64]
    multiplier: NDArray[np.floating]
    bars: NDArray[np.int64]
    top: int


def window(pending: Pending, function: StepFunction, acc: TensorType) -> Window | None:
    """The window that holds all thresholds of every channel; None where those of one lie too far apart.

    Args:
        pending, function, acc: as for `requantization`.
    """
    turn, bars = _accumulator_bars(pending, function, acc)
    ends = np.sort(np.stack([turn * acc.lo, turn * acc.hi]), axis=0)
    always, never = bars <= ends[0][:, None], bars > ends[1][:, None]
    first = np.where(always | never, ends[1][:, None] + 1, bars).min(axis=1, initial=np.iinfo(np.int64).max)
    places = np.where(always, 0, np.where(never, BYTE_MAX, bars - first[:, None] + 1))
    if np.any(places[~never] >= BYTE_MAX) or np.abs(first).max() >= BIAS_LIMIT:
        return None
    # A sum that reaches the end of the window must not take a step that its channel never takes.
    leaves = never.any(axis=1) & (ends[1] - first + 1 >= BYTE_MAX)
    return Window(turn * (1 - first), turn.astype(np.float64), places, BYTE_MAX - 1 if leaves.any() else BYTE_MAX)


def _accumulator_bars(
    pending: Pending, function: StepFunction, acc: TensorType
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn [C] (+1 or -1) and the smallest turn * acc that reaches each step, [C, n], by float64 bisection.

    A step never reached sits one past the range, one always reached at its start.
    """
    turn = np.array([pending.direction(c) or 1 for c in range(acc.channels)], np.int64)
    ends = np.sort(np.stack([turn * acc.lo, turn * acc.hi]), axis=0)
    shape = (acc.channels, function.n_steps)
    left, right = np.broadcast_to(ends[0][:, None], shape).copy(), np.broadcast_to(ends[1][:, None] + 1, shape).copy()
    targets = function.thresholds.astype(np.float64)
    while np.any(left < right):
        middle = left + (right - left) // 2
        reached = pending.float_values(middle * turn[:, None]) >= targets
        # Where left == right the bracket is closed, whatever the value there.
        left, right = np.where(reached, left, np.minimum(middle + 1, right)), np.where(reached, middle, right)
    return turn, left


def fit_channel(bars: NDArray[np.int64], lo: int, hi: int, low: int = 0) -> tuple[int, float, int]:
    """Bias and multiplier of one channel, and by how many accumulators in [lo, hi] they move the thresholds.

    Args:
        bars: int64 [n], ascending, within [lo, hi + 1]: where the codes low + 1 .. low + n begin.
        lo, hi: range of the accumulator.
        low: code below the first of them, to which the result is clipped.
    """
    if not bars.size:
        return 0, 1.0, 0
    half_steps = low + np.arange(1, bars.size + 1) - 0.5
    slope, start = _line(bars, half_steps, lo, hi)
    biases = round(start) + np.arange(-BIAS_SPREAD, BIAS_SPREAD + 1)
    floor, ceiling = _interval(bars, half_steps, biases, lo, hi)
    with np.errstate(invalid="ignore"):
        width = np.where(floor < ceiling, 1 - floor / ceiling, -1.0)
    best = int(np.argmax(width))
    if width[best] > 0:
        middle = 2 * floor[best] if np.isinf(ceiling[best]) else (floor[best] + ceiling[best]) / 2
        return int(biases[best]), float(middle) or 1 / slope, 0
    return _least_moved(bars, half_steps, biases, lo, hi)


def _line(bars: NDArray[np.int64], half_steps: NDArray[np.floating], lo: int, hi: int) -> tuple[float, float]:
    """(accumulators per code, bias) of the straight line through the thresholds inside the range."""
    inside = (bars > lo) & (bars <= hi)
    span = hi - lo + 1
    if np.count_nonzero(inside) >= 2 and np.ptp(bars[inside]) > 0:
        slope, intercept = np.polyfit(half_steps[inside], bars[inside] - 0.5, 1)
        return float(slope), float(-intercept)
    # At most one distinct threshold is reachable: the neighbouring steps must lie beyond the range.
    slope = 2.0 * span
    first = int(np.count_nonzero(bars <= lo))
    step = half_steps[first] if inside.any() else half_steps[0] - 0.5 + first
    return slope, float(step * slope - (bars[inside][0] - 0.5 if inside.any() else lo + span / 2))


def _interval(
    bars: NDArray[np.int64], half_steps: NDArray[np.floating], biases: NDArray[np.int64], lo: int, hi: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multipliers that satisfy (1) for each bias: (exclusive lower ends, exclusive upper ends), [K] each."""
    reached = bars[None, :] + biases[:, None]  # smallest acc + b of each step, [K, n]
    below = reached - 1
    with np.errstate(divide="ignore"):
        floors = np.where(bars <= hi, np.where(reached > 0, half_steps / reached, np.inf), 0.0)
        ceilings = np.where((bars > lo) & (below > 0), half_steps / below, np.inf)
    return floors.max(axis=1, initial=0.0), ceilings.min(axis=1, initial=np.inf)


def _least_moved(
    bars: NDArray[np.int64], half_steps: NDArray[np.floating], biases: NDArray[np.int64], lo: int, hi: int
) -> tuple[int, float, int]:
    """Where (1) has no solution: the pair that moves thresholds least, among lines through single thresholds."""
    chosen = np.unique(np.linspace(0, bars.size - 1, MULTIPLIERS_TRIED).astype(int))
    middles = bars[chosen][None, :] - 0.5 + biases[:, None]  # [K, M]
    multipliers = np.where(middles > 0, half_steps[chosen] / np.where(middles > 0, middles, 1.0), np.nan)
    with np.errstate(invalid="ignore"):
        taken = np.ceil(half_steps / multipliers[..., None] - biases[:, None, None])  # [K, M, n]
    moved = np.abs(np.clip(taken, lo, hi + 1) - bars).sum(-1)
    k, j = np.unravel_index(int(np.nanargmin(moved)), moved.shape)
    return int(biases[k]), float(multipliers[k, j]), int(moved[k, j])
