"""Three thresholds on bytes, not evenly spaced, as a uniform quantizer of a sum that bends in the middle.

With gaps d = B_2 - B_1 and e = B_3 - B_2 in bytes, f(x) = a * x + b * min(x, k) + c rises by 1 from B_1 - 1/2 to
B_2 - 1/2 and again to B_3 - 1/2 if d < e (for d > e with max). round(f) then is the code, with a margin of half a
byte at every threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

BYTE_VALUES = 256

MARGIN = 2.0**-11
"""How far f stays from the half steps at every byte, more than float32 arithmetic is off."""

CODE_ZERO = 1
"""The byte of f = 0 before it is the code: f starts between 0 and 1, which zero points of its terms cannot give."""

LAST_STEP = 3.5
"""f where a code after the last one would begin."""


@dataclass(frozen=True)
class Bend:
    """f(x) = scales[0] * (x - zero_points[0]) + scales[1] * (bent - zero_points[1]) + CODE_ZERO.

    Attributes:
        knot: byte at which x is bent.
        below: whether bent = min(x, knot), else max(x, knot).
        scales, zero_points: of x and of the bent x.
    """

    knot: int
    below: bool
    scales: tuple[Fraction, Fraction]
    zero_points: tuple[int, int]

    def value(self, x: int) -> float:
        """f(x)."""
        bent = min(x, self.knot) if self.below else max(x, self.knot)
        terms = [s * (v - z) for s, v, z in zip(self.scales, (x, bent), self.zero_points, strict=True)]
        return float(sum(terms)) + CODE_ZERO


def find_bend(bars: Sequence[int]) -> Bend | None:
    """The bend for three bytes B_1 < B_2 < B_3; None for other numbers, for even ones and where no zero points fit.

    The scales are float32 numbers; every byte is checked.
    """
    if len(bars) != 3:
        return None
    first, middle, last = bars
    near, far = middle - first, last - middle
    if near == far or min(near, far) < 1:
        return None
    below = near < far
    knot = middle if below else middle - 1
    # The steep side passes through two half steps; the flat one from the knot, half a byte behind B_2 - 1/2.
    steep, length = 1 / Fraction(min(near, far)), Fraction(max(near, far)) - Fraction(1, 2)
    flat = _float32((1 - steep / 2) / length)
    extra = _float32(steep - flat)
    at_knot = Fraction(3, 2) - CODE_ZERO + (steep if below else -steep) / 2
    zeros = np.arange(BYTE_VALUES)
    misses = np.abs(float(flat) * (knot - zeros[:, None]) + float(extra) * (knot - zeros[None, :]) - float(at_knot))
    z1, z2 = np.unravel_index(int(np.argmin(misses)), misses.shape)
    bend = Bend(knot, below, (flat, extra), (int(z1), int(z2)))
    codes = [sum(x >= bar for bar in bars) for x in range(BYTE_VALUES)]
    return bend if all(_is_clear(bend.value(x), code) for x, code in enumerate(codes)) else None


def _is_clear(value: float, code: int) -> bool:
    """Whether f rounds to the code; beyond the outermost half steps it saturates."""
    return (code == 0 or value - (code - 0.5) > MARGIN) and (code == 3 or code + 0.5 - value > MARGIN)


def _float32(value: Fraction) -> Fraction:
    return Fraction(float(np.float32(float(value))))
