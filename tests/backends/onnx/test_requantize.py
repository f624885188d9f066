"""Integer thresholds as bias and multiplier: exact where claimed, close elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.backends.onnx.requantize import fit_channel


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
