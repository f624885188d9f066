"""Ranges as a file claims them and a reader proves them (docs/packed-format.md, sections 3 and 7).

A claim is a TensorType: shape and range per channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed.format import RANGE_STEPS
from qexport.errors import AccumulatorError
from qexport.ir import TensorType, integer
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import Conv2d, Linear, Op, Rescale, SumPool, Threshold

WIDEST = 2.0**62
"""Sums are computed in 64 bits here; what could leave those is far beyond 32 anyway."""


def hull(claim: TensorType) -> TensorType:
    """The same range for every channel."""
    return integer(claim.shape, int(claim.lo.min()), int(claim.hi.max()))


def coarse(claim: TensorType) -> TensorType:
    """The narrowest ranges per channel that a file can state and that hold these; the hull stays the same."""
    low, high = range_steps(claim)
    return stated(claim.shape, int(claim.lo.min()), int(claim.hi.max()), low, high)


def range_steps(claim: TensorType) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(low, high): where the range of each channel lies in the hull, in steps of the file."""
    lo, hi = int(claim.lo.min()), int(claim.hi.max())
    step = max(1, _step(lo, hi))
    return (claim.lo - lo) // step, -((lo - claim.hi) // step)


def stated(shape: tuple[int, ...], lo: int, hi: int, low: NDArray, high: NDArray) -> TensorType:
    """The claim that a record with `lo` and `hi` and its steps per channel stand for."""
    step = _step(lo, hi)
    return integer(shape, lo + step * low.astype(np.int64), np.minimum(lo + step * high.astype(np.int64), hi))


def _step(lo: int, hi: int) -> int:
    return -((lo - hi) // RANGE_STEPS)


def contains(claim: TensorType, found: TensorType) -> bool:
    return bool(np.all(claim.lo <= found.lo) and np.all(found.hi <= claim.hi))


def result_range(op: Op, claims: Sequence[TensorType]) -> TensorType:
    """Range of the result, recomputed from claims for the inputs; accumulators are proven on the way.

    For all but the operators below this is the type rule of the IR.

    Raises:
        AccumulatorError: a sum could leave 32 bits.
        GraphError: shapes do not fit.
    """
    rule = _RULES.get(op.kind)
    return op.infer(*claims) if rule is None else rule(op, claims[0])


def _product(op: Conv2d | Linear, x: TensorType) -> TensorType:
    """A convolution's sums may be taken in any order and start at zero: inputs are widened to contain it."""
    padded = isinstance(op, Conv2d) and any(map(any, op.pads))
    shape = op.output_shape(x) if isinstance(op, Conv2d) else op.weight.array.shape[:1]
    positive, negative = _tap_sums(op)
    if (positive - negative).sum(-1).max() * max(x.max_abs, 1.0) > WIDEST:
        raise AccumulatorError("a layer could overflow even 64 bits", got=str(op.weight))

    def sums(lo: NDArray[np.int64], hi: NDArray[np.int64]) -> TensorType:
        lo, hi = lo.reshape(len(positive), 1, -1), hi.reshape(len(positive), 1, -1)
        low, high = positive * lo + negative * hi, positive * hi + negative * lo
        return integer(shape, low.sum(-1).reshape(-1), high.sum(-1).reshape(-1))

    accumulator = sums(np.minimum(x.lo, 0), np.maximum(x.hi, 0))
    if accumulator.lo.min() < INT32_MIN or accumulator.hi.max() > INT32_MAX:
        raise AccumulatorError(
            "a sum could leave its 32-bit accumulator",
            got=f"values in [{accumulator.lo.min()}, {accumulator.hi.max()}]",
            expected=f"within [{INT32_MIN}, {INT32_MAX}]",
        )
    return accumulator if padded else sums(x.lo, x.hi)


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


def _rescale(op: Rescale, x: TensorType) -> TensorType:
    # The IR asks for sums below 2**62; here |x| <= 2**31, |multiplier| < 2**31, |addend| <= 2**62: 64 bits suffice.
    ends = [np.clip((end * op.multiplier + op.addend) >> op.shift, op.lo, op.hi) for end in (x.lo, x.hi)]
    return integer(x.shape, np.minimum(*ends), np.maximum(*ends))


def _sum_pool(op: SumPool, x: TensorType) -> TensorType:
    factor = max(map(max, op.factors)) ** 2 if op.factors else 1
    if float(op.area) * factor * x.max_abs > WIDEST:
        raise AccumulatorError("a pooled sum could overflow even 64 bits", got=str(op))
    return op.infer(x)


def _threshold(op: Threshold, x: TensorType) -> TensorType:
    if np.any(op.sign < 0) and x.lo.min() == INT32_MIN:
        raise AccumulatorError("the negative of a value could leave 32 bits", got=str(x))
    return op.infer(x)


_RULES: dict[str, Callable[..., TensorType]] = {
    "conv2d": _product,
    "linear": _product,
    "rescale": _rescale,
    "sum_pool": _sum_pool,
    "threshold": _threshold,
}
"""Op kind -> rule (op, claim) that differs from the type rule of the IR."""
