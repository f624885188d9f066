"""Range choices: the percentile a sorted list would give, the least error a search would find, all from counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qexport.calibration.choices import (
    LINEAR_BINS,
    STEPS_PER_OCTAVE,
    candidate_peaks,
    entropy_range,
    largest_level,
    mse_range,
    percentile_range,
    squared_errors,
)
from qexport.calibration.observers import MANTISSA_BITS, Histogram
from qexport.calibration.output_error import rounded

VALUES = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, allow_subnormal=False))


def seen(*arrays_of_values: NDArray[np.float64]) -> Histogram:
    histogram = Histogram()
    for values in arrays_of_values:
        histogram.update(values)
    return histogram


def error(values: NDArray[np.float64], peak: float, bits: int) -> float:
    """Mean squared error of the quantizer with that peak, on the values themselves."""
    span = (float(values.min()), float(values.max()))
    quantized = rounded(values, peak, largest_level(span, bits), signed=span[0] < 0)
    return float(np.square(quantized - values).mean())


@settings(deadline=None)
@given(VALUES, st.sampled_from([60.0, 90.0, 99.9, 100.0]))
def test_percentile_is_that_of_the_sorted_values_to_the_width_of_a_bin(
    values: NDArray[np.float64], percentile: float
) -> None:
    histogram = seen(values)
    rank = math.ceil(len(values) * percentile / 100)
    ordered = np.sort(values)
    lo, hi = percentile_range(histogram, percentile)
    exact_lo, exact_hi = ordered[-rank], ordered[rank - 1]
    rounding = 2.0**-23
    assert exact_hi - abs(exact_hi) * rounding - 1e-38 <= hi <= exact_hi + abs(exact_hi) * 2.0**-MANTISSA_BITS + 1e-38
    assert exact_lo + abs(exact_lo) * rounding + 1e-38 >= lo >= exact_lo - abs(exact_lo) * 2.0**-MANTISSA_BITS - 1e-38
    assert values.min() <= lo and hi <= values.max()
    if percentile == 100.0:
        assert (lo, hi) == (values.min(), values.max())


@pytest.mark.parametrize("value", [0.0, -1.5, 1e-45, 3.4e38, 1e300, -1e300])
def test_constant_tensors_have_an_exact_percentile(value: float) -> None:
    assert percentile_range(seen(np.full(10, value)), 99.0) == (value, value)


def test_outliers_are_clipped_and_the_bulk_is_kept() -> None:
    lo, hi = percentile_range(seen(np.concatenate([np.linspace(0, 1, 1000), np.full(5, 100.0)])), 99.0)
    assert 0.99 < hi <= 1.0 and 0.0 <= lo < 0.02


DISTRIBUTIONS = {
    "relu": lambda rng: np.maximum(rng.normal(size=40_000), 0),
    "signed": lambda rng: rng.normal(0.3, 2.0, 40_000),
    "long tail": lambda rng: rng.laplace(size=40_000) ** 2,
    "flat": lambda rng: rng.uniform(0, 7, 40_000),
    "outlier": lambda rng: np.append(rng.uniform(0, 1, 40_000), 30.0),
}


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_squared_errors_of_the_bins_are_those_of_the_values(name: str, bits: int) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(0))
    histogram = seen(values)
    peaks = candidate_peaks(histogram.span())[: 3 * STEPS_PER_OCTAVE : 5]
    found = squared_errors(histogram, peaks, bits)
    assert found == pytest.approx([error(values, float(peak), bits) for peak in peaks], rel=0.03)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_is_as_good_as_the_best_of_a_fine_search(name: str, bits: int) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(1))
    lo, hi = mse_range(seen(values), bits)
    largest = float(np.abs(values).max())
    best = min(error(values, largest * share, bits) for share in np.linspace(0.02, 1, 300))
    assert error(values, max(-lo, hi), bits) <= 1.03 * best
    assert values.min() <= lo <= 0 or lo == values.min()
    assert hi <= values.max()


def test_more_bits_clip_less() -> None:
    histogram = seen(DISTRIBUTIONS["long tail"](np.random.default_rng(2)))
    peaks = [mse_range(histogram, bits)[1] for bits in range(2, 9)]
    assert peaks == sorted(peaks) and peaks[0] < peaks[-1] / 3


@pytest.mark.parametrize("choose", [mse_range, entropy_range])
def test_nothing_is_clipped_where_nothing_is_gained(choose: object) -> None:
    lo, hi = choose(seen(np.linspace(0, 7, 100_000)), 8)  # type: ignore[operator]
    assert lo == 0 and hi == pytest.approx(7.0, rel=0.02)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("choose", [mse_range, entropy_range])
def test_a_far_outlier_is_clipped(choose: object, bits: int) -> None:
    rng = np.random.default_rng(3)
    values = np.append(np.maximum(rng.normal(size=200_000), 0), 1000.0)
    _, hi = choose(seen(values), bits)  # type: ignore[operator]
    if choose is mse_range:  # squared, one value of 1000 weighs more than the step of all others at few bits
        assert error(values, hi, bits) <= 1.01 * error(values, 1000.0, bits)
    else:  # all others lie in the first of the linear bins, of which at least two a level are kept
        assert hi <= 1.1 * 1000.0 * 2 * largest_level((0.0, 1000.0), bits) / LINEAR_BINS


def test_entropy_leaves_zeros_out() -> None:
    """Half of the values behind a ReLU are zero, which every quantizer keeps."""
    values = np.abs(np.random.default_rng(4).normal(size=50_000))
    assert entropy_range(seen(values), 6)[1] == entropy_range(seen(values, np.zeros(50_000)), 6)[1] < values.max()


def test_entropy_of_signed_values_is_symmetric() -> None:
    values = np.random.default_rng(5).normal(size=50_000)
    lo, hi = entropy_range(seen(values), 6)
    assert max(-lo, hi) < np.abs(values).max()
    assert entropy_range(seen(-values), 6) == (-hi, -lo)


@pytest.mark.parametrize("choose", [mse_range, entropy_range])
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_constant_tensors_keep_their_value(choose: object, value: float) -> None:
    lo, hi = choose(seen(np.full(10, value)), 8)  # type: ignore[operator]
    assert lo <= value <= hi
