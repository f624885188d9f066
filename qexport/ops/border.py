"""Exact correction of zero padding where the padded value is not the real zero."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, register, require_int32


@register
@dataclass(frozen=True, eq=False)
class BorderBias(Op):
    """y[n,c,i,j] = x[n,c,i,j] + values[c, rows[i], cols[j]] (docs/arithmetic.md, eq. 8).

    A convolution whose input carries an offset sees that offset only where its window lies inside the
    image; the missing share depends on which taps fall outside, one class per border row and column.

    Attributes:
        values: [C, R, S], int64 in the integer domain, float64 in the real one.
        rows: int64 [H], class of each row, 0 .. R-1.
        cols: int64 [W], class of each column, 0 .. S-1.
        padding: in the real domain, what zeros around the convolution's input would have to be for no bias to be
            needed, in integer steps of that input, one per input channel; empty where it is not known.
    """

    kind: ClassVar[str] = "border_bias"
    values: NDArray
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    padding: tuple[Fraction, ...] = ()

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.shape != (self.values.shape[0], self.rows.size, self.cols.size):
            raise GraphError("border bias does not fit", got=x.shape, expected=self.values.shape)
        lo = x.lo + self.values.min(axis=(1, 2))
        hi = x.hi + self.values.max(axis=(1, 2))
        if not x.is_integer:
            return real(x.shape, lo, hi)
        require_int32("border_bias", lo, hi)
        return integer(x.shape, lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return x + self.full().astype(x.dtype)

    def full(self) -> NDArray:
        """The bias of every position, [C, H, W]."""
        return self.values[:, self.rows][:, :, self.cols]
