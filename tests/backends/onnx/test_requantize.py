"""Integer thresholds as bias and multiplier: exact where claimed, close elsewhere."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.backends.onnx.requantize import fit_channel, spread_requantization
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
    bias, multiplier, moved = fit_channel(bars, lo, hi, np.arange(bars.size) + 0.5)
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
        bias, multiplier, moved = fit_channel(bars, lo, hi, np.arange(n_steps) + 0.5)
        acc = np.arange(lo, hi + 1)
        assert moved == 0
        np.testing.assert_array_equal(codes(acc, bias, multiplier, n_steps), wanted(acc, bars))


def test_many_uniform_steps_move_little():
    bars = np.ceil(-40.3 + 7.77 * np.arange(255)).astype(np.int64)
    bias, multiplier, moved = fit_channel(bars, -3000, 3000, np.arange(255) + 0.5)
    acc = np.arange(-3000, 3001)
    assert moved <= 255
    assert np.abs(codes(acc, bias, multiplier, 255) - wanted(acc, bars)).max() <= 1


@settings(max_examples=300)
@given(data=st.data())
def test_bytes_as_far_apart_as_the_thresholds(data):
    """Thresholds anywhere, gains of either sign, channels that never reach a step or take it always."""
    channels, n_steps = 4, data.draw(st.integers(2, 5))
    spread, finer = data.draw(st.sampled_from([20, 200, 3000])), data.draw(st.sampled_from([1, 7, 63]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    thresholds = np.sort(rng.choice(spread * 8, n_steps, replace=False)).astype(np.float32) / 8
    function = StepFunction.from_values(thresholds, np.arange(n_steps + 1, dtype=np.float32))
    lo = rng.integers(-700, 200, channels)
    acc = integer((channels, 2, 2), lo, lo + rng.integers(0, 900, channels))
    gain = np.array([Fraction(int(sign), 1) for sign in rng.choice([-1, 1], channels)], dtype=object)
    bias = np.array([Fraction(int(b), 8) for b in rng.integers(-800, 800, channels)], dtype=object)
    found = spread_requantization(Pending("", gain, bias), function, acc, finer)
    if found is None:
        assert np.diff(thresholds).min() < np.ptp(thresholds) / 60, "bytes far enough apart are always found"
        return
    wrong = 0
    for c in range(channels):
        sums = np.arange(acc.lo[c], acc.hi[c] + 1)
        real = sums * float(gain[c]) + float(bias[c])
        expected = (real[:, None] >= thresholds).sum(1)
        scaled = np.float32(found.multiplier[c]) * (finer * sums + found.bias[c]).astype(np.float32)
        byte = np.clip(np.rint(scaled), found.low, found.top)
        wrong += np.abs((byte[:, None] >= np.array(found.bars)).sum(1) - expected).sum()
    assert wrong <= found.moved


@pytest.mark.parametrize("seed", range(20))
def test_three_thresholds_are_exact_on_finer_accumulators(seed):
    """What weights of two bits are multiplied for: 64 channels with biases of their own, nothing moves."""
    rng = np.random.default_rng(seed)
    thresholds = np.cumsum(rng.uniform(0.3, 1.0, 3)).astype(np.float32)
    function = StepFunction.from_values(thresholds, np.arange(4, dtype=np.float32))
    acc = integer((64, 2, 2), np.full(64, -500), np.full(64, 900))
    gain = np.array([Fraction(float(g)) for g in rng.uniform(0.01, 0.03, 64)], dtype=object)
    bias = np.array([Fraction(float(b)) for b in rng.uniform(-1, 1, 64)], dtype=object)
    found = spread_requantization(Pending("", gain, bias), function, acc, 63)
    assert found is not None and found.moved == 0
