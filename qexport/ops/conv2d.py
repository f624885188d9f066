"""2-D convolution, in either domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, pad_spatial, register, require_int32, sliding_output, windows
from qexport.ops.weight import Weight

Pads = tuple[tuple[int, int], tuple[int, int]]


@register
@dataclass(frozen=True, eq=False)
class Conv2d(Op):
    """acc[n,o,y,x] = sum_{i,u,v} weight[o,i,u,v] * in[n, i, y*s + u*d - p, x*s + v*d - p]; no bias.

    Padding is with zero. In the integer domain the result is exact and its per-channel bound is proven to
    fit int32 (docs/arithmetic.md, eq. 3).

    Attributes:
        weight: [O, I/groups, kh, kw]; plain integer levels in the integer domain.
        stride, dilation: (vertical, horizontal).
        pads: ((top, bottom), (left, right)).
        groups: channel groups.
    """

    kind: ClassVar[str] = "conv2d"
    weight: Weight
    stride: tuple[int, int] = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_shape(self, x: TensorType) -> tuple[int, int, int]:
        """(O, H_out, W_out); raises GraphError where the shapes do not fit."""
        o, per_group, kh, kw = self.weight.array.shape
        if len(x.shape) != 3 or x.shape[0] != per_group * self.groups or o % self.groups:
            raise GraphError("input channels do not fit the weight", got=x.shape, expected=self.weight.array.shape)
        rows = sliding_output(x.shape[1], kh, self.stride[0], self.pads[0], self.dilation[0])
        cols = sliding_output(x.shape[2], kw, self.stride[1], self.pads[1], self.dilation[1])
        return o, rows, cols

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        shape = self.output_shape(x)
        padded = any(map(any, self.pads))
        lo, hi = channel_bounds(self.weight, x, self.groups, padded)
        if not x.is_integer:
            return real(shape, lo, hi)
        if not self.weight.is_quantized or self.weight.scale is not None:
            raise GraphError("an integer convolution needs plain integer weights", got=str(self.weight))
        require_int32("conv2d", lo, hi)
        return integer(shape, lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        kh, kw = self.weight.array.shape[2:]
        weight = self.weight.real() if x.dtype.kind == "f" else self.weight.array
        # float64 products of integers are exact below 2**53, and infer() proved the sums below 2**31.
        view = windows(pad_spatial(x.astype(np.float64), self.pads), (kh, kw), self.stride, self.dilation)
        n, c, rows, cols = view.shape[:4]
        columns = view.reshape(n, self.groups, c // self.groups, rows, cols, kh, kw)
        columns = columns.transpose(0, 1, 2, 5, 6, 3, 4).reshape(n, self.groups, -1, rows * cols)
        grouped = weight.astype(np.float64).reshape(self.groups, weight.shape[0] // self.groups, -1)
        out = np.matmul(grouped, columns).reshape(n, weight.shape[0], rows, cols)  # [N, G, O/G, HW]
        return out if x.dtype.kind == "f" else out.astype(np.int64)


def channel_bounds(weight: Weight, x: TensorType, groups: int, padded: bool) -> tuple[NDArray, NDArray]:
    """Smallest and largest sum per output channel: sum over taps of min/max(w * lo, w * hi).

    Padded taps contribute zero, so with padding zero joins the input range.
    """
    values = weight.array if x.is_integer else weight.real()
    lo, hi = x.lo, x.hi
    if padded:
        lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
    o = values.shape[0]
    positive = np.maximum(values, 0).reshape(groups, o // groups, values.shape[1], -1).sum(-1)  # [G, O/G, I/G]
    negative = np.minimum(values, 0).reshape(groups, o // groups, values.shape[1], -1).sum(-1)
    lo, hi = lo.reshape(groups, 1, -1), hi.reshape(groups, 1, -1)
    low = (positive * lo + negative * hi).sum(-1).reshape(o)
    high = (positive * hi + negative * lo).sum(-1).reshape(o)
    return low, high
