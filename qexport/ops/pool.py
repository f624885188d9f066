"""Pooling: maximum (either domain), sum (integer) and mean (real)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, pad_spatial, register, require_int32, sliding_output, windows
from qexport.ops.conv2d import Pads


@dataclass(frozen=True, eq=False)
class Pool(Op):
    """Shared attributes of the pooling ops.

    Attributes:
        kernel, stride: (vertical, horizontal).
        pads: ((top, bottom), (left, right)).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: Pads = ((0, 0), (0, 0))

    @property
    def area(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def output_shape(self, x: TensorType) -> tuple[int, int, int]:
        rows, cols = (
            sliding_output(size, k, s, p, 1)
            for size, k, s, p in zip(x.shape[1:], self.kernel, self.stride, self.pads, strict=True)
        )
        return x.shape[0], rows, cols

    def _sum_bounds(self, x: TensorType) -> tuple[NDArray, NDArray]:
        lo, hi = x.lo, x.hi
        if any(map(any, self.pads)):
            lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
        return lo * self.area, hi * self.area


@register
@dataclass(frozen=True, eq=False)
class MaxPool(Pool):
    """Largest value of each window; padding never wins."""

    kind: ClassVar[str] = "max_pool"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        make = integer if x.is_integer else real
        return make(self.output_shape(x), x.lo, x.hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        return windows(pad_spatial(x, self.pads, lowest), self.kernel, self.stride).max(axis=(-2, -1))


@register
@dataclass(frozen=True, eq=False)
class SumPool(Pool):
    """Sum of each window, padded with zero; the integer half of average pooling (docs/arithmetic.md, eq. 9)."""

    kind: ClassVar[str] = "sum_pool"
    domain: ClassVar[str] = "integer"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        lo, hi = self._sum_bounds(x)
        require_int32("sum_pool", lo, hi)
        return integer(self.output_shape(x), lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return windows(pad_spatial(x, self.pads), self.kernel, self.stride).sum(axis=(-2, -1))


@register
@dataclass(frozen=True, eq=False)
class AvgPool(Pool):
    """Mean of each window; padded zeros count (count_include_pad)."""

    kind: ClassVar[str] = "avg_pool"
    domain: ClassVar[str] = "real"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        lo, hi = self._sum_bounds(x)
        return real(self.output_shape(x), lo / self.area, hi / self.area)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return windows(pad_spatial(x, self.pads), self.kernel, self.stride).mean(axis=(-2, -1))
