"""Integer thresholds as one multiplication: what QLinearConv can do instead of comparisons.

QuantizeLinear behind a convolution computes clip(round(m * (f * acc + b)), 0, 255) with an integer bias b and a real
multiplier m per channel; f is what the weights were multiplied by, so that b can be finer than the accumulator.
Thresholds T_1 <= ... <= T_n of the accumulator stand at bytes B_1 <= ... <= B_n exactly where

    m * (f * (T_i - 1) + b) < B_i - 1/2 < m * (f * T_i + b)    for every i        (1)

(steps that all channels always take, as below a ReLU, or never take are left to the Clip), which leaves an interval
of m for each b. Rounding b and m from the real affine instead would move thresholds.

Evenly spaced thresholds have B_i = i, and the byte is the code. Others get bytes as far apart as they are, the same in
all channels; what the bytes say about the code, qdq_steps.py finds out.
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

MULTIPLIERS_TRIED, BIASES_COMPARED = 16, 32
"""What is compared of a channel whose thresholds have to move."""

BYTE_MAX = 255

BIAS_LIMIT = 2**30
"""Largest bias, so that accumulator and bias together stay in int32."""


AccumulatorBars = tuple[NDArray[np.int64], NDArray[np.int64]]
"""What `accumulator_bars` returns."""


@dataclass(frozen=True, eq=False)
class Requantization:
    """Parameters of every channel.

    Attributes:
        bias: int64 [C], added to the accumulator in steps of 1 / finer.
        multiplier: float64 [C], bytes per step of 1 / finer; negative where the code falls as the accumulator grows.
        low, top: smallest and largest byte any channel reaches; the result is clipped to them.
        bars: the byte from which each step is taken.
        moved: accumulator steps by which thresholds move, summed over all of them; 0 where every code is exact.
    """

    bias: NDArray[np.int64]
    multiplier: NDArray[np.floating]
    low: int
    top: int
    bars: tuple[int, ...]
    moved: int


def requantization(
    pending: Pending,
    function: StepFunction,
    acc: TensorType,
    gap: int = 1,
    finer: int = 1,
    *,
    exact: bool = False,
) -> Requantization | None:
    """The best parameters for a step function behind a chain of the accumulator; None where no int32 bias serves.

    Args:
        pending: gain, bias and chain from the accumulator to the step function's input.
        function: the quantizer.
        acc: integer type of the accumulator, with its range per channel.
        gap: bytes from one code to the next; above 1 only for a single step.
        finer: what the weights are multiplied by.
        exact: give None where a threshold would move.
    """
    if function.n_steps > 1:
        places = np.arange(1, function.n_steps + 1)
        return placed_requantization(
            pending, function.thresholds, places, acc, finer, largest=function.n_steps, exact=exact
        )
    turn, bars = accumulator_bars(pending, function.thresholds, acc)
    bias = turn * finer * (1 - bars[:, 0])  # the sum is 0 or less below the threshold, `finer` or more from it on
    return _within_limits(Requantization(bias, turn * gap / finer, 0, gap, (gap,), 0))


def spread_requantization(
    pending: Pending, function: StepFunction, acc: TensorType, finer: int = 1
) -> Requantization | None:
    """Bytes as far apart as the thresholds, the same in all channels; None where no int32 bias serves.

    Args:
        pending, function, acc, finer: as for `requantization`.
    """
    thresholds = function.thresholds.astype(np.float64)
    shares = (thresholds - thresholds[0]) / (thresholds[-1] - thresholds[0])
    spans = np.arange(BYTE_MAX // 2, BYTE_MAX)[:, None]
    within = spans[:, 0] * (2 - shares[-2]) >= BYTE_MAX  # one more step would begin beyond the bytes
    spans = spans[within] if within.any() else spans
    places = np.rint(shares * spans)
    if np.any(np.diff(places) < 1):
        return None
    best = int(np.argmin(np.abs(places - shares * spans).max(axis=1) / spans[:, 0]))
    return placed_requantization(pending, thresholds, places[best].astype(np.int64) + 1, acc, finer)


def placed_requantization(
    pending: Pending,
    thresholds: NDArray[np.floating],
    places: NDArray[np.int64],
    acc: TensorType,
    finer: int = 1,
    *,
    largest: int = BYTE_MAX,
    known: AccumulatorBars | None = None,
    exact: bool = False,
) -> Requantization | None:
    """Parameters with which each threshold is reached at its byte; None where no int32 bias serves.

    Args:
        pending, acc, finer: as for `requantization`.
        thresholds: [n], ascending real values behind the chain.
        places: [n], the byte from which each of them is reached.
        largest: no byte exceeds it.
        known: the bars of these thresholds, where they were computed before.
        exact: give None where a threshold would move.
    """
    turn, bars = known or accumulator_bars(pending, thresholds, acc)
    ends = np.sort(np.stack([turn * acc.lo, turn * acc.hi]), axis=0)
    low = int((bars <= ends[0][:, None]).sum(1).min())
    top = int((bars <= ends[1][:, None]).sum(1).max())
    half_steps = places[low:top] - 0.5
    bias, multiplier, moved = np.zeros_like(turn), np.zeros(turn.size), 0
    spans = np.ptp(bars[:, low:top], axis=1) if low < top else turn
    for c in np.argsort(-spans):  # the most difficult channels first
        steps, lo, hi = bars[c, low:top], int(ends[0][c]), int(ends[1][c])
        if exact:
            fitted = _fit_exactly(steps, lo, hi, half_steps, finer)
            if fitted is None:
                return None
            bias[c], multiplier[c] = fitted
        else:
            bias[c], multiplier[c], misses = fit_channel(steps, lo, hi, half_steps, finer)
            moved += misses
    bias, multiplier = turn * bias, turn * multiplier
    first = int(places[low - 1]) if low else 0
    last = int(places[top]) - 1 if top < places.size else largest
    return _within_limits(Requantization(bias, multiplier, first, last, tuple(places.tolist()), moved))


def _within_limits(found: Requantization) -> Requantization | None:
    return found if np.abs(found.bias).max() <= BIAS_LIMIT else None


def accumulator_bars(pending: Pending, thresholds: NDArray[np.floating], acc: TensorType) -> AccumulatorBars:
    """Turn [C] (+1 or -1) and the smallest turn * acc that reaches each step, [C, n], by float64 bisection.

    A step never reached sits one past the range, one always reached at its start.
    """
    turn = np.array([pending.direction(c) or 1 for c in range(acc.channels)], np.int64)
    ends = np.sort(np.stack([turn * acc.lo, turn * acc.hi]), axis=0)
    shape = (acc.channels, thresholds.size)
    left, right = np.broadcast_to(ends[0][:, None], shape).copy(), np.broadcast_to(ends[1][:, None] + 1, shape).copy()
    targets = thresholds.astype(np.float64)
    while np.any(left < right):
        middle = left + (right - left) // 2
        reached = pending.float_values(middle * turn[:, None]) >= targets
        # Where left == right the bracket is closed, whatever the value there.
        left, right = np.where(reached, left, np.minimum(middle + 1, right)), np.where(reached, middle, right)
    return turn, left


def fit_channel(
    bars: NDArray[np.int64], lo: int, hi: int, half_steps: NDArray[np.floating], finer: int = 1
) -> tuple[int, float, int]:
    """Bias and multiplier of one channel, and by how many accumulators in [lo, hi] they move the thresholds.

    Args:
        bars: int64 [n], ascending, within [lo, hi + 1]: where the steps begin.
        lo, hi: range of the accumulator.
        half_steps: [n], the real bytes, half way between two, at which they are to begin.
        finer: what the weights are multiplied by.
    """
    found = _fit_exactly(bars, lo, hi, half_steps, finer)
    if found is not None:
        return *found, 0
    biases = _biases(_line(bars, half_steps, lo, hi)[1], finer)
    return _least_moved(bars, half_steps, biases, lo, hi, finer)


def _fit_exactly(
    bars: NDArray[np.int64], lo: int, hi: int, half_steps: NDArray[np.floating], finer: int
) -> tuple[int, float] | None:
    """Bias and multiplier that satisfy (1), with room on both sides; None where none do."""
    if not bars.size:
        return 0, 1.0
    slope, start = _line(bars, half_steps, lo, hi)
    biases = _biases(start, finer)
    floor, ceiling = _interval(bars, half_steps, biases, lo, hi, finer)
    with np.errstate(invalid="ignore"):
        width = np.where(floor < ceiling, 1 - floor / ceiling, -1.0)
    best = int(np.argmax(width))
    if width[best] <= 0:
        return None
    middle = 2 * floor[best] if np.isinf(ceiling[best]) else (floor[best] + ceiling[best]) / 2
    return int(biases[best]), float(middle) or 1 / (slope * finer)


def _biases(start: float, finer: int) -> NDArray[np.int64]:
    """Integers on either side of a real bias."""
    spread = max(BIAS_SPREAD, finer)
    return round(start * finer) + np.arange(-spread, spread + 1)


def _line(bars: NDArray[np.int64], half_steps: NDArray[np.floating], lo: int, hi: int) -> tuple[float, float]:
    """(accumulators per code, bias) of the straight line through the thresholds inside the range."""
    inside = (bars > lo) & (bars <= hi)
    span = hi - lo + 1
    if np.count_nonzero(inside) >= 2 and np.ptp(bars[inside]) > 0:
        steps, ends = half_steps[inside], bars[inside] - 0.5
        beside = steps - steps.mean()
        slope = float(beside @ (ends - ends.mean()) / (beside @ beside))
        return slope, float(slope * steps.mean() - ends.mean())
    # At most one distinct threshold is reachable: the neighbouring steps must lie beyond the range.
    slope = 2.0 * span
    first = int(np.count_nonzero(bars <= lo))
    step = half_steps[first] if inside.any() else half_steps[first - 1] + 0.5 if first else half_steps[0] - 0.5
    return slope, float(step * slope - (bars[inside][0] - 0.5 if inside.any() else lo + span / 2))


def _interval(
    bars: NDArray[np.int64], half_steps: NDArray[np.floating], biases: NDArray[np.int64], lo: int, hi: int, finer: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multipliers that satisfy (1) for each bias: (exclusive lower ends, exclusive upper ends), [K] each."""
    reached = finer * bars[None, :] + biases[:, None]  # smallest sum of each step, [K, n]
    below = reached - finer
    with np.errstate(divide="ignore"):
        floors = np.where(bars <= hi, np.where(reached > 0, half_steps / reached, np.inf), 0.0)
        ceilings = np.where((bars > lo) & (below > 0), half_steps / below, np.inf)
    return floors.max(axis=1, initial=0.0), ceilings.min(axis=1, initial=np.inf)


def _least_moved(
    bars: NDArray[np.int64], half_steps: NDArray[np.floating], biases: NDArray[np.int64], lo: int, hi: int, finer: int
) -> tuple[int, float, int]:
    """Where (1) has no solution: the pair that moves thresholds least, among lines through single thresholds."""
    biases = biases[:: -(-biases.size // BIASES_COMPARED)]
    chosen = np.unique(np.linspace(0, bars.size - 1, MULTIPLIERS_TRIED).astype(int))
    middles = finer * (bars[chosen] - 0.5)[None, :] + biases[:, None]  # [K, M]
    multipliers = np.where(middles > 0, half_steps[chosen] / np.where(middles > 0, middles, 1.0), np.nan)
    with np.errstate(invalid="ignore"):
        taken = np.ceil((half_steps / multipliers[..., None] - biases[:, None, None]) / finer)  # [K, M, n]
    moved = np.abs(np.clip(taken, lo, hi + 1) - bars).sum(-1)
    k, j = np.unravel_index(int(np.nanargmin(moved)), moved.shape)
    return int(biases[k]), float(multipliers[k, j]), int(moved[k, j])
