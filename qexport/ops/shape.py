"""Ops that move values without computing: strided slice, zero padding, concatenation, reshape, transpose."""

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
    """Concatenation along a per-sample axis.

    Attributes:
        axis: 0 joins channels; behind any other axis an output channel holds that channel of every input.
    """

    kind: ClassVar[str] = "concat"
    axis: int = 0

    def infer(self, *inputs: TensorType) -> TensorType:
        first = inputs[0]
        if not 0 <= self.axis < len(first.shape):
            raise GraphError("a concatenation needs an axis of its operands", got=self.axis, expected=str(first))
        for other in inputs[1:]:
            if self._rest(other) != self._rest(first) or other.is_integer != first.is_integer:
                raise GraphError("operands of a concatenation differ", got=str(other), expected=str(first))
        along = sum(t.shape[self.axis] for t in inputs)
        shape = (*first.shape[: self.axis], along, *first.shape[self.axis + 1 :])
        lows, highs = [t.lo for t in inputs], [t.hi for t in inputs]
        if self.axis == 0:
            return _like(first, shape, np.concatenate(lows), np.concatenate(highs))
        return _like(first, shape, np.min(lows, axis=0), np.max(highs, axis=0))

    def evaluate(self, *inputs: NDArray) -> NDArray:
        return np.concatenate(inputs, axis=1 + self.axis)

    @property
    def mixes_channels(self) -> bool:
        return self.axis != 0

    def map_channels(self, *channels: NDArray) -> NDArray:
        if self.axis == 0:
            return np.concatenate(channels)
        if any(np.any(other != channels[0]) for other in channels[1:]):
            raise _mixed(self)
        return channels[0]

    def _rest(self, t: TensorType) -> tuple[int, ...]:
        return (*t.shape[: self.axis], *t.shape[self.axis + 1 :])


@register
@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """New per-sample shape, row-major order kept; the batch axis stays.

    An output channel may hold elements of several neighbouring input channels; its range is then their hull.

    Attributes:
        source: shape before.
        shape: shape after.
    """

    kind: ClassVar[str] = "reshape"
    source: tuple[int, ...]
    shape: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.shape != self.source or not self.shape or np.prod(self.source) != np.prod(self.shape):
            raise GraphError("a reshape does not fit its input", got=f"{x.shape} -> {self.shape}", expected=self.source)
        pairs = list(zip(*self._origin(), strict=True))
        lo = np.array([x.lo[first : last + 1].min() for first, last in pairs])
        hi = np.array([x.hi[first : last + 1].max() for first, last in pairs])
        return _like(x, self.shape, lo, hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return x.reshape(x.shape[0], *self.shape)

    @property
    def mixes_channels(self) -> bool:
        first, last = self._origin()
        return bool(np.any(first != last))

    def map_channels(self, *channels: NDArray) -> NDArray:
        (only,) = channels
        first, last = self._origin()
        for a, b in zip(first, last, strict=True):
            if a != b and np.any(only[a : b + 1] != only[a]):
                raise _mixed(self)
        return only[first]

    def _origin(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last input channel each output channel holds elements of."""
        inner, outer = (int(np.prod(shape[1:], dtype=np.int64)) for shape in (self.source, self.shape))
        start = np.arange(self.shape[0]) * outer
        return start // inner, (start + outer - 1) // inner


@register
@dataclass(frozen=True, eq=False)
class Transpose(Op):
    """Permutation of the per-sample axes: output axis i is input axis axes[i]; the batch axis stays.

    Where another axis becomes the channels, every output channel holds elements of all input channels, and its range
    is their hull.

    Attributes:
        source: shape before.
        axes: a permutation of 0 .. rank - 1.
    """

    kind: ClassVar[str] = "transpose"
    source: tuple[int, ...]
    axes: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.shape != self.source or sorted(self.axes) != list(range(len(x.shape))):
            raise GraphError(
                "a transpose does not fit its input", got=f"{x.shape}, axes {self.axes}", expected=self.source
            )
        shape = tuple(x.shape[a] for a in self.axes)
        if self.mixes_channels:
            return _like(x, shape, np.full(shape[0], x.lo.min()), np.full(shape[0], x.hi.max()))
        return _like(x, shape, x.lo, x.hi)

    def evaluate(self, *inputs: NDArray) -> NDArray:
        (x,) = inputs
        return np.transpose(x, (0, *(1 + a for a in self.axes)))

    @property
    def mixes_channels(self) -> bool:
        return self.axes[0] != 0

    def map_channels(self, *channels: NDArray) -> NDArray:
        (only,) = channels
        if not self.mixes_channels:
            return only
        if np.any(only != only[0]):
            raise _mixed(self)
        return np.repeat(only[:1], self.source[self.axes[0]])


def _mixed(op: Op) -> GraphError:
    return GraphError("an output channel joins channels that differ in a per-channel quantity", got=str(op))
