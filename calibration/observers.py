"""What is remembered of a tensor while images pass: little, and the same in whatever order they come."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qexport.freeze.float_keys import INFINITY_KEY, floats_of_keys, keys_of_floats

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
        """Take in an array of any shape, finite, with at least one element."""
        self.lo = min(self.lo, float(values.min()))
        self.hi = max(self.hi, float(values.max()))

    def span(self) -> tuple[float, float]:
        """(lo, hi) of everything seen."""
        return self.lo, self.hi


class Histogram(Extremes):
    """Counts of all values, in bins of constant relative width that need no range to be known beforehand.

    A bin is a run of consecutive float32 numbers, so counts are integers that add up the same in any order and
    memory is fixed (1 MB). Extremes stay exact.

    Attributes:
        counts: int64, values per bin, from the most negative float32 to the largest.
        percentile: share of the values, in percent, that must lie at or below `hi`, and at or above `lo`.
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile
        self.counts = np.zeros(2 * _LAST_BIN + 1, np.int64)

    def update(self, values: NDArray[np.floating]) -> None:
        super().update(values)
        with np.errstate(over="ignore"):  # beyond float32 counts as infinite, and the exact extremes clip it
            keys = keys_of_floats(values.reshape(-1).astype(np.float32))
        self.counts += np.bincount((keys >> _SHIFT) + _LAST_BIN, minlength=self.counts.size)

    def span(self) -> tuple[float, float]:
        """(lo, hi) at the outer edge of the bins that hold the percentile, never outside the extremes."""
        total = int(self.counts.sum())
        rank = max(1, math.ceil(total * self.percentile / 100))
        if rank >= total:
            return super().span()
        upper = int(np.searchsorted(np.cumsum(self.counts), rank))
        lower = self.counts.size - 1 - int(np.searchsorted(np.cumsum(self.counts[::-1]), rank))
        edges = np.array([lower - _LAST_BIN, upper - _LAST_BIN + 1], np.int64) << _SHIFT
        lo, hi = floats_of_keys(np.clip(edges - [0, 1], -INFINITY_KEY, INFINITY_KEY))
        return min(max(float(lo), self.lo), self.hi), max(min(float(hi), self.hi), self.lo)
