"""Observers: what is remembered adds up in any order, exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qexport.calibration.observers import AverageExtremes, Extremes, Histogram

VALUES = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, allow_subnormal=False))


@settings(deadline=None, max_examples=30)
@given(VALUES, st.integers(1, 7), st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_order_or_portions(values: NDArray[np.float64], size: int, random: object) -> None:
    whole, parts = Histogram(), Histogram()
    whole.update(values)
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for i in range(0, len(shuffled), size):
        parts.update(shuffled[i : i + size])
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.span() == parts.span()


@settings(deadline=None, max_examples=30)
@given(VALUES, st.randoms(use_true_random=False))
def test_averages_do_not_depend_on_order(values: NDArray[np.float64], random: object) -> None:
    images = [values[i : i + 3] for i in range(0, len(values), 3)]
    forward, shuffled = AverageExtremes(), AverageExtremes()
    for image in images:
        forward.update(image)
    random.shuffle(images)  # type: ignore[attr-defined]
    for image in images:
        shuffled.update(image)
    assert forward.average() == shuffled.average()
    assert forward.span() == (values.min(), values.max())


def test_the_average_is_that_of_the_extremes() -> None:
    average = AverageExtremes()
    for image in ([1.0, 3.0], [-2.0, 0.0], [0.0, 9.0]):
        average.update(np.array(image))
    assert average.average() == (-1 / 3, 4.0)


@settings(deadline=None)
@given(VALUES)
def test_bins_hold_every_value_once(values: NDArray[np.float64]) -> None:
    histogram = Histogram()
    histogram.update(values)
    bins = histogram.bins()
    assert bins.counts.sum() == len(values) and bins.counts.min() >= 1
    assert np.all(bins.lo <= bins.hi) and np.all(bins.hi[:-1] < bins.lo[1:])
    assert values.min() <= bins.lo[0] and bins.hi[-1] <= values.max()
    # float32 numbers, as the bins count them; the outermost bins are cut at the exact extremes.
    single = np.clip(values.astype(np.float32).astype(np.float64), values.min(), values.max())
    inside = [(np.sum((single >= lo) & (single <= hi))) for lo, hi in zip(bins.lo, bins.hi, strict=True)]
    assert np.array_equal(inside, bins.counts)


def test_memory_does_not_grow_with_what_was_seen() -> None:
    histogram = Histogram()
    size = histogram.counts.nbytes
    for scale in (1e-30, 1.0, 1e30):
        histogram.update(np.linspace(-scale, scale, 5000))
    assert histogram.counts.nbytes == size < 1.1 * 2**20
    assert histogram.counts.sum() == 15000


def test_extremes_of_several_arrays() -> None:
    extremes = Extremes()
    extremes.update(np.array([[1.0, 2.0]]))
    extremes.update(np.array(-3.0))
    assert extremes.span() == (-3.0, 2.0)
