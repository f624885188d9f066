"""The L2 norm over channels in int64: ONNX has no integer square root, so Newton's iteration makes one."""

from __future__ import annotations

import numpy as np

from qexport.backends.onnx.emitter import INT32, INT64, Emitter
from qexport.ops import L2Norm
from qexport.ops.l2_norm import FRACTION_BITS, NORMALISING_SHIFTS, SQUARES_LIMIT

FLOAT64_EXACT = 2**53
"""Every integer below has an exact float64."""

HALF = 2**31
"""Squares below 2**62 are cut here; sums of either part over a million channels stay below FLOAT64_EXACT."""

NEWTON_START = 2**31
"""At least the root of any number below SQUARES_LIMIT, at most twice that of one from SQUARES_LIMIT / 4 on."""

NEWTON_STEPS = 6
"""From twice the root the relative error falls as 1/4, 1/40, 3e-4, 5e-8, 1e-15: the fifth is below one part in 2**31,
and rounding down at every step costs at most one more."""


def lower_l2_norm(e: Emitter, op: L2Norm, name: str) -> str:
    """Eq. 12 of docs/arithmetic.md, operation by operation; every intermediate is below 2**62.

    Min, Max and Clip of ONNX Runtime are wrong for int64 beyond 32 bits; Less, Greater and Where are right.
    """
    x = e.cast(name, INT64)
    signed = bool(e.graph.types[name].lo.min() < 0)
    magnitude = e.node("Abs", [x], "magnitude") if signed else x
    squares, doubled = _normalised(e, _sum_of_squares(e, x, op.largest_sum(e.graph.types[name])))
    # Of a vector of zeros the iteration makes 2**25 - 1 instead of 1: the quotient is 0 all the same.
    root = _floor_sqrt(e, squares)
    scaled = e.node("Mul", [magnitude, e.node("Mul", [doubled, _int64(e, 2**FRACTION_BITS)], "scale")], "scaled")
    half = e.node("Div", [root, _int64(e, 2)], "half")
    value = e.node("Div", [e.node("Add", [scaled, half], "rounded"), root], "quotient")
    if signed:
        value = e.node("Mul", [value, e.node("Sign", [x], "sign")], "signed")
    return e.cast(value, INT32)


def _sum_of_squares(e: Emitter, x: str, largest: int) -> str:
    """Over channels. ReduceSum of ONNX Runtime adds int64 in float64: sums beyond 2**53 are made of two halves."""

    def total(value: str) -> str:
        return e.node("ReduceSum", [value, e.constant(np.array([1], INT64))], "sum_of_squares", keepdims=1)

    squares = e.node("Mul", [x, x], "squares")
    if largest < FLOAT64_EXACT:
        return total(squares)
    upper = e.node("Div", [squares, _int64(e, HALF)], "upper")
    lower = e.node("Sub", [squares, e.node("Mul", [upper, _int64(e, HALF)], "upper_part")], "lower")
    whole = e.node("Mul", [total(upper), _int64(e, HALF)], "upper_sum")
    return e.node("Add", [whole, total(lower)], "sum_of_squares")


def _int64(e: Emitter, value: int) -> str:
    return e.constant(np.array(value, INT64))


def _normalised(e: Emitter, squares: str) -> tuple[str, str]:
    """4**k * S and 2**k for the largest k that keeps the first below SQUARES_LIMIT."""
    doubled = _int64(e, 1)
    for shift in NORMALISING_SHIFTS:
        grow = e.node("Less", [squares, _int64(e, SQUARES_LIMIT >> (2 * shift))], "grow", bool)
        squares, doubled = _times(e, grow, squares, 4**shift), _times(e, grow, doubled, 2**shift)
    return squares, doubled


def _times(e: Emitter, where: str, value: str, factor: int) -> str:
    """value * factor where the condition holds, else value."""
    chosen = e.node("Where", [where, _int64(e, factor), _int64(e, 1)], "factor", INT64)
    return e.node("Mul", [chosen, value], "grown")


def _floor_sqrt(e: Emitter, squares: str) -> str:
    """floor(sqrt(v)) for v of [SQUARES_LIMIT / 4, SQUARES_LIMIT).

    Newton's iteration in integers from above never falls below the floor of the root; the last comparison takes off
    what may be left.
    """
    root = _int64(e, NEWTON_START)
    for _ in range(NEWTON_STEPS):
        total = e.node("Add", [e.node("Div", [squares, root], "quotient"), root], "sum")
        root = e.node("Div", [total, _int64(e, 2)], "root")
    above = e.node("Greater", [e.node("Mul", [root, root], "square"), squares], "above", bool)
    return e.node("Sub", [root, e.cast(above, INT64)], "root")
