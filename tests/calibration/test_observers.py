"""Observers: counts that add up in any order, and the percentile a sorted list would give."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qexport.calibration.observers import MANTISSA_BITS, Extremes, Histogram

VALUES = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, allow_subnormal=False))


@settings(deadline=None)
@given(VALUES, st.sampled_from([60.0, 90.0, 99.9, 100.0]))
def test_percentile_is_that_of_the_sorted_values_to_the_width_of_a_bin(
    values: NDArray[np.float64], percentile: float
) -> None:
    histogram = Histogram(percentile)
    histogram.update(values)
    rank = math.ceil(len(values) * percentile / 100)
    ordered = np.sort(values)
    lo, hi = histogram.span()
    exact_lo, exact_hi = ordered[-rank], ordered[rank - 1]
    rounding = 2.0**-23
    assert exact_hi - abs(exact_hi) * rounding - 1e-38 <= hi <= exact_hi + abs(exact_hi) * 2.0**-MANTISSA_BITS + 1e-38
    assert exact_lo + abs(exact_lo) * rounding + 1e-38 >= lo >= exact_lo - abs(exact_lo) * 2.0**-MANTISSA_BITS - 1e-38
    assert values.min() <= lo and hi <= values.max()
    if percentile == 100.0:
        assert (lo, hi) == (values.min(), values.max())


@settings(deadline=None, max_examples=30)
@given(VALUES, st.integers(1, 7), st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_order_or_portions(values: NDArray[np.float64], size: int, random: object) -> None:
    whole, parts = Histogram(99.0), Histogram(99.0)
    whole.update(values)
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for i in range(0, len(shuffled), size):
        parts.update(shuffled[i : i + size])
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.span() == parts.span()


def test_extremes_of_several_arrays() -> None:
    extremes = Extremes()
    extremes.update(np.array([[1.0, 2.0]]))
    extremes.update(np.array(-3.0))
    assert extremes.span() == (-3.0, 2.0)


@pytest.mark.parametrize("value", [0.0, -1.5, 1e-45, 3.4e38, 1e300, -1e300])
def test_constant_tensors_have_an_exact_range(value: float) -> None:
    histogram = Histogram(99.0)
    histogram.update(np.full(10, value))
    assert histogram.span() == (value, value)


def test_outliers_are_clipped_and_the_bulk_is_kept() -> None:
    histogram = Histogram(99.0)
    histogram.update(np.concatenate([np.linspace(0, 1, 1000), np.full(5, 100.0)]))
    lo, hi = histogram.span()
    assert 0.99 < hi <= 1.0 and 0.0 <= lo < 0.02
