"""Inferred ranges are sound for every op, and tight where an op says so; shapes are those that evaluation gives."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qexport.errors import AccumulatorError, GraphError
from qexport.ir import TensorType, integer, real
from qexport.ops import (
    REGISTRY,
    Add,
    Affine,
    AvgPool,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Rescale,
    Reshape,
    Slice,
    Step,
    SumPool,
    Threshold,
    Transpose,
    Weight,
)
from qexport.stepfunction import StepFunction

SHAPE = (4, 5, 6)
TIGHT = (
    "conv2d",
    "linear",
    "affine",
    "clip",
    "prelu",
    "step",
    "threshold",
    "rescale",
    "slice",
    "reshape",
    "transpose",
    "concat",
    "max_pool",
    "sum_pool",
    "avg_pool",
)


def fractions(rng: np.random.Generator, n: int = 4, low: float = -2.0) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)) for v in rng.uniform(low, 2, n))


def plain(rng: np.random.Generator, *shape: int) -> Weight:
    return Weight(rng.integers(-4, 5, shape).astype(np.int32))


def floats(rng: np.random.Generator, *shape: int) -> Weight:
    return Weight(rng.normal(0, 1, shape))


def steps(rng: np.random.Generator) -> StepFunction:
    return StepFunction.from_values(np.unique(rng.normal(0, 4, 3).astype(np.float32)), np.float32([-1, 0, 2, 4]))


def thresholds(rng: np.random.Generator) -> Threshold:
    sign = rng.choice(np.array([-1, 1], np.int8), 4)
    return Threshold(np.sort(rng.integers(-20, 20, (4, 3)), axis=1), sign, np.array([-4, 0, 1, 4], np.int32))


MAKERS = {
    "add": [lambda r, integers: Add()],
    "concat": [lambda r, integers: Concat(), lambda r, integers: Concat(2)],
    "clip": [
        lambda r, integers: Clip(int(r.integers(-5, 0)), int(r.integers(0, 5))),
        lambda r, integers: Clip(0, None),
    ],
    "conv2d": [
        lambda r, i: Conv2d((plain if i else floats)(r, 4, 4, 3, 3), (2, 1), ((1, 0), (2, 1)), (1, 2)),
        lambda r, i: Conv2d((plain if i else floats)(r, 6, 2, 2, 3), (1, 2), ((0, 0), (0, 0)), (1, 1), 2),
        lambda r, i: Conv2d((plain if i else floats)(r, 4, 1, 1, 1), groups=4),
    ],
    "max_pool": [
        lambda r, i: MaxPool((2, 2), (2, 2)),
        lambda r, i: MaxPool((3, 3), (2, 1), ((1, 1), (1, 0))),
        lambda r, i: MaxPool((2, 3), (1, 2), ((1, 0), (1, 2)), (2, 2)),
    ],
    "pad": [lambda r, i: Pad(((1, 2), (0, 0), (0, 0))), lambda r, i: Pad(((0, 0), (2, 1), (0, 3)))],
    "slice": [lambda r, i: Slice(((1, 4, 2), (0, 5, 2), (2, 6, 3)))],
    "reshape": [
        lambda r, i: Reshape(SHAPE, (120,)),
        lambda r, i: Reshape(SHAPE, (20, 6)),
        lambda r, i: Reshape(SHAPE, SHAPE),
        lambda r, i: Reshape(SHAPE, (6, 20)),
        lambda r, i: Reshape(SHAPE, (2, 2, 30)),
        lambda r, i: Reshape(SHAPE, (1, 120)),
    ],
    "transpose": [lambda r, i: Transpose(SHAPE, (1, 2, 0)), lambda r, i: Transpose(SHAPE, (0, 2, 1))],
    "l2_norm": [lambda r, i: L2Norm() if i else L2Norm(Fraction(1, 8), Fraction(1, 64))],
    "border_bias": [
        lambda r, i: BorderBias(
            r.integers(-9, 9, (4, 3, 2)) if i else r.normal(0, 1, (4, 3, 2)),
            np.array([0, 1, 1, 1, 2]),
            np.array([0, 1, 1, 1, 1, 1]),
        )
    ],
    "affine": [lambda r, i: Affine(fractions(r), fractions(r))],
    "prelu": [lambda r, i: PRelu(fractions(r, low=0.0))],
    "step": [lambda r, i: Step(steps(r))],
    "avg_pool": [
        lambda r, i: AvgPool((2, 3), (1, 2)),
        lambda r, i: AvgPool((3, 3), (2, 2), ((1, 1), (1, 1))),
        lambda r, i: AvgPool((3, 3), (2, 2), ((1, 1), (1, 2)), ((2, 3, 2), (2, 3, 3, 1))),
    ],
    "sum_pool": [
        lambda r, i: SumPool((2, 3), (1, 2)),
        lambda r, i: SumPool((3, 3), (2, 2), ((1, 1), (0, 1))),
        lambda r, i: SumPool((3, 3), (2, 2), ((1, 1), (1, 1)), ((3, 2, 3), (3, 2, 2))),
    ],
    "threshold": [lambda r, i: thresholds(r)],
    "rescale": [
        lambda r, i: Rescale(r.integers(-900, 900, 4), r.integers(-9000, 9000, 4), 7, -100, 90),
        lambda r, i: Rescale(np.array([3]), np.array([-2]), 0),
    ],
    "linear": [lambda r, i: Linear((plain if i else floats)(r, 5, 120))],
}
TABLE = [
    (kind, number, integers)
    for kind, makers in MAKERS.items()
    for number in range(len(makers))
    for integers in (False, True)
    if REGISTRY[kind].domain in ("any", "integer" if integers else "real")
]


def test_every_op_is_in_the_table() -> None:
    assert sorted(MAKERS) == sorted(REGISTRY)


def types_for(kind: str, rng: np.random.Generator, integers: bool) -> list[TensorType]:
    found = []
    for _ in range(2 if kind in ("add", "concat") else 1):
        shape = (120,) if kind == "linear" else SHAPE
        lo = rng.integers(-20, 15, shape[0])
        hi = lo + rng.integers(0, 20, shape[0])
        found.append(integer(shape, lo, hi) if integers else real(shape, lo / 4, hi / 4))
    return found


def sample(rng: np.random.Generator, t: TensorType, corners: bool) -> NDArray:
    """Values within a type; with `corners` only the ends of each channel's range."""
    trailing = (1,) * (len(t.shape) - 1)
    lo, hi = (v.reshape(-1, *trailing) for v in (t.lo, t.hi))
    size = (6, *t.shape)
    if corners:
        values = np.where(rng.random(size) < 0.5, lo, hi)
        values[0], values[1] = lo, hi
        return values
    return rng.integers(lo, hi + 1, size) if t.is_integer else rng.uniform(lo, hi, size)


