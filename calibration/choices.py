"""From a histogram to the range of a quantizer: percentile, least squared error, least information lost.

A range becomes the uniform quantizer of `calibrated_quantizer`: levels 0 .. 2**bits - 1 where nothing is negative, else
symmetric ones, and the step is peak / (largest level), peak = max(-lo, hi). So a choice is a choice of the peak.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qexport.calibration.observers import Bins, Histogram, Range

STEPS_PER_OCTAVE = 16
OCTAVES = 6
"""Peaks are searched from the largest magnitude down to 2**-6 of it, 16 to the octave."""

LINEAR_BINS = 2048
"""Bins of equal width in which information is counted, as in the method's publication (Migacz, GTC 2017)."""

FEWEST_BINS_PER_LEVEL = 2


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """(lo, hi) that `percentile` percent of the values stay at or below, and at or above, to the width of a bin."""
    total = int(histogram.counts.sum())
    rank = max(1, math.ceil(total * percentile / 100))
    if rank >= total:
        return histogram.span()
    bins = histogram.bins()
    upper = int(np.searchsorted(np.cumsum(bins.counts), rank))
    lower = len(bins.counts) - 1 - int(np.searchsorted(np.cumsum(bins.counts[::-1]), rank))
    return float(bins.lo[lower]), float(bins.hi[upper])


def mse_range(histogram: Histogram, bits: int) -> Range:
    """The range whose quantizer has the smallest mean squared error."""
    peaks = candidate_peaks(histogram.span())
    errors = squared_errors(histogram, peaks, bits)
    return cut(histogram.span(), float(peaks[int(np.argmin(errors))]))


def candidate_peaks(span: Range) -> NDArray[np.float64]:
    """Peaks to search, descending from the largest magnitude; float64 [OCTAVES * STEPS_PER_OCTAVE + 1]."""
    return max(-span[0], span[1]) * 2.0 ** (-np.arange(OCTAVES * STEPS_PER_OCTAVE + 1) / STEPS_PER_OCTAVE)


def cut(span: Range, peak: float) -> Range:
    """The range within [-peak, peak]."""
    return max(span[0], -peak), min(span[1], peak)


def largest_level(span: Range, bits: int) -> int:
    """Largest level of the quantizer of a range."""
    return 2**bits - 1 if span[0] >= 0 else 2 ** (bits - 1) - 1


def squared_errors(histogram: Histogram, peaks: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Mean squared error of the quantizer of every peak, values spread evenly over their bin; float64 [P]."""
    top = largest_level(histogram.span(), bits)
    bins = histogram.bins()
    total = int(bins.counts.sum())
    return np.array([float((bins.counts * _bin_errors(bins, peak / top, top)).sum()) / total for peak in peaks])


def _bin_errors(bins: Bins, step: float, top: int) -> NDArray[np.float64]:
    """Mean of (x - round(x))^2 over each bin: the integral of the error over its width."""
    if step == 0:
        return np.zeros(len(bins.counts))  # only zeros were seen
    width = bins.hi - bins.lo
    integral = _error_integral(bins.hi, step, top) - _error_integral(bins.lo, step, top)
    at_point = (np.abs(bins.lo) - step * np.minimum(np.floor(np.abs(bins.lo) / step + 0.5), top)) ** 2
    return np.where(width > 0, integral / np.where(width > 0, width, 1.0), at_point)


def _error_integral(x: NDArray[np.float64], step: float, top: int) -> NDArray[np.float64]:
    """Integral of (u - round(u))^2 over u from 0 to x: k whole cells of step^3 / 12 each, and r^3 / 3 for the rest.

    Beyond the last level k stays and r grows, which is the error of clipping. The function is odd.
    """
    magnitude = np.abs(x)
    cells = np.minimum(np.floor(magnitude / step + 0.5), top)
    rest = magnitude - cells * step
    return np.sign(x) * (cells * step**3 / 12 + rest**3 / 3)


def entropy_range(histogram: Histogram, bits: int) -> Range:
    """The range that loses the least information: smallest Kullback-Leibler divergence of the clipped distribution of
    magnitudes from the quantized one. Zeros are left out: every quantizer keeps them.
    """
    span = histogram.span()
    peak, top = max(-span[0], span[1]), largest_level(span, bits)
    mass = _linear_magnitudes(histogram.bins(), peak)
    if not mass.any():
        return span
    fewest = min(FEWEST_BINS_PER_LEVEL * top, LINEAR_BINS)
    sizes = np.unique(np.append(np.arange(fewest, LINEAR_BINS, max(1, LINEAR_BINS // 256)), LINEAR_BINS))
    lost = [_divergence(mass, int(size), top) for size in sizes]
    # The last of equals: nothing is clipped without a reason.
    best = int(sizes[len(lost) - 1 - int(np.argmin(lost[::-1]))])
    return cut(span, peak * best / LINEAR_BINS)


def _linear_magnitudes(bins: Bins, peak: float) -> NDArray[np.float64]:
    """Counts of |x|, zeros left out, in LINEAR_BINS bins of equal width up to the peak."""
    mass = np.zeros(LINEAR_BINS)
    edges = np.linspace(0.0, peak, LINEAR_BINS + 1)
    not_zero = np.maximum(np.abs(bins.lo), np.abs(bins.hi)) >= np.finfo(np.float32).tiny
    for sign in (1, -1):
        side = not_zero & (np.sign(bins.lo + bins.hi) == sign)
        ends = np.sort(np.abs(np.stack([bins.lo[side], bins.hi[side]])), axis=0)
        order = np.argsort(ends[0])
        if order.size:
            # Cumulative counts at both ends of every bin, straight lines between them.
            after = np.cumsum(bins.counts[side][order]).astype(np.float64)
            before = after - bins.counts[side][order]
            at = np.stack([ends[0][order], ends[1][order]], axis=1).reshape(-1)
            mass += np.diff(np.interp(edges, at, np.stack([before, after], axis=1).reshape(-1), left=0.0))
    return mass


def _divergence(mass: NDArray[np.float64], size: int, top: int) -> float:
    """KL divergence of the first `size` bins, the rest added to the last that holds any, from their quantized form."""
    kept = mass[:size]
    (used,) = np.nonzero(kept)
    if not used.size:
        return math.inf
    p = kept[used]
    p[-1] += mass[size:].sum()
    codes = np.rint((used + 0.5) * top / size).astype(np.int64)
    per_code = np.bincount(codes, kept[used]) / np.maximum(np.bincount(codes), 1)
    q = per_code[codes]
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())
