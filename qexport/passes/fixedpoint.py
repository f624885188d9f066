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
    gain, bias = pending.gain / step, pending.bias / step
    reach = [max(abs(int(a)), abs(int(b))) for a, b in zip(x.lo, x.hi, strict=True)]
    free = _candidate(gain, bias, reach, x, 0, False, lo, hi)
    span = max((float(abs(g) * n + abs(b)) for g, n, b in zip(gain, reach, bias, strict=True)), default=0.0)
    if free is not None and free[1] <= max(span * SHIFT_FREE_LOSS, 1e-9):
        return free
    for shift in range(62, 0, -1):
        found = _candidate(gain, bias, reach, x, shift, half_up, lo, hi)
        if found is not None:
            return found
    raise AccumulatorError(
        "no fixed-point multiplier fits", where=pending.tensor, got=f"gain/step up to {float(max(abs(gain))):.3g}"
    )


def _candidate(
    gain: Rationals, bias: Rationals, reach: list[int], x: TensorType, shift: int, half: bool, lo: int, hi: int
) -> tuple[Rescale, float] | None:
    """The op for one shift and its error bound, or None where a number would leave its width."""
    unit = 1 << shift
    rounding = unit // 2 if half else 0
    multiplier = [round(g * unit) for g in gain]
    addend = [round(b * unit) for b in bias]
    limit = INT32_MAX if shift == 0 else PRODUCT_LIMIT
    if max(map(abs, multiplier)) > INT32_MAX or any(
        abs(m) * n + abs(r) + rounding > limit for m, n, r in zip(multiplier, reach, addend, strict=True)
    ):
        return None
    error = max(
        float(n * abs(Fraction(m, unit) - g) + abs(Fraction(r, unit) - b))
        for m, n, r, g, b in zip(multiplier, reach, addend, gain, bias, strict=True)
    )
    m = np.array(multiplier, np.int64)
    r = np.array([a + rounding for a in addend], np.int64)
    if np.all(m == m[0]) and np.all(r == r[0]):
        m, r = m[:1], r[:1]
    return Rescale(m, r, shift, lo, hi), error + (0.0 if shift == 0 else 0.5 if half else 1.0)
