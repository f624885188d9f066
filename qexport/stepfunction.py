"""What every soft quantizer freezes to: sorted thresholds and the values between them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.errors import FreezeError

MAX_LEVEL = 127
"""Largest level of a weight or a signed activation: levels are stored and multiplied as int8."""

MIN_LEVEL = -128
"""Smallest level, that of int8."""

MAX_UNSIGNED_LEVEL = 255
"""Largest level of an activation without negative levels: it is stored and multiplied as uint8."""

FEW_STEPS = 15
"""Up to so many thresholds are compared one by one."""

LEVEL_TOLERANCE = 4e-7
"""How far a float32 value may lie from scale * level, relative to the largest value: about three float32 roundings."""


def recover_levels(
    values: NDArray[np.float32], max_level: int = MAX_LEVEL
) -> tuple[NDArray[np.int32], Fraction] | None:
    """Find the smallest integers `levels` and a scale with `values == scale * levels` up to float32 rounding.

    Args:
        values: float32 [n], any order, finite.
        max_level: largest magnitude a level may have.

    Returns:
        (levels int32 [n], scale > 0 as an exact rational), or None where no such integers exist.
        The scale is the float32 ratio that reproduces most of `values` exactly when multiplied in float32.
    """
    exact = np.asarray(values, np.float64)
    peak = float(np.max(np.abs(exact), initial=0.0))
    if peak == 0.0:
        return np.zeros(exact.shape, np.int32), Fraction(1)
    for largest in range(1, max_level + 1):
        ratios = exact * (largest / peak)
        levels = np.rint(ratios)
        if np.all(np.abs(ratios - levels) <= LEVEL_TOLERANCE * largest):
            return levels.astype(np.int32), _best_scale(exact, levels)
    return None


def _fit_a_byte(levels: NDArray[np.int32]) -> bool:
    smallest, largest = int(levels.min()), int(levels.max())
    return smallest >= MIN_LEVEL and largest <= (MAX_LEVEL if smallest < 0 else MAX_UNSIGNED_LEVEL)


def _best_scale(values: NDArray[np.float64], levels: NDArray[np.float64]) -> Fraction:
    """The candidate value/level that reproduces most values bit for bit as float32(scale * level)."""
    used = levels != 0
    unique = np.unique(np.stack([np.abs(levels[used]), np.abs(values[used])]), axis=1)
    # Descending: max keeps the first of equals, and the largest level has the smallest relative rounding (1/3, not
    # float32(1/3), from the values 1/3 and 1).
    candidates = [Fraction(float(v)) / int(k) for k, v in unique.T[::-1]]
    target = values.astype(np.float32)
    return max(candidates, key=lambda s: int(np.sum(np.float32(float(s) * levels) == target)))


@dataclass(frozen=True)
class StepFunction:
    """A scalar, monotone, piecewise constant function float32 -> float32 (docs/arithmetic.md, eq. 1).

    code(x) = #{i : x >= thresholds[i]};  value(x) = values[code(x)], which is scale * levels[code(x)] + offset
    up to the float32 rounding of the original quantizer.

    Attributes:
        thresholds: float32 [n], strictly ascending; thresholds[i] is the smallest float32 of step i + 1.
        values: float32 [n + 1], the exact outputs of the original quantizer, strictly monotone.
        levels: int32 [n + 1], the integer each code stands for.
        scale: exact positive rational.
        offset: exact rational, 0 for nearly every scheme.
    """

    thresholds: NDArray[np.float32]
    values: NDArray[np.float32]
    levels: NDArray[np.int32]
    scale: Fraction
    offset: Fraction = Fraction(0)

    @classmethod
    def from_values(cls, thresholds: NDArray[np.float32], values: NDArray[np.float32], name: str = "") -> StepFunction:
        """Build from thresholds [n] and output values [n + 1]; levels, scale and offset are recovered.

        Raises:
            FreezeError: shapes do not fit, the thresholds are not strictly ascending, the values are not strictly
                monotone, or they are no integers of int8 or uint8 times a scale (plus an offset).
        """
        thresholds = np.ascontiguousarray(thresholds, np.float32)
        values = np.ascontiguousarray(values, np.float32)
        if thresholds.ndim != 1 or values.shape != (thresholds.size + 1,):
            raise FreezeError(
                "thresholds and values do not fit together",
                where=name or None,
                got=f"{thresholds.shape} thresholds, {values.shape} values",
                expected="n thresholds and n + 1 values",
            )
        if np.any(thresholds[1:] <= thresholds[:-1]) or np.isnan(thresholds).any() or not np.isfinite(values).all():
            raise FreezeError(
                "thresholds must be strictly ascending and values finite",
                where=name or None,
                got=f"thresholds {thresholds.tolist()[:8]}, values {values.tolist()[:8]}",
            )
        rises = np.diff(values.astype(np.float64))
        if not (np.all(rises > 0) or np.all(rises < 0)):
            raise FreezeError(
                "the values of a step function must all rise or all fall",
                where=name or None,
                got=f"values {values.tolist()[:16]}",
            )
        # The smallest value as offset makes the shifted levels unsigned, also where the function descends.
        for offset in (np.float32(0), values.min()):
            shifted = (values.astype(np.float64) - float(offset)).astype(np.float32)
            found = recover_levels(shifted, MAX_UNSIGNED_LEVEL)
            if found is not None and _fit_a_byte(found[0]):
                return cls(thresholds, values, found[0], found[1], Fraction(float(offset)))
        raise FreezeError(
            "the quantizer's output values are no small integers times a scale",
            where=name or None,
            got=f"values {values.tolist()[:16]}",
            expected=f"scale * integer, integers of {MIN_LEVEL}..{MAX_LEVEL} or 0..{MAX_UNSIGNED_LEVEL}",
            remedy="use a quantizer whose levels have a common step",
        )

    @classmethod
    def uniform(cls, scale: Fraction, first_level: int, last_level: int) -> StepFunction:
        """Uniform quantizer: level = clip(round_half_up(x / scale), first_level, last_level), value = level * scale.

        Used for activations that training left float; thresholds are (level - 1/2) * scale rounded up to float32.
        """
        levels = np.arange(first_level, last_level + 1, dtype=np.int32)
        exact = [scale * (2 * int(level) - 1) / 2 for level in levels[1:]]
        thresholds = np.array([float32_at_least(t) for t in exact], np.float32)
        values = (levels * float(scale)).astype(np.float32)
        return cls(thresholds, values, levels, scale)

    @property
    def n_steps(self) -> int:
        return int(self.thresholds.size)

    @property
    def bits(self) -> int:
        """Bits a code needs: ceil(log2(n + 1)), at least 1."""
        return max(1, int(self.n_steps).bit_length())

    @property
    def is_uniform(self) -> bool:
        """Whether levels are equally spaced and thresholds sit at their mid-points or any other equal spacing."""
        if self.n_steps < 2:
            return True
        gaps = np.diff(self.levels)
        spacing = np.diff(self.thresholds.astype(np.float64))
        return bool(np.all(gaps == gaps[0]) and np.ptp(spacing) <= 1e-5 * np.abs(self.thresholds).max())

    def codes(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """code(x) for an array of any shape; NaN is not allowed."""
        values, thresholds = np.asarray(x, np.float64), self.thresholds.astype(np.float64)
        if len(thresholds) > FEW_STEPS:
            return np.searchsorted(thresholds, values, side="right")
        code = np.zeros(values.shape, np.uint8)
        for threshold in thresholds:  # a pass each: several times as fast as a search that branches on every element
            code += values >= threshold
        return code.astype(np.int64)

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """value(x), bit for bit what the original quantizer returns in eval mode."""
        return self.values[self.codes(x)]


def float32_at_least(exact: Fraction) -> np.float32:
    """The smallest float32 that is >= `exact`."""
    near = np.float32(float(exact))
    while Fraction(float(near)) < exact:
        near = np.nextafter(near, np.float32(np.inf))
    while Fraction(float(np.nextafter(near, np.float32(-np.inf)))) >= exact:
        near = np.nextafter(near, np.float32(-np.inf))
    return near
