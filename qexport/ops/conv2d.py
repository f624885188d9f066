"""2-D convolution, in either domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import AccumulatorError, GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, pad_spatial, register, require_int32, sliding_output, windows
from qexport.ops.weight import Weight, spread_over_groups

Pads = tuple[tuple[int, int], tuple[int, int]]

FLOAT32_EXACT = 2**24
"""Every integer below has an exact float32."""

CHUNK_BYTES = 4 << 20
"""Size of the unfolded input at a time: it stays in the cache, and memory does not grow with the batch."""


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
        o, per_group = self.weight.array.shape[:2]
        if len(x.shape) != 3 or x.shape[0] != per_group * self.groups or o % self.groups:
            raise GraphError("input channels do not fit the weight", got=x.shape, expected=self.weight.array.shape)
        return o, *self._extent(*x.shape[1:])

    def _extent(self, height: int, width: int) -> tuple[int, int]:
        kh, kw = self.weight.array.shape[2:]
        rows = sliding_output(height, kh, self.stride[0], self.pads[0], self.dilation[0])
        return rows, sliding_output(width, kw, self.stride[1], self.pads[1], self.dilation[1])

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
        o, per_group, kh, kw = self.weight.array.shape
        weight = self.weight.real() if x.dtype.kind == "f" else self.weight.array
        dtype = _product_dtype(weight, x)
        grouped = weight.astype(dtype).reshape(self.groups, o // self.groups, -1)
        rows, cols = self._extent(*x.shape[2:])
        out = np.empty((len(x), o, rows, cols), x.dtype)
        taps = per_group * kh * kw
        some = max(1, CHUNK_BYTES // (self.groups * taps * rows * cols * np.dtype(dtype).itemsize))
        for i in range(0, len(x), some):
            padded = pad_spatial(x[i : i + some].astype(dtype), self.pads)
            view = windows(padded, (kh, kw), self.stride, self.dilation).transpose(1, 4, 5, 0, 2, 3)
            columns = view.reshape(self.groups, taps, -1)  # [G, I/G kh kw, n H_out W_out]
            out[i : i + some] = np.matmul(grouped, columns).reshape(o, -1, rows, cols).swapaxes(0, 1)
        return out


def _product_dtype(weight: NDArray, x: NDArray) -> type[np.floating]:
    """The float type whose products of `weight` [O, I/groups, kh, kw] and `x` [N, I, H, W] are exact for integers.

    Integers are exact in float32 where every partial sum stays below 2**24; the sum of all magnitudes bounds them in
    any order. float64 holds 2**53, and infer() proved the sums below 2**31. Real products are always float64.
    """
    if x.dtype.kind == "f" or not x.size:
        return np.float64
    per_input = np.maximum(x.max(axis=(0, 2, 3)), -x.min(axis=(0, 2, 3))).astype(np.float64)
    mass = np.abs(weight).sum(axis=(2, 3), dtype=np.float64) * spread_over_groups(per_input, weight)[..., 0, 0]
    return np.float32 if mass.sum(axis=1).max() < FLOAT32_EXACT else np.float64


def channel_bounds(weight: Weight, x: TensorType, groups: int, padded: bool) -> tuple[NDArray, NDArray]:
    """Smallest and largest sum per output channel: sum over taps of min/max(w * lo, w * hi).

    Padded taps contribute zero, so with padding zero joins the input range. A graph is typed again by every pass, with
    the same weights on the same ranges, so results are kept with the weight.
    """
    key = (x.is_integer, groups, padded, x.lo.tobytes(), x.hi.tobytes())
    if key not in weight.bounds:
        weight.bounds[key] = _channel_bounds(weight, x, groups, padded)
    low, high = weight.bounds[key]
    return low.copy(), high.copy()


def _channel_bounds(weight: Weight, x: TensorType, groups: int, padded: bool) -> tuple[NDArray, NDArray]:
    values = weight.array if x.is_integer else weight.real()
    if x.is_integer and np.abs(values.astype(np.float64)).reshape(len(values), -1).sum(1).max() * x.max_abs > 2.0**62:
        raise AccumulatorError("a layer could overflow even 64 bits", got=str(weight), where=str(x))
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
