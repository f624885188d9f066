"""What is remembered of a tensor while images pass: little, and the same in whatever order they come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.freeze.float_keys import INFINITY_KEY, floats_of_keys, keys_of_floats

Range = tuple[float, float]

MANTISSA_BITS = 8
"""Bits of the mantissa that tell histogram bins apart: a bin spans 2**-8 of its value."""

_SHIFT = 23 - MANTISSA_BITS
_LAST_BIN = INFINITY_KEY >> _SHIFT


class Extremes:
    """Smallest and largest value seen."""

    def __init__(self) -> None:
        self.lo = math.inf
        self.hi = -math.inf

    def update(self, values: NDArray[np.floating]) -> None:
        """Take in the tensor of one image, of any shape, finite, with at least one element."""
        self.lo = min(self.lo, float(values.min()))
        self.hi = max(self.hi, float(values.max()))

    def span(self) -> Range:
        """(lo, hi) of everything seen."""
        return self.lo, self.hi


class AverageExtremes(Extremes):
    """Mean of the images' smallest and largest values.

    What others call a moving average weighs late images more; this one weighs all alike, and its sums are exact, so
    that it does not depend on their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self._images = 0
        self._sum_lo, self._sum_hi = Fraction(0), Fraction(0)

    def update(self, values: NDArray[np.floating]) -> None:
        super().update(values)
        self._images += 1
        self._sum_lo += Fraction(float(values.min()))
        self._sum_hi += Fraction(float(values.max()))

    def average(self) -> Range:
        """(mean of the minima, mean of the maxima)."""
        return float(self._sum_lo / self._images), float(self._sum_hi / self._images)


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins of a histogram that hold values, ascending, all arrays [k].

    Attributes:
        lo, hi: float64, smallest and largest number of the bin, never outside the extremes.
        counts: int64, at least 1.
    """

    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    counts: NDArray[np.int64]


class Histogram(Extremes):
    """Counts of all values, in bins of constant relative width that need no range to be known beforehand.

    A bin is a run of consecutive float32 numbers, so counts are integers that add up the same in any order and
    memory is fixed (1 MB). Extremes stay exact.

    Attributes:
        counts: int64, values per bin, from the most negative float32 to the largest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = np.zeros(2 * _LAST_BIN + 1, np.int64)

    def update(self, values: NDArray[np.floating]) -> None:
        super().update(values)
        with np.errstate(over="ignore"):  # beyond float32 counts as infinite, and the exact extremes clip it
            keys = keys_of_floats(values.reshape(-1).astype(np.float32))
        self.counts += np.bincount((keys >> _SHIFT) + _LAST_BIN, minlength=self.counts.size)

    def bins(self) -> Bins:
        """The bins that are not empty."""
        (used,) = np.nonzero(self.counts)
        first = (used - _LAST_BIN) << _SHIFT
        keys = np.clip(np.stack([first, first + (1 << _SHIFT) - 1]), -INFINITY_KEY, INFINITY_KEY)
        lo, hi = np.clip(floats_of_keys(keys).astype(np.float64), self.lo, self.hi)
        return Bins(lo, hi, self.counts[used])
