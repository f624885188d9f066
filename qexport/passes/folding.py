"""Threshold folding: "chain(gain * n + bias) >= t" becomes an integer comparison on n (docs/arithmetic.md, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.ir import TensorType
from qexport.ops import Clip, Op, Threshold
from qexport.passes.pending import Pending
from qexport.stepfunction import StepFunction


@dataclass(frozen=True, eq=False)
class Fold:
    """Record of one folded quantizer, all that the proof and the validation need.

    Attributes:
        name: node of the integer graph, also the Step node of the real graph.
        pending: what the compared tensor owed.
        function: the real step function.
        input_type: integer type of the compared tensor.
        coded: True where many uniform steps are computed by a saturating rescale instead of comparisons.
        error: proven bound on |exact real value - real value the integer decision stands for|.
    """

    name: str
    pending: Pending
    function: StepFunction
    input_type: TensorType
    coded: bool
    error: float


def fold_thresholds(pending: Pending, function: StepFunction, input_type: TensorType) -> Threshold:
    """Integer thresholds of a step function behind a pending chain, exact for every reachable integer.

    For each channel and step, T is the smallest m of the reachable range with value(direction * m) >= t. All T are
    bracketed together by a float64 bisection; each is then settled in exact rationals at T - 1 and T, and found
    again by an exact bisection where float64 was wrong. Where the real value falls as the integer grows
    (direction -1) the comparison is made on the negated integer. Steps never reached sit at max + 1, steps always
    taken at min.

    Returns:
        Threshold with [C, n] thresholds, or [1, n] where all channels agree.
    """
    direction = np.array([pending.direction(c) for c in range(input_type.channels)])
    lo = np.where(direction < 0, -input_type.hi, input_type.lo)
    hi = np.where(direction < 0, -input_type.lo, input_type.hi)
    guess = _bisect_float(pending, function, direction, lo, hi)
    targets = [t if np.isinf(t) else Fraction(float(t)) for t in function.thresholds.tolist()]
    thresholds = np.empty_like(guess)
    for c, turn in enumerate(np.where(direction == 0, 1, direction).tolist()):
        tests = _comparisons(pending, c, turn, targets)
        for i, reached in enumerate(tests):
            thresholds[c, i] = _settle(reached, int(lo[c]), int(hi[c]), int(guess[c, i]))
    sign = np.where(direction < 0, -1, 1).astype(np.int8)
    same = np.all(thresholds == thresholds[0]) and np.all(sign == sign[0])
    rows = slice(0, 1) if same else slice(None)
    return Threshold(thresholds[rows], sign[rows], function.levels)


def _bisect_float(
    pending: Pending, function: StepFunction, direction: NDArray, lo: NDArray, hi: NDArray
) -> NDArray[np.int64]:
    """Smallest m in [lo, hi + 1] with float64 value(direction * m) >= t, for all channels and steps: [C, n]."""
    shape = (lo.size, function.n_steps)
    turn = np.where(direction == 0, 1, direction)[:, None]
    left = np.broadcast_to(lo[:, None], shape).copy()
    right = np.broadcast_to(hi[:, None] + 1, shape).copy()
    targets = function.thresholds.astype(np.float64)
    while np.any(left < right):
        middle = left + (right - left) // 2
        reached = pending.float_values(middle * turn) >= targets
        right = np.where(reached, middle, right)
        left = np.where(reached, left, np.minimum(middle + 1, right))
    return left


def _comparisons(pending: Pending, c: int, turn: int, targets: list[Fraction | float]) -> list[Callable[[int], bool]]:
    """For every target t: m -> whether the exact value of turn * m reaches t.

    Behind clips alone "clip(v) >= t" is "v >= t", always or never; then integers decide it, an order of magnitude
    faster than Fractions.
    """
    if not all(isinstance(op, Clip) for op in pending.chain):
        return [lambda m, t=t: pending.value(c, turn * m) >= t for t in targets]  # type: ignore[misc]
    gain, bias = pending.gain[c] * turn, pending.bias[c]
    common = gain.denominator * bias.denominator
    slope, start = gain.numerator * bias.denominator, bias.numerator * gain.denominator
    tests: list[Callable[[int], bool]] = []
    for t in targets:
        settled = _settled_by_clips(pending.chain, t)
        if settled is not None:
            tests.append(lambda m, known=settled: known)  # type: ignore[misc]
        else:
            assert isinstance(t, Fraction)
            bar, factor = t.numerator * common, t.denominator
            tests.append(lambda m, bar=bar, factor=factor: (slope * m + start) * factor >= bar)  # type: ignore[misc]
    return tests


def _settled_by_clips(chain: tuple[Op, ...], target: Fraction | float) -> bool | None:
    """Whether clips decide v >= target for every v: True above a lower bound, False below an upper one, else None.

    The last clip that decides is the one that counts.
    """
    if not isinstance(target, Fraction):
        return target < 0
    for op in reversed(chain):
        assert isinstance(op, Clip)
        if op.hi is not None and op.hi < target:
            return False
        if op.lo is not None and op.lo >= target:
            return True
    return None


def _settle(reached: Callable[[int], bool], lo: int, hi: int, guess: int) -> int:
    """The exact threshold: the guess where it holds, else an exact bisection of [lo, hi + 1]."""
    if (guess == lo or not reached(guess - 1)) and (guess == hi + 1 or reached(guess)):
        return guess
    left, right = lo, hi + 1
    while left < right:
        middle = (left + right) // 2
        if reached(middle):
            right = middle
        else:
            left = middle + 1
    return left
