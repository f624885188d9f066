"""Ops that move values without computing: strided slice, zero padding, concatenation, reshape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import GraphError
from qexport.ir.types import TensorType, integer, real
from qexport.ops.base import Op, register


def _like(x: TensorType, shape: tuple[int, ...], lo: NDArray, hi: NDArray) -> TensorType:
    return integer(shape, lo, hi) if x.is_integer else real(shape, lo, hi)


@register
@dataclass(frozen=True, eq=False)
class Slice(Op):
    """Strided slice of every axis but the batch.

    Attributes:
        ranges: (start, stop, step) per axis, 0 <= start < stop <= extent, step >= 1.
    """

    kind: ClassVar[str] = "slice"
    ranges: tuple[tuple[int, int, int], ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if len(self.ranges) != len(x.shape):
            raise GraphError("one range per axis is needed", got=self.ranges, expected=x.shape)
        for (start, stop, step), extent in zip(self.ranges, x.shape, strict=True):
            if not (0 <= start < stop <= extent and step >= 1):
                raise GraphError("a slice leaves its tensor", got=self.ranges, expected=x.shape)
        shape = tuple(len(range(*r)) for r in self.ranges)
        return _like(x, shape, self.map_channels(x.lo), self.map_channels(x.hi))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return x[(slice(None), *(slice(*r) for r in self.ranges))]

    def map_channels(self, *channels: NDArray) -> NDArray:
        (only,) = channels
        return only[slice(*self.ranges[0])]


@register
@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Zero padding of every axis but the batch (channel padding is the option-A shortcut of ResNet).

    Attributes:
        pads: (before, after) per axis.
    """

    kind: ClassVar[str] = "pad"
    pads: tuple[tuple[int, int], ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        shape = tuple(n + before + after for n, (before, after) in zip(x.shape, self.pads, strict=True))
        lo, hi = x.lo, x.hi
        if any(map(any, self.pads[1:])):
            lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
        return _like(x, shape, self.map_channels(lo), self.map_channels(hi))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return np.pad(x, ((0, 0), *self.pads))

    def map_channels(self, *channels: NDArray) -> NDArray:
        (only,) = channels
        return np.pad(only, self.pads[0])


@register
@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Concatenation along the channel axis."""

    kind: ClassVar[str] = "concat"

    def infer(self, *inputs: TensorType) -> TensorType:
        first = inputs[0]
        for other in inputs[1:]:
            if other.shape[1:] != first.shape[1:] or other.is_integer != first.is_integer:
                raise GraphError("operands of a concatenation differ", got=str(other), expected=str(first))
        shape = (sum(t.channels for t in inputs), *first.shape[1:])
        lo, hi = (self.map_channels(*(getattr(t, side) for t in inputs)) for side in ("lo", "hi"))
        return _like(first, shape, lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        return np.concatenate(inputs, axis=1)

    def map_channels(self, *channels: NDArray) -> NDArray:
        return np.concatenate(channels)


@register
@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """New per-sample shape, row-major order kept; the batch axis stays.

    Attributes:
        source: shape before.
        shape: shape after; its channel axis is a refinement of the old one (flattening) or equal to it.
    """

    kind: ClassVar[str] = "reshape"
    source: tuple[int, ...]
    shape: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.shape != self.source or np.prod(self.source) != np.prod(self.shape) or self.shape[0] % self.source[0]:
            raise GraphError("reshape does not keep channels together", got=f"{x.shape} -> {self.shape}")
        return _like(x, self.shape, self.map_channels(x.lo), self.map_channels(x.hi))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return x.reshape(x.shape[0], *self.shape)

    def map_channels(self, *channels: NDArray) -> NDArray:
        (only,) = channels
        return np.repeat(only, self.shape[0] // self.source[0])
