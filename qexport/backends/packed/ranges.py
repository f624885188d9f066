"""How a reader recomputes the range of every result from what a file claims for its inputs (docs/packed-format.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from qexport.errors import AccumulatorError
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import Add, BorderBias, Clip, Concat, Conv2d, Linear, Op, Pad, Rescale, Reshape, Slice, SumPool
from qexport.ops import Threshold as ThresholdOp

WIDEST = 2.0**62
"""Sums of weights times inputs are computed in 64 bits; what could leave them is far beyond 32 anyway."""


@dataclass(frozen=True, eq=False)
class Range:
    """Smallest and largest value per channel, int64 [C] each."""

    lo: NDArray[np.int64]
    hi: NDArray[np.int64]

    def hull(self) -> Range:
        """The same range for every channel."""
        return Range(np.full_like(self.lo, self.lo.min()), np.full_like(self.hi, self.hi.max()))

    def with_zero(self) -> Range:
        return Range(np.minimum(self.lo, 0), np.maximum(self.hi, 0))

    def map(self, function: Callable[[NDArray], NDArray]) -> Range:
        return Range(function(self.lo), function(self.hi))

    def contains(self, other: Range) -> bool:
        return bool(np.all(self.lo <= other.lo) and np.all(other.hi <= self.hi))

    def __str__(self) -> str:
        return f"[{int(self.lo.min())}, {int(self.hi.max())}]"


def result_range(op: Op, inputs: Sequence[Range], extents: tuple[int, ...]) -> Range:
    """Range of the result, of `extents`, from the ranges of the inputs; accumulators are proven on the way.

    Raises:
        AccumulatorError: a convolution could leave 32 bits, or 64.
    """
    rule = _RULES.get(op.kind)
    return inputs[0] if rule is None else rule(op, inputs, extents)


def _product(op: Conv2d | Linear, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    padded = isinstance(op, Conv2d) and any(map(any, op.pads))
    positive, negative = _tap_sums(op)
    widened = inputs[0].with_zero()
    if (positive - negative).sum(-1).max() * float(max(widened.hi.max(), -widened.lo.min())) > WIDEST:
        raise AccumulatorError("a layer could overflow even 64 bits", got=str(op.weight))

    def sums(x: Range) -> Range:
        lo, hi = x.lo.reshape(len(positive), 1, -1), x.hi.reshape(len(positive), 1, -1)
        low, high = positive * lo + negative * hi, positive * hi + negative * lo
        return Range(low.sum(-1).reshape(-1), high.sum(-1).reshape(-1))

    accumulator = sums(widened)
    _require_int32(accumulator)
    return accumulator if padded else sums(inputs[0])


_TAP_SUMS: WeakKeyDictionary[Op, tuple[NDArray[np.int64], NDArray[np.int64]]] = WeakKeyDictionary()
"""Ranges are tried many times, but weights do not change."""


def _tap_sums(op: Conv2d | Linear) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums of the positive and of the negative taps of every kernel, [G, O/G, I/G] each."""
    if op not in _TAP_SUMS:
        groups = op.groups if isinstance(op, Conv2d) else 1
        o, per_group = op.weight.array.shape[:2]
        taps = op.weight.array.astype(np.int64).reshape(groups, o // groups, per_group, -1)
        _TAP_SUMS[op] = np.maximum(taps, 0).sum(-1), np.minimum(taps, 0).sum(-1)
    return _TAP_SUMS[op]


def _require_int32(x: Range) -> None:
    if x.lo.min() < INT32_MIN or x.hi.max() > INT32_MAX:
        raise AccumulatorError(
            "a sum could leave its 32-bit accumulator", got=str(x), expected=f"within [{INT32_MIN}, {INT32_MAX}]"
        )


def _border_bias(op: BorderBias, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    return Range(inputs[0].lo + op.values.min(axis=(1, 2)), inputs[0].hi + op.values.max(axis=(1, 2)))


def _threshold(op: ThresholdOp, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    sign = op.sign.astype(np.int64)
    ends = [sign * inputs[0].lo, sign * inputs[0].hi]
    low, high = ((end[:, None] >= op.thresholds).sum(1) for end in (np.minimum(*ends), np.maximum(*ends)))
    levels = op.levels.astype(np.int64)
    if np.all(np.diff(levels) >= 0):
        return Range(levels[low], levels[high])
    reach = [levels[a : b + 1] for a, b in zip(low, high, strict=True)]
    return Range(np.array([r.min() for r in reach]), np.array([r.max() for r in reach]))


def _rescale(op: Rescale, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    # |x| <= 2^31, |multiplier| < 2^31 and |addend| <= 2^62: 64 bits suffice.
    ends = [np.clip((x * op.multiplier + op.addend) >> op.shift, op.lo, op.hi) for x in (inputs[0].lo, inputs[0].hi)]
    return Range(np.minimum(*ends), np.maximum(*ends))


def _add(_op: Add, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    a, b = inputs
    return Range(a.lo + b.lo, a.hi + b.hi)


def _clip(op: Clip, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    return inputs[0].map(op.evaluate)


def _sum_pool(op: SumPool, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    x = inputs[0].with_zero() if any(map(any, op.pads)) else inputs[0]
    return x.map(lambda end: end * op.area)


def _pad(op: Pad, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    x = inputs[0].with_zero() if any(map(any, op.pads[1:])) else inputs[0]
    return x.map(op.map_channels)


def _slice(op: Slice, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    return inputs[0].map(op.map_channels)


def _concat(op: Concat, inputs: Sequence[Range], _extents: tuple[int, ...]) -> Range:
    lows, highs = [x.lo for x in inputs], [x.hi for x in inputs]
    if op.axis == 0:
        return Range(np.concatenate(lows), np.concatenate(highs))
    return Range(np.min(lows, axis=0), np.max(highs, axis=0))


def _reshape(_op: Reshape, inputs: Sequence[Range], extents: tuple[int, ...]) -> Range:
    before, after = len(inputs[0].lo), extents[0]
    if after % before == 0:
        return inputs[0].map(lambda end: np.repeat(end, after // before))
    return inputs[0].hull().map(lambda end: np.full(after, end[0]))


_RULES: dict[str, Callable[..., Range]] = {
    "add": _add,
    "border_bias": _border_bias,
    "clip": _clip,
    "concat": _concat,
    "conv2d": _product,
    "linear": _product,
    "pad": _pad,
    "rescale": _rescale,
    "reshape": _reshape,
    "slice": _slice,
    "sum_pool": _sum_pool,
    "threshold": _threshold,
}
"""Op kind -> rule of section 7; max_pool keeps the range of its input."""