@pytest.mark.parametrize(("kind", "number", "integers"), TABLE)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_range_is_sound(kind: str, number: int, integers: bool, seed: int) -> None:
    """No value within the input range gives one outside the inferred range, of another shape or number type."""
    rng = np.random.default_rng(seed)
    op: Op = MAKERS[kind][number](rng, integers)
    inputs = types_for(kind, rng, integers)
    out = op.infer(*inputs)
    for corners in (True, False):
        value = op.evaluate(*(sample(rng, t, corners) for t in inputs))
        assert value.shape[1:] == out.shape
        assert value.dtype.kind == ("i" if integers else "f")
        axes = tuple(a for a in range(value.ndim) if a != 1)
        slack = 0 if integers else 1e-12
        assert np.all(value.min(axes) >= out.lo - slack * (1 + np.abs(out.lo)))
        assert np.all(value.max(axes) <= out.hi + slack * (1 + np.abs(out.hi)))
    if integers:
        assert out.number is not None
        assert out.number.min <= out.lo.min()
        assert out.hi.max() <= out.number.max


@pytest.mark.parametrize(("kind", "number", "integers"), [row for row in TABLE if row[0] in TIGHT])
def test_range_is_reached(kind: str, number: int, integers: bool) -> None:
    """The inferred ends are attained by some input within the range."""
    rng = np.random.default_rng(7)
    op: Op = MAKERS[kind][number](rng, integers)
    inputs = types_for(kind, rng, integers)
    out = op.infer(*inputs)
    values = [op.evaluate(*(x for x in worst)) for worst in _extremes(op, inputs, out, integers)]
    lowest = np.min([v.min(tuple(a for a in range(v.ndim) if a != 1)) for v in values], axis=0)
    highest = np.max([v.max(tuple(a for a in range(v.ndim) if a != 1)) for v in values], axis=0)
    if integers and not isinstance(op, Conv2d):
        assert np.array_equal(lowest, out.lo)
        assert np.array_equal(highest, out.hi)
    elif not (
        isinstance(op, Conv2d) and any(map(any, op.pads))
    ):  # with padding zero joins, which a border may not allow
        assert np.allclose(lowest, out.lo, rtol=1e-12, atol=1e-12)
        assert np.allclose(highest, out.hi, rtol=1e-12, atol=1e-12)


