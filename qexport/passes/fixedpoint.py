"""Fixed point: which power-of-two step a tensor gets, and the multipliers that bring integers to it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from qexport.errors import AccumulatorError
from qexport.ir import TensorType
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import Rescale
from qexport.passes.pending import Pending, Rationals

PRODUCT_LIMIT = 2**62
SHIFT_FREE_LOSS = 2.0**-24
"""A rescale without shift (32-bit arithmetic only) is chosen where its error stays below this share of the range."""


ROUNDING_SHARE = 2.0**-50
"""Relative rounding of an error bound computed in float64 from exact parts."""


def step_for(range_abs: float, bits: int) -> Fraction:
    """Smallest power of two 2**-k with range_abs / step <= 2**(bits - 1) - 1 (docs/arithmetic.md, eq. 7).

    A range of zero gets step 1.
    """
    if range_abs <= 0:
        return Fraction(1)
    limit = 2 ** (bits - 1) - 1
    exponent = math.floor(math.log2(limit / range_abs))
    step = Fraction(1, 2**exponent) if exponent >= 0 else Fraction(2**-exponent)
    return step if range_abs <= limit * step else step * 2


def fit_rescale(
    pending: Pending, x: TensorType, step: Rationals, *, lo: int = INT32_MIN, hi: int = INT32_MAX, half_up: bool = True
) -> tuple[Rescale, float]:
    """Multiplier, addend and shift with (x m + r) >> s close to (gain x + bias) / step (docs/arithmetic.md, eq. 6).

    Args:
        pending: gain and bias per channel; its chain is ignored.
        x: integer type of the tensor.
        step: target step per channel, [C].
        lo, hi: saturation of the result.
        half_up: round to nearest (halves up); otherwise floor.

    Returns:
        (the op, proven bound of |result - (gain x + bias) / step| in units of the step, saturation aside).

    Raises:
        AccumulatorError: no multiplier of 31 bits keeps the product below 2**62.
    """
    gain, bias = (_ratios(values / step) for values in (pending.gain, pending.bias))
    reach = [max(abs(int(a)), abs(int(b))) for a, b in zip(x.lo, x.hi, strict=True)]
    free = _candidate(gain, bias, reach, x, 0, False, lo, hi)
    steepest = max(abs(n) / d for n, d in gain)
    span = max(abs(g) / gd * n + abs(b) / bd for (g, gd), n, (b, bd) in zip(gain, reach, bias, strict=True))
    if free is not None and free[1] <= max(span * SHIFT_FREE_LOSS, 1e-9):
        return free
    for shift in range(_widest_shift(steepest, span), 0, -1):
        found = _candidate(gain, bias, reach, x, shift, half_up, lo, hi)
        if found is not None:
            return found
    raise AccumulatorError(
        "no fixed-point multiplier fits",
        where=pending.tensor,
        got=f"gain/step up to {steepest:.3g}, values up to {span:.3g} steps",
        expected="values that fit 32 bits in the steps of what reads them",
        remedy="calibrate again: the range of an activation near this tensor is far too wide or too narrow; "
        "without calibration, look for batch norms of nearly no variance",
    )


Ratio = tuple[int, int]
"""Numerator and positive denominator: integers, since the arithmetic of Fraction reduces every result."""


def _ratios(values: Rationals) -> list[Ratio]:
    return [(v.numerator, v.denominator) for v in values]


def _widest_shift(steepest: float, span: float) -> int:
    """A shift above which the multiplier or the sum certainly leaves its width, at most 62."""
    room = min(INT32_MAX / steepest if steepest else math.inf, PRODUCT_LIMIT / span if span else math.inf)
    return min(62, max(1, math.ceil(math.log2(room)) + 1)) if 0 < room < math.inf else 62


def _rounded(ratio: Ratio, shift: int) -> int:
    """ratio * 2**shift to the nearest integer, halves to even."""
    numerator, denominator = ratio
    whole, rest = divmod(numerator << shift, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def _off(rounded: int, ratio: Ratio, shift: int) -> float:
    """|rounded / 2**shift - ratio|, exact before it becomes a float."""
    numerator, denominator = ratio
    return abs((rounded * denominator) - (numerator << shift)) / (denominator << shift)


def _candidate(
    gain: list[Ratio], bias: list[Ratio], reach: list[int], x: TensorType, shift: int, half: bool, lo: int, hi: int
) -> tuple[Rescale, float] | None:
    """The op for one shift and its error bound, or None where a number would leave its width."""
    rounding = (1 << shift) // 2 if half else 0
    multiplier = [_rounded(g, shift) for g in gain]
    if max(map(abs, multiplier)) > INT32_MAX:
        return None
    addend = [_rounded(b, shift) for b in bias]
    limit = INT32_MAX if shift == 0 else PRODUCT_LIMIT
    if any(abs(m) * n + abs(r) + rounding > limit for m, n, r in zip(multiplier, reach, addend, strict=True)):
        return None
    error = max(
        n * _off(m, g, shift) + _off(r, b, shift)
        for m, n, r, g, b in zip(multiplier, reach, addend, gain, bias, strict=True)
    )
    m = np.array(multiplier, np.int64)
    r = np.array([a + rounding for a in addend], np.int64)
    if np.all(m == m[0]) and np.all(r == r[0]):
        m, r = m[:1], r[:1]
    # The float sum above may fall short of the exact bound by its rounding.
    error *= 1 + ROUNDING_SHARE
    return Rescale(m, r, shift, lo, hi), error + (0.0 if shift == 0 else 0.5 if half else 1.0)
