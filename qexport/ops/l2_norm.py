"""L2 normalisation over channels: the layer between conv4_3 and its heads in SSD."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import AccumulatorError, GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, register

FRACTION_BITS = 30
"""The integer result counts steps of 2**-FRACTION_BITS, so that 1 and -1 fit int32."""

SQUARES_LIMIT = 2**62
"""Sums of squares are proven to stay below; doubling the integers until the sum reaches a quarter keeps them so."""

NORMALISING_SHIFTS = (16, 8, 4, 2, 1)
"""Doublings of the integers that are tried in turn: together they bring any sum from 1 on to SQUARES_LIMIT / 4."""

ERROR = Fraction(3, 2) / 2**FRACTION_BITS
"""Bound of |result * 2**-FRACTION_BITS - x / norm(x)| for the integer form (docs/arithmetic.md, eq. 13)."""


@register
@dataclass(frozen=True, eq=False)
class L2Norm(Op):
    """y[n,:,i,j] = x[n,:,i,j] / norm, norm = sqrt(sum over channels of x**2), at every position.

    Integers give y in steps of 2**-30, defined by integer operations alone (docs/arithmetic.md, eq. 12):

        S = sum_c x[c]**2;   k = largest integer <= 31 with 4**k * S < 2**62;   r = max(floor(sqrt(4**k * S)), 1)
        y[c] = sign(x[c]) * floor((|x[c]| * 2**(k + 30) + floor(r / 2)) / r)

    Attributes:
        floor: the norm is taken as at least this (torch.nn.functional.normalize); 0 in the integer domain.
        added: joins the norm (other code writes norm + eps); 0 in the integer domain.
    """

    kind: ClassVar[str] = "l2_norm"
    floor: Fraction = Fraction(0)
    added: Fraction = Fraction(0)

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if not x.is_integer:
            return real(x.shape, np.sign(np.minimum(x.lo, 0)), np.sign(np.maximum(x.hi, 0)))
        if self.floor or self.added:
            raise GraphError("an integer norm has no smallest value", got=str(self))
        squares = self.largest_sum(x)
        if squares >= SQUARES_LIMIT:
            raise AccumulatorError(
                "l2_norm could overflow its sum of squares", got=f"up to {squares}", expected=f"below {SQUARES_LIMIT}"
            )
        one = 1 << FRACTION_BITS
        return integer(x.shape, np.where(x.lo < 0, -one, 0), np.where(x.hi > 0, one, 0))

    @staticmethod
    def largest_sum(x: TensorType) -> int:
        """Proven bound of the sum of squares of an integer tensor, in Python integers that cannot wrap."""
        return sum(max(abs(int(lo)), abs(int(hi))) ** 2 for lo, hi in zip(x.lo, x.hi, strict=True))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        if x.dtype.kind == "f":
            norm = np.maximum(np.sqrt((x * x).sum(1, keepdims=True)), float(self.floor)) + float(self.added)
            return x / np.where(norm > 0, norm, 1.0)
        squares = (x * x).sum(1, keepdims=True)
        doubled = np.ones_like(squares)
        for shift in NORMALISING_SHIFTS:
            grow = squares < SQUARES_LIMIT >> (2 * shift)
            squares = np.where(grow, squares << (2 * shift), squares)
            doubled = np.where(grow, doubled << shift, doubled)
        root = np.maximum(floor_sqrt(squares), 1)
        magnitude = ((np.abs(x) * doubled << FRACTION_BITS) + (root >> 1)) // root
        return np.sign(x) * magnitude


def floor_sqrt(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """floor(sqrt(v)) of integers 0 <= v < 2**62, exact: a float64 guess within one of it, then integer comparisons."""
    root = np.sqrt(values.astype(np.float64)).astype(np.int64)
    root -= root * root > values
    root += (root + 1) * (root + 1) <= values
    return root