def _extremes(op: Op, inputs: list[TensorType], out: TensorType, integers: bool) -> list[list[NDArray]]:
    """Inputs at both ends; for layers, the ends chosen by the sign of each output channel's weights."""
    ends = [[np.broadcast_to(v.reshape(-1, *(1,) * (len(t.shape) - 1)), (1, *t.shape)) for t in inputs] for v in ()]
    for side in ("lo", "hi"):
        ends.append([_full(t, getattr(t, side)) for t in inputs])
    if isinstance(op, Linear):
        weight, t = op.weight.array, inputs[0]
        for row in weight:
            ends += [[np.where(row > 0, t.hi, t.lo)[None]], [np.where(row > 0, t.lo, t.hi)[None]]]
    if isinstance(op, Conv2d) and not any(map(any, op.pads)):
        t = inputs[0]
        o, per_group, kh, kw = op.weight.array.shape
        for c in range(o):
            first = c // (o // op.groups) * per_group
            for up in (True, False):
                x = _full(t, t.lo).copy()
                for i in range(per_group):
                    pick = (op.weight.array[c, i] > 0) == up
                    x[0, first + i, :kh, :kw] = np.where(pick, t.hi[first + i], t.lo[first + i])
                ends.append([x])
    return ends


def _full(t: TensorType, per_channel: NDArray) -> NDArray:
    return np.broadcast_to(per_channel.reshape(-1, *(1,) * (len(t.shape) - 1)), (1, *t.shape))


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        (Add(), [integer((1,), 0, 2**30), integer((1,), 0, 2**30)]),
        (Linear(Weight(np.full((1, 8), 2**20, np.int32))), [integer((8,), 0, 256)]),
        (Linear(Weight(np.full((1, 8), -(2**20), np.int32))), [integer((8,), 0, 257)]),
        (Linear(Weight(np.full((1, 8), 2**30, np.int32))), [integer((8,), 0, 2**31 - 1)]),
        (Conv2d(Weight(np.full((1, 4, 3, 3), 2**16, np.int32))), [integer((4, 3, 3), 0, 2**15)]),
        (SumPool((4, 4), (1, 1)), [integer((1, 4, 4), 0, 2**27)]),
        (SumPool((4, 4), (1, 1), factors=((2,), (2,))), [integer((1, 4, 4), 0, 2**25)]),
        (L2Norm(), [integer((4, 2), -(2**30), 0)]),
        (
            BorderBias(np.full((1, 1, 1), 2), np.zeros(1, np.int64), np.zeros(1, np.int64)),
            [integer((1, 1, 1), 0, 2**31 - 2)],
        ),
        (Rescale(np.array([2**31 - 1]), np.array([0]), 8), [integer((1,), 0, 2**32)]),
        (Rescale(np.array([2]), np.array([0]), 0), [integer((1,), 0, 2**30)]),
        (Rescale(np.array([2**31]), np.array([0]), 31), [integer((1,), 0, 1)]),
    ],
)
def test_overflow_is_refused(op: Op, inputs: list[TensorType]) -> None:
    """One over int32 (or 2^62 inside a rescale) is an error, never a wrap, int64 included."""
    with pytest.raises(AccumulatorError, match="overflow"):
        op.infer(*inputs)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        (Add(), [integer((1,), 0, 2**30), integer((1,), 0, 2**30 - 1)]),
        (Linear(Weight(np.full((1, 8), 2**20, np.int32))), [integer((8,), -256, 255)]),
        (SumPool((4, 4), (1, 1)), [integer((1, 4, 4), -(2**27), 2**27 - 1)]),
        (SumPool((4, 4), (1, 1), factors=((2,), (2,))), [integer((1, 4, 4), -(2**25), 2**25 - 1)]),
        (Rescale(np.array([2]), np.array([1]), 0), [integer((1,), -(2**30) + 1, 2**30 - 1)]),
    ],
)
def test_exactly_int32_is_allowed(op: Op, inputs: list[TensorType]) -> None:
    out = op.infer(*inputs)
    assert max(-int(out.lo[0]), int(out.hi[0])) >= 2**31 - 16


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (Add(), [integer((2,), 0, 1), integer((3,), 0, 1)], "operands of an addition differ"),
        (Add(), [integer((2,), 0, 1), real((2,), 0, 1)], "operands of an addition differ"),
        (Concat(), [integer((2, 3, 3), 0, 1), integer((2, 3, 4), 0, 1)], "operands of a concatenation differ"),
        (Affine((Fraction(1),), (Fraction(0),)), [real((2,), 0, 1)], "affine parameters do not fit"),
        (Slice(((0, 3, 1),)), [integer((2,), 0, 1)], "a slice leaves its tensor"),
        (Slice(((0, 2, 1),)), [integer((2, 2, 2), 0, 1)], "one range per axis"),
        (Reshape((4, 2), (2, 3)), [integer((4, 2), 0, 1)], "a reshape does not fit its input"),
        (Reshape((4, 2), (8,)), [integer((2, 4), 0, 1)], "a reshape does not fit its input"),
        (Transpose((4, 2), (0, 0)), [integer((4, 2), 0, 1)], "a transpose does not fit its input"),
        (Transpose((4, 2), (1, 0)), [integer((2, 4), 0, 1)], "a transpose does not fit its input"),
        (Concat(2), [integer((4, 2), 0, 1)], "needs an axis of its operands"),
        (Concat(1), [integer((4, 2), 0, 1), integer((3, 2), 0, 1)], "operands of a concatenation differ"),
        (L2Norm(floor=Fraction(1)), [integer((4, 2), 0, 1)], "an integer norm has no smallest value"),
        (MaxPool((2, 2), (1, 1)), [integer((4,), 0, 1)], "pooling needs channels, rows and columns"),
        (MaxPool((3, 1), (1, 1), ((1, 3), (0, 0)), (2, 1)), [integer((2, 1, 4), 0, 1)], "holds padding only"),
        (SumPool((2, 2), (1, 1), factors=((1,), (1, 1))), [integer((1, 3, 3), 0, 1)], "one positive integer per"),
        (AvgPool((2, 2), (1, 1), divisors=((1, 0), (1, 1))), [real((1, 3, 3), 0, 1)], "one positive integer per"),
        (Linear(Weight(np.ones((2, 3), np.int32))), [integer((4,), 0, 1)], "input features do not fit"),
        (Linear(Weight(np.ones((2, 4)))), [integer((4,), 0, 1)], "needs plain integer weights"),
        (Conv2d(Weight(np.ones((2, 4, 1, 1)))), [integer((4, 2, 2), 0, 1)], "needs plain integer weights"),
        (Conv2d(Weight(np.ones((2, 3, 1, 1), np.int32))), [integer((4, 2, 2), 0, 1)], "input channels do not fit"),
        (Conv2d(Weight(np.ones((2, 4, 3, 3), np.int32))), [integer((4, 2, 2), 0, 1)], "a window is larger"),
        (MaxPool((3, 3), (1, 1)), [integer((4, 2, 2), 0, 1)], "a window is larger"),
        (Clip(Fraction(1, 2), None), [integer((2,), 0, 1)], "an integer clip needs integer bounds"),
        (
            Threshold(np.array([[2, 1]]), np.ones(1, np.int8), np.arange(3, dtype=np.int32)),
            [integer((2,), 0, 1)],
            "ascend",
        ),
        (
            Threshold(np.array([[1, 2]]), np.ones(1, np.int8), np.arange(2, dtype=np.int32)),
            [integer((2,), 0, 1)],
            "do not fit",
        ),
        (
            Threshold(np.array([[2**31]]), np.ones(1, np.int8), np.arange(2, dtype=np.int32)),
            [integer((2,), 0, 1)],
            "fit int32",
        ),
        (
            Rescale(np.ones(3, np.int64), np.ones(3, np.int64), 1),
            [integer((2,), 0, 1)],
            "rescale parameters do not fit",
        ),
        (
            BorderBias(np.zeros((1, 1, 1)), np.zeros(2, np.int64), np.zeros(2, np.int64)),
            [real((1, 3, 3), 0, 1)],
            "does not fit",
        ),
    ],
)
def test_misfit_is_refused(op: Op, inputs: list[TensorType], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer(*inputs)


def test_step_range_counts_reachable_levels_only() -> None:
    step = Step(StepFunction.from_values(np.float32([-1, 0, 1]), np.float32([-2, -1, 0, 1])))
    out = step.infer(real((3,), np.array([-5.0, -1.0, 0.0]), np.array([-1.1, 0.5, 5.0])))
    assert (out.lo.tolist(), out.hi.tolist()) == ([-2, -1, 0], [-2, 0, 1])


@pytest.mark.parametrize(
    ("op", "channels"),
    [(Transpose((3, 2), (1, 0)), 2), (Reshape((3, 2), (2, 3)), 2), (Reshape((3, 2), (1, 6)), 1), (Concat(1), 3)],
)
def test_mixed_channels(op: Op, channels: int) -> None:
    """A per-channel quantity passes an op that joins channels only where the joined channels agree."""
    assert op.mixes_channels
    same, different = np.array([7, 7, 7]), np.array([7, 8, 9])
    operands = 2 if isinstance(op, Concat) else 1
    assert op.map_channels(*[same] * operands).tolist() == [7] * channels
    with pytest.raises(GraphError, match="joins channels that differ"):
        op.map_channels(*(same, different)[-operands:])


def test_channels_that_stay_apart() -> None:
    values = np.array([1, 2, 3, 4])
    assert not Reshape((4, 6), (8, 3)).mixes_channels
    assert Reshape((4, 6), (8, 3)).map_channels(values).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert Reshape((4, 1), (2, 2)).map_channels(np.array([1, 1, 2, 2])).tolist() == [1, 2]
    assert Transpose((4, 2, 3), (0, 2, 1)).map_channels(values).tolist() == [1, 2, 3, 4]
    assert Concat().map_channels(values, values[:1]).tolist() == [1, 2, 3, 4, 1]
