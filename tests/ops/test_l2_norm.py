"""The integer L2 norm is its written definition, bit for bit, and stays within its error bound."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qexport.ops.l2_norm import ERROR, FRACTION_BITS, L2Norm, floor_sqrt

WIDEST = math.isqrt((2**62 - 1) // 3)
"""Largest magnitude of three channels whose squares sum below 2**62."""


def by_definition(q: list[int]) -> list[int]:
    """docs/arithmetic.md, eq. 12, in Python's unbounded integers."""
    squares = sum(v * v for v in q)
    k = max(k for k in range(32) if 4**k * squares < 2**62)
    r = max(math.isqrt(4**k * squares), 1)
    magnitudes = [(abs(v) * 2 ** (k + FRACTION_BITS) + r // 2) // r for v in q]
    return [m if v > 0 else -m for m, v in zip(magnitudes, q, strict=True)]


def within_bound(q: list[int], y: list[int]) -> bool:
    """|y 2**-30 - q / sqrt(S)| <= ERROR, decided in rationals: bounds of sqrt(S) from integer square roots."""
    squares = sum(v * v for v in q)
    if not squares:
        return not any(y)
    scale = 2**80
    root = math.isqrt(squares * scale**2)
    low, high = Fraction(root, scale), Fraction(root + 1, scale)
    for v, got in zip(q, y, strict=True):
        value = Fraction(got, 2**FRACTION_BITS)
        if max(abs(value - Fraction(v) / low), abs(value - Fraction(v) / high)) > ERROR:
            return False
    return True


@given(st.lists(st.integers(-WIDEST, WIDEST), min_size=3, max_size=3))
@example([0, 0, 0])
@example([1, 0, 0])
@example([-1, 1, 1])
@example([WIDEST, -WIDEST, WIDEST])
@example([2**30, 0, 0])
@example([2**30 - 1, 1, 0])
@example([1, 2**29, -3])
def test_definition_and_bound(q: list[int]) -> None:
    found = L2Norm().evaluate(np.array(q).reshape(1, 3, 1, 1))[0, :, 0, 0].tolist()
    assert found == by_definition(q)
    assert within_bound(q, found)


@pytest.mark.parametrize("peak", [1, 3, 255, 2**15, 2**26])
def test_many_positions(peak: int) -> None:
    rng = np.random.default_rng(peak)
    q = rng.integers(-peak, peak + 1, (2, 64, 3, 5))
    q[0, :, 0, 0] = 0
    found = L2Norm().evaluate(q)
    vectors = zip(np.moveaxis(q, 1, -1).reshape(-1, 64), np.moveaxis(found, 1, -1).reshape(-1, 64), strict=True)
    assert all(got.tolist() == by_definition(v.tolist()) for v, got in vectors)


def test_floor_sqrt_beside_squares() -> None:
    """Where a float64 root rounds up to the next integer."""
    roots = np.unique(np.concatenate([np.arange(1000), 2**31 - 1 - np.arange(1000), 2 ** np.arange(31)]))
    for offset in (-1, 0, 1):
        values = np.maximum(roots * roots + offset, 0)
        assert floor_sqrt(values).tolist() == [math.isqrt(v) for v in values.tolist()]
