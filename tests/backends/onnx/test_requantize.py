"""Integer thresholds as bias and multiplier: exact where claimed, close elsewhere."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.backends.onnx.requantize import fit_channel, window
from qexport.ir import integer
from qexport.passes.pending import Pending
from qexport.stepfunction import StepFunction


def codes(acc: np.ndarray, bias: int, multiplier: float, n_steps: int) -> np.ndarray:
    """What QuantizeLinear and Clip compute, in the float32 arithmetic of a fused kernel."""
    scaled = np.float32(multiplier) * (acc + bias).astype(np.float32)
    return np.clip(np.rint(scaled), 0, n_steps).astype(np.int64)


def wanted(acc: np.ndarray, bars: np.ndarray) -> np.ndarray:
    return (acc[:, None] >= bars).sum(1)


@settings(max_examples=300)
@given(data=st.data())
def test_claims_hold_for_every_accumulator(data):
    lo = data.draw(st.integers(-2000, 0))
    hi = data.draw(st.integers(lo, lo + 3000))
    bars = np.sort(np.array(data.draw(st.lists(st.integers(lo, hi + 1), min_size=2, max_size=8)), np.int64))
    bias, multiplier, moved = fit_channel(bars, lo, hi)
    acc = np.arange(lo, hi + 1)
    assert multiplier > 0
    difference = np.abs(codes(acc, bias, multiplier, bars.size) - wanted(acc, bars)).sum()
    assert difference <= moved  # duplicated steps may move apart by less than their count says
    assert moved or not difference


@pytest.mark.parametrize("n_steps", [2, 3])
def test_few_uniform_steps_are_always_exact(n_steps):
    rng = np.random.default_rng(n_steps)
    for _ in range(300):
        spacing, start = rng.uniform(2, 500), rng.uniform(-300, 300)
        bars = np.ceil(start + spacing * np.arange(n_steps)).astype(np.int64)
        lo, hi = int(bars[0]) - 700, int(bars[-1]) + 700
        bias, multiplier, moved = fit_channel(bars, lo, hi)
        acc = np.arange(lo, hi + 1)
        assert moved == 0
        np.testing.assert_array_equal(codes(acc, bias, multiplier, n_steps), wanted(acc, bars))


def test_many_uniform_steps_move_little():
    bars = np.ceil(-40.3 + 7.77 * np.arange(255)).astype(np.int64)
    bias, multiplier, moved = fit_channel(bars, -3000, 3000)
    acc = np.arange(-3000, 3001)
    assert moved <= 255
    assert np.abs(codes(acc, bias, multiplier, 255) - wanted(acc, bars)).max() <= 1


@settings(max_examples=300)
@given(data=st.data())
def test_a_window_gives_the_code_of_every_accumulator(data):
    """Thresholds anywhere, gains of either sign, channels that never reach a step or take it always."""
    channels, n_steps = 4, data.draw(st.integers(1, 5))
    spread = data.draw(st.sampled_from([20, 200, 300]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    thresholds = np.sort(rng.choice(spread * 8, n_steps, replace=False)).astype(np.float32) / 8
    function = StepFunction.from_values(thresholds, np.arange(n_steps + 1, dtype=np.float32))
    lo = rng.integers(-700, 200, channels)
    acc = integer((channels, 2, 2), lo, lo + rng.integers(0, 900, channels))
    gain = np.array([Fraction(int(sign), 1) for sign in rng.choice([-1, 1], channels)], dtype=object)
    bias = np.array([Fraction(int(b), 8) for b in rng.integers(-800, 800, channels)], dtype=object)
    found = window(Pending("", gain, bias), function, acc)
    for c in range(channels):
        sums = np.arange(acc.lo[c], acc.hi[c] + 1)
        real = sums * float(gain[c]) + float(bias[c])
        expected = (real[:, None] >= thresholds).sum(1)
        if found is None:
            continue
        scaled = np.float32(found.multiplier[c]) * (sums + found.bias[c]).astype(np.float32)
        byte = np.minimum(np.clip(np.rint(scaled), 0, 255), found.top)
        np.testing.assert_array_equal((byte[:, None] >= found.bars[c]).sum(1), expected)
    if spread == 20:
        assert found is not None, "thresholds this near each other always fit"


def test_thresholds_too_far_apart_have_no_window():
    function = StepFunction.from_values(np.array([0, 254], np.float32), np.array([0, 1, 2], np.float32))
    chain = Pending("", np.array([Fraction(1)], dtype=object), np.array([Fraction(0)], dtype=object))
    assert window(chain, function, integer((1, 2, 2), -9, 300)) is None
    nearer = StepFunction.from_values(np.array([0, 253], np.float32), np.array([0, 1, 2], np.float32))
    assert window(chain, nearer, integer((1, 2, 2), -9, 300)).bars.tolist() == [[1, 254]]
    # The second step is beyond the range: it is never taken, however far the sum leaves the window.
    found = window(chain, function, integer((1, 2, 2), -9, 253))
    assert (found.bars.tolist(), found.top) == ([[1, 255]], 255)
