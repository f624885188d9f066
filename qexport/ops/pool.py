"""Pooling: maximum (either domain), sum (integer) and mean (real)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, pad_spatial, register, require_int32, sliding_output, windows
from qexport.ops.conv2d import Pads

PerPosition = tuple[tuple[int, ...], tuple[int, ...]]
"""One positive integer per output row and one per output column; a position owns their product."""


@dataclass(frozen=True, eq=False)
class Pool(Op):
    """Shared attributes of the pooling ops.

    Attributes:
        kernel, stride: (vertical, horizontal).
        pads: ((top, bottom), (left, right)). Windows that leave the padded input, as ceil_mode has them, are stated as
            more padding at the end.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: Pads = ((0, 0), (0, 0))

    @property
    def area(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def spacing(self) -> tuple[int, int]:
        """Distance of neighbouring taps, (vertical, horizontal); above 1 for dilated maximum pooling only."""
        return 1, 1

    def output_shape(self, x: TensorType) -> tuple[int, int, int]:
        if len(x.shape) != 3:
            raise GraphError("pooling needs channels, rows and columns", got=x.shape)
        rows, cols = (
            sliding_output(size, k, s, p, d)
            for size, k, s, p, d in zip(x.shape[1:], self.kernel, self.stride, self.pads, self.spacing, strict=True)
        )
        return x.shape[0], rows, cols

    def taps_inside(self, x: TensorType) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many taps of a window lie inside the input, per output row and per output column."""
        counts = []
        for axis, extent in enumerate(self.output_shape(x)[1:]):
            start = np.arange(extent) * self.stride[axis] - self.pads[axis][0]
            taps = start[:, None] + np.arange(self.kernel[axis]) * self.spacing[axis]
            counts.append(((taps >= 0) & (taps < x.shape[1 + axis])).sum(1))
        return counts[0], counts[1]

    def weights_inside(self, x: TensorType, factors: PerPosition | None) -> tuple[int, int]:
        """Smallest and largest factor * number of taps inside the input, over all positions."""
        least, most = 1, 1
        for axis, inside in enumerate(self.taps_inside(x)):
            weight = inside if factors is None else inside * np.array(factors[axis])
            least, most = least * int(weight.min()), most * int(weight.max())
        return least, most

    def _sum_bounds(self, x: TensorType, factors: PerPosition | None) -> tuple[NDArray, NDArray]:
        """Range of factor * sum: the taps inside the input count, those outside are zero."""
        least, most = self.weights_inside(x, factors)
        return np.minimum(x.lo * least, x.lo * most), np.maximum(x.hi * least, x.hi * most)

    def _check_positions(self, x: TensorType, values: PerPosition | None) -> None:
        if values is None:
            return
        if tuple(map(len, values)) != self.output_shape(x)[1:] or min(map(min, values)) < 1:
            raise GraphError("one positive integer per output row and column is needed", got=values)


@register
@dataclass(frozen=True, eq=False)
class MaxPool(Pool):
    """Largest value of each window; padding never wins.

    Attributes:
        dilation: distance of neighbouring taps, (vertical, horizontal).
    """

    kind: ClassVar[str] = "max_pool"
    dilation: tuple[int, int] = (1, 1)

    @property
    def spacing(self) -> tuple[int, int]:
        return self.dilation

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        shape = self.output_shape(x)
        if any(inside.min() == 0 for inside in self.taps_inside(x)):
            raise GraphError("a window of maximum pooling holds padding only", got=str(self), expected=str(x))
        make = integer if x.is_integer else real
        return make(shape, x.lo, x.hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        return windows(pad_spatial(x, self.pads, lowest), self.kernel, self.stride, self.dilation).max(axis=(-2, -1))


@register
@dataclass(frozen=True, eq=False)
class SumPool(Pool):
    """factor * sum of each window, padded with zero; the integer half of average pooling (docs/arithmetic.md, eq. 9).

    Attributes:
        factors: the position (i, j) is multiplied by factors[0][i] * factors[1][j]; None is 1 everywhere.
    """

    kind: ClassVar[str] = "sum_pool"
    domain: ClassVar[str] = "integer"
    factors: PerPosition | None = None

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self._check_positions(x, self.factors)
        lo, hi = self._sum_bounds(x, self.factors)
        require_int32("sum_pool", lo, hi)
        return integer(self.output_shape(x), lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        sums = windows(pad_spatial(x, self.pads), self.kernel, self.stride).sum(axis=(-2, -1))
        if self.factors is None:
            return sums
        rows, cols = (np.array(values, np.int64) for values in self.factors)
        return sums * (rows[:, None] * cols)


@register
@dataclass(frozen=True, eq=False)
class AvgPool(Pool):
    """Mean of each window.

    Attributes:
        divisors: the sum at position (i, j) is divided by divisors[0][i] * divisors[1][j]; None divides by the
            window's area, so that padded zeros count (count_include_pad).
    """

    kind: ClassVar[str] = "avg_pool"
    domain: ClassVar[str] = "real"
    divisors: PerPosition | None = None

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self._check_positions(x, self.divisors)
        # The range of the integer form (eq. 9) is that of the mean, times the common multiple.
        common, factors = self.integer_form()
        lo, hi = self._sum_bounds(x, factors)
        return real(self.output_shape(x), lo / common, hi / common)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        sums = windows(pad_spatial(x, self.pads), self.kernel, self.stride).sum(axis=(-2, -1))
        if self.divisors is None:
            return sums / self.area
        rows, cols = (np.array(values, np.int64) for values in self.divisors)
        return sums / (rows[:, None] * cols)

    def integer_form(self) -> tuple[int, PerPosition | None]:
        """(L, factors) with mean = factors * sum / L, factors integers (docs/arithmetic.md, eq. 9).

        L is the product of the least common multiples of the row and the column divisors.
        """
        if self.divisors is None:
            return self.area, None
        rows, cols = (int(np.lcm.reduce(values)) for values in self.divisors)
        factors = tuple(rows // d for d in self.divisors[0]), tuple(cols // d for d in self.divisors[1])
        return rows * cols, None if set(factors[0]) == set(factors[1]) == {1} else factors
