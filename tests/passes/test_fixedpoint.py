"""Fixed-point rescaling keeps its claimed error for every integer and never leaves its widths."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from qexport.errors import AccumulatorError
from qexport.ir import integer
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import Rescale
from qexport.passes.fixedpoint import fit_rescale, step_for
from qexport.passes.pending import Pending, rationals

GAIN = st.floats(-1e3, 1e3).map(Fraction) | st.builds(Fraction, st.integers(-999, 999), st.integers(1, 4096))
ROUNDING = Fraction(1, 2**50)
"""The claimed bound is a float: the rounding of its own last bits."""


@settings(max_examples=200, deadline=None)
@given(
    gain=GAIN,
    bias=GAIN,
    lo=st.integers(-(2**31) + 1, 2**31 - 2),
    width=st.integers(0, 2**31),
    exponent=st.integers(-10, 30),
    half_up=st.booleans(),
)
@example(gain=Fraction(1, 3), bias=Fraction(0), lo=-300, width=600, exponent=0, half_up=True)
@example(gain=Fraction(0), bias=Fraction(5, 7), lo=0, width=255, exponent=8, half_up=True)
@example(gain=Fraction(-1), bias=Fraction(1, 2), lo=-5, width=10, exponent=0, half_up=True)
def test_claimed_error_holds(gain: Fraction, bias: Fraction, lo: int, width: int, exponent: int, half_up: bool) -> None:
    """For sampled integers and both ends, in exact arithmetic, saturation aside; nothing passes 2^62 or int32."""
    hi = min(lo + width, INT32_MAX)
    step = Fraction(1, 2**exponent) if exponent >= 0 else Fraction(2**-exponent)
    x = integer((1,), lo, hi)
    try:
        op, error = fit_rescale(
            Pending("x", rationals([gain]), rationals([bias])), x, rationals([step]), half_up=half_up
        )
    except AccumulatorError:
        assume(False)
        raise
    op.infer(x)
    rng = np.random.default_rng(abs(lo) + width)
    points = {lo, hi, *rng.integers(lo, hi + 1, 40).tolist(), *range(lo, min(lo + 20, hi + 1))}
    for n in sorted(points):
        exact = (gain * n + bias) / step
        total = n * int(op.multiplier[0]) + int(op.addend[0])
        assert abs(total) <= (INT32_MAX if op.shift == 0 else 2**62)
        got = int(op.evaluate(np.array([[n]]))[0, 0])
        assert got == min(max(total >> op.shift, INT32_MIN), INT32_MAX)
        if INT32_MIN < got < INT32_MAX:
            assert abs(got - exact) <= Fraction(error) * (1 + ROUNDING)


@pytest.mark.parametrize(("gain", "bias"), [(Fraction(1, 3), Fraction(1, 7)), (Fraction(-7, 1000), Fraction(3)),
                                            (Fraction(5), Fraction(-2)), (Fraction(1, 2), Fraction(1, 2))])  # fmt: skip
def test_claimed_error_holds_everywhere(gain: Fraction, bias: Fraction) -> None:
    """Every integer of a range, and the bound is no worse than half a step plus what 31-bit multipliers lose."""
    x = integer((1,), -3000, 3000)
    op, error = fit_rescale(Pending("x", rationals([gain]), rationals([bias])), x, rationals([Fraction(1)]))
    got = op.evaluate(np.arange(-3000, 3001)[:, None])[:, 0].tolist()
    worst = max(abs(g - (gain * n + bias)) for g, n in zip(got, range(-3000, 3001), strict=True))
    assert worst <= Fraction(error) * (1 + ROUNDING)
    assert error <= 0.5 + 1e-4


@pytest.mark.parametrize(("x", "halves"), [(5, 3), (-5, -2), (3, 2), (-3, -1), (1, 1), (-1, 0)])
def test_halves_round_up(x: int, halves: int) -> None:
    """x / 2 with rounding constant: 2.5 -> 3, -2.5 -> -2 (floor shift of x + 1)."""
    op = Rescale(np.array([1]), np.array([1]), 1)
    assert op.evaluate(np.array([[x]])).tolist() == [[halves]]


def test_exact_integer_gain_needs_no_shift() -> None:
    """Where gain / step is an integer the rescale is a 32-bit product and exact."""
    x = integer((2,), -100, 100)
    pending = Pending("x", rationals([Fraction(3), Fraction(-5)]), rationals([Fraction(1), Fraction(0)]))
    op, error = fit_rescale(pending, x, rationals([Fraction(1, 4)], 2))
    assert (op.shift, error) == (0, 0.0)
    assert op.evaluate(np.array([[7, 7]])).tolist() == [[88, -140]]


def test_channels_that_agree_share_one_multiplier() -> None:
    pending = Pending("x", rationals([Fraction(1, 3)], 8), rationals([Fraction(0)], 8))
    op, _ = fit_rescale(pending, integer((8,), -9, 9), rationals([Fraction(1, 64)], 8))
    assert op.multiplier.shape == (1,)


def test_saturation() -> None:
    x = integer((1,), -1000, 1000)
    op, _ = fit_rescale(Pending("x", rationals([Fraction(1)]), rationals([Fraction(0)])), x, rationals([Fraction(1)]),
                        lo=-128, hi=127)  # fmt: skip
    assert op.evaluate(np.array([[-1000], [-128], [127], [128]])).tolist() == [[-128], [-128], [127], [127]]
    assert (op.infer(x).lo.tolist(), op.infer(x).hi.tolist()) == ([-128], [127])


def test_no_multiplier_fits() -> None:
    x = integer((1,), -(2**31), 2**31 - 1)
    with pytest.raises(AccumulatorError, match="no fixed-point multiplier fits") as caught:
        fit_rescale(Pending("x", rationals([Fraction(2**40)]), rationals([Fraction(0)])), x, rationals([Fraction(1)]))
    assert caught.value.where == "x" and "1.1e+12" in str(caught.value.got) and "calibrate again" in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(reach=st.floats(1e-30, 1e30), bits=st.integers(4, 32))
@example(reach=1.0, bits=8)
@example(reach=127.0, bits=8)
@example(reach=127.5, bits=8)
@example(reach=math.nextafter(127.0, 200.0), bits=8)
@example(reach=2.0**-100, bits=31)
def test_step_for(reach: float, bits: int) -> None:
    """The smallest power of two by which the range still fits the bits: half the step would not."""
    step = step_for(reach, bits)
    limit = 2 ** (bits - 1) - 1
    assert step.numerator == 1 or step.denominator == 1
    assert step.numerator & (step.numerator - 1) == 0
    assert step.denominator & (step.denominator - 1) == 0
    assert Fraction(reach) <= limit * step
    assert Fraction(reach) > limit * step / 2


def test_step_for_nothing() -> None:
    assert step_for(0.0, 16) == 1
