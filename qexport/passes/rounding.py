"""Rounding of weights against what the layer reads: least output error instead of least weight error.

With e the rounding error of one output channel, x the input taps and C their covariance, the layer's output errs by
e'x, whose variance is e'Ce; the mean error e'E[x] is a constant that a shift of the output takes away. So rounding is
a closest-vector problem in the metric C. It is approached from two sides: by rounding weight after weight and spreading
the error of each over those still open (Frantar et al., "GPTQ", ICLR 2023; the nearest-plane method of Babai, 1986),
and by rounding each to the nearest; both followed by descent over single weights and pairs. No gradient, no
randomness: equal input gives equal bytes. It serves the purpose of AdaRound (Nagel et al., ICML 2020), which optimises
the same quadratic objective by gradient descent on a relaxation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAMPING = 1e-4
"""Share of the mean variance added to every variance, so that directions the images never showed cost something."""

SHARES = tuple(np.linspace(0.75, 1.5, 31).tolist())
FEWER_SHARES = SHARES[::3]
"""Scales tried: the top level stands for peak / share; shares above 1 clip the largest weights for a finer step."""

SMALL_TAPS = 128
"""Up to so many taps all scales and pairs of weights are tried."""

PAIR_ROUNDS = 3
LEAST_GAIN = 1e-12


def round_to_moments(
    weight: Floats, covariance: Floats, top: Floats, start: tuple[Floats, Floats], fits: Callable[[Floats], NDArray]
) -> tuple[Floats, Floats]:
    """Levels and scale per output channel with the smallest e'Ce found, e = weight - scale * levels.

    Args:
        weight: [R, K] of one group.
        covariance: [K, K] of the taps, in the integers that the levels multiply.
        top: [R] largest |level| of each row.
        start: (levels [R, K], scale [R] above 0) to be bettered.
        fits: levels [R, K] -> bool [R], whether the accumulators of these rows are proven.

    Returns:
        (levels [R, K] whole numbers, scale [R]).
    """
    c = covariance + np.eye(len(covariance)) * (DAMPING * np.diag(covariance).mean())
    if not np.any(c):
        return start
    search = _Search(weight, c, top, fits, start)
    small = len(c) <= SMALL_TAPS
    peak = np.abs(weight).max(1)
    planes = _NearestPlane(c)
    for share in SHARES if small else FEWER_SHARES:
        target = weight * np.where(peak > 0, top * share / np.where(peak > 0, peak, 1.0), 0.0)[:, None]
        search.offer(descend(target, c, planes.round(target, top), top))
        if small:
            search.offer(descend(target, c, _clip(np.rint(target), top), top))
    if small:
        for _ in range(PAIR_ROUNDS):
            search.offer(descend_pairs(weight / search.scale[:, None], c, search.levels, top))
    return search.levels, search.scale


class _Search:
    """The best levels of each row so far, each judged at the scale that suits it best."""

    def __init__(
        self,
        weight: Floats,
        covariance: Floats,
        top: Floats,
        fits: Callable[[Floats], NDArray],
        start: tuple[Floats, Floats],
    ) -> None:
        self._weight, self._covariance, self._top, self._fits = weight, covariance, top, fits
        self.levels, self.scale = start[0].astype(np.float64), start[1].astype(np.float64)
        self._cost = self._costs(self.levels, self.scale)
        self.offer(self.levels)

    def _costs(self, levels: Floats, scale: Floats) -> Floats:
        error = self._weight - levels * scale[:, None]
        return ((error @ self._covariance) * error).sum(1)

    def offer(self, levels: Floats) -> None:
        seen = levels @ self._covariance
        energy = (seen * levels).sum(1)
        scale = np.where(energy > 0, (seen * self._weight).sum(1) / np.where(energy > 0, energy, 1.0), 0.0)
        cost = self._costs(levels, scale)
        better = (cost < self._cost) & (scale > 0) & (np.abs(levels).max(1) <= self._top) & self._fits(levels)
        self._cost = np.where(better, cost, self._cost)
        self.levels[better], self.scale[better] = levels[better], scale[better]


class _NearestPlane:
    """Rounding one weight after the other, the error of each spread over those still open; least variance first."""

    def __init__(self, covariance: Floats) -> None:
        self._order = np.argsort(np.diag(covariance), kind="stable")
        inverse = np.linalg.inv(covariance[np.ix_(self._order, self._order)])
        self._spread = np.linalg.cholesky((inverse + inverse.T) / 2).T  # upper triangular, [K, K]

    def round(self, target: Floats, top: Floats) -> Floats:
        open_, levels = target[:, self._order], np.empty_like(target)
        for k, place in enumerate(self._order):
            levels[:, place] = _clip(np.rint(open_[:, k : k + 1]), top)[:, 0]
            error = (open_[:, k] - levels[:, place]) / self._spread[k, k]
            open_[:, k + 1 :] -= error[:, None] * self._spread[k, k + 1 :]
        return levels


def _clip(levels: Floats, top: Floats) -> Floats:
    return np.clip(levels, -top[:, None], top[:, None])


def descend(target: Floats, covariance: Floats, start: Floats, top: Floats) -> Floats:
    """Coordinate descent on e'Ce, e = target - levels, within +-top: one weight of each row by one level at a time.

    Args:
        target: [R, K] weights in steps.
        covariance: [K, K].
        start: [R, K] whole numbers within +-top.
        top: [R].
    """
    levels, variance = start.copy(), np.diag(covariance)
    pull = (target - levels) @ covariance
    rows = np.arange(len(levels))
    for _ in range(4 * target.shape[1]):
        # Moving weight k by d = +-1 changes the cost by C_kk - 2 d pull_k.
        d = np.where(pull[rows] >= 0, 1.0, -1.0)
        change = variance - 2 * np.abs(pull[rows])
        change[np.abs(levels[rows] + d) > top[rows, None]] = np.inf
        k = change.argmin(1)
        here = np.arange(len(rows))
        moves = change[here, k] < -LEAST_GAIN * variance[k]
        rows, k, d = rows[moves], k[moves], d[here[moves], k[moves]]
        if not rows.size:
            break
        levels[rows, k] += d
        pull[rows] -= d[:, None] * covariance[k]
    return levels


def descend_pairs(target: Floats, covariance: Floats, start: Floats, top: Floats) -> Floats:
    """As `descend`, but two weights of a row move together where that gains more; one row after the other."""
    levels = start.copy()
    for row in range(len(levels)):
        _descend_row(target[row], covariance, levels[row], top[row])
    return levels


def _descend_row(target: Floats, covariance: Floats, levels: Floats, top: float) -> None:
    """In place. Moving k by a and l by b changes the cost by their single changes and 2 a b C_kl."""
    size, variance = len(target), np.diag(covariance)
    signs = np.repeat([1.0, -1.0], size)
    both = np.tile(covariance, (2, 2)) * (2 * np.outer(signs, signs))
    same = np.tile(np.eye(size, dtype=bool), (2, 2))
    pull = (target - levels) @ covariance
    for _ in range(8 * size):
        single = np.tile(variance, 2) - 2 * signs * np.tile(pull, 2)
        single[np.abs(np.tile(levels, 2) + signs) > top] = np.inf
        pair = single[:, None] + single[None, :] + both
        pair[same] = np.inf
        first, second = divmod(int(pair.argmin()), 2 * size)
        alone = int(single.argmin())
        moved = (alone,) if single[alone] <= pair[first, second] else (first, second)
        if min(single[alone], pair[first, second]) >= -LEAST_GAIN * variance.max():
            return
        for place in moved:
            levels[place % size] += signs[place]
            pull -= signs[place] * covariance[place % size]
