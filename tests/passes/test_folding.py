"""Folded thresholds give, for every reachable integer, the code of the exact real chain."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qexport.errors import GraphError
from qexport.ir import TensorType, integer
from qexport.ops import Affine, Clip, Op, PRelu, Threshold
from qexport.passes.folding import fold_thresholds
from qexport.passes.pending import Pending, rationals
from qexport.stepfunction import StepFunction

DYADIC = st.builds(Fraction, st.integers(-64, 64), st.sampled_from([1, 2, 4, 16, 256]))
NASTY = st.sampled_from([0.0, 1e-30, -1e-30, 1e30, -1e30, 0.1, -0.1, 1 / 3, 1e-7, -1e-7, 5e-324, 1.0]).map(Fraction)
REAL = DYADIC | NASTY | st.floats(-100, 100).map(Fraction)
THRESHOLD = (
    st.sampled_from([-np.inf, np.inf, 1e-45, -1e-45, 0.0, 1e-38, 3e38, 0.1, 0.5])
    | st.integers(-16, 16).map(lambda n: n / 8)
    | st.floats(-50, 50, width=32)
)


def function(thresholds: list[float]) -> StepFunction:
    """Steps at the given thresholds; the values are the levels 0..n."""
    sorted_thresholds = np.unique(np.array(thresholds, np.float32) + np.float32(0))  # one zero
    return StepFunction.from_values(sorted_thresholds, np.arange(sorted_thresholds.size + 1, dtype=np.float32))


@st.composite
def chains(draw: st.DrawFn, channels: int) -> tuple[Op, ...]:
    chain: list[Op] = []
    for kind in draw(st.lists(st.sampled_from(["relu", "clip", "prelu", "affine"]), max_size=3)):
        if kind == "relu":
            chain.append(Clip(Fraction(0), None))
        elif kind == "clip":
            lo, hi = sorted([draw(DYADIC), draw(DYADIC)])
            chain.append(Clip(draw(st.sampled_from([lo, None])), hi))
        elif kind == "prelu":
            chain.append(PRelu(tuple(abs(draw(REAL)) for _ in range(channels))))
        else:
            chain.append(Affine(tuple(draw(REAL) for _ in range(channels)), tuple(draw(REAL) for _ in range(channels))))
    return tuple(chain)


def exact_levels(pending: Pending, step: StepFunction, channel: int, n: int) -> int:
    """Straight from the definition, without the library's `Pending.value`."""
    v = pending.gain[channel] * n + pending.bias[channel]
    for op in pending.chain:
        if isinstance(op, Affine):
            v = op.gain[channel] * v + op.bias[channel]
        elif isinstance(op, PRelu):
            v = v if v >= 0 else v * op.slope[channel]
        else:
            assert isinstance(op, Clip)
            v = max(v, op.lo) if op.lo is not None else v
            v = min(v, op.hi) if op.hi is not None else v
    return int(sum((t == -np.inf) or (t != np.inf and v >= Fraction(t)) for t in step.thresholds.tolist()))


def check_every_integer(pending: Pending, step: StepFunction, x: TensorType) -> Threshold:
    op = fold_thresholds(pending, step, x)
    assert op.thresholds.shape[0] in (1, x.channels)
    low, high = int(x.lo.min()), int(x.hi.max())
    n = np.arange(low, high + 1)
    produced = op.evaluate(np.broadcast_to(n[:, None], (n.size, x.channels)))
    for c in range(x.channels):
        for i, k in enumerate(n.tolist()):
            if x.lo[c] <= k <= x.hi[c]:
                assert produced[i, c] == exact_levels(pending, step, c, k), (c, k)
    return op


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_reachable_integer(data: st.DataObject) -> None:
    channels = data.draw(st.integers(1, 3))
    gain = rationals([data.draw(REAL) for _ in range(channels)])
    bias = rationals([data.draw(REAL) for _ in range(channels)])
    lo = np.array([data.draw(st.integers(-40, 10)) for _ in range(channels)])
    hi = lo + np.array([data.draw(st.integers(0, 40)) for _ in range(channels)])
    step = function(data.draw(st.lists(THRESHOLD, min_size=1, max_size=6)))
    x = integer((channels,), lo, hi)
    op = check_every_integer(Pending("x", gain, bias, data.draw(chains(channels))), step, x)
    _check_canonical(op, x)


def _check_canonical(op: Threshold, x: TensorType) -> None:
    """Ascending, within [min, max + 1] of the compared integer; unreachable steps at max + 1, certain ones at min."""
    rows = np.broadcast_to(op.thresholds, (x.channels, op.thresholds.shape[1]))
    sign = np.broadcast_to(op.sign, (x.channels,)).astype(np.int64)
    first, last = np.sort(np.stack([sign * x.lo, sign * x.hi]), axis=0)
    assert np.all(rows[:, 1:] >= rows[:, :-1])
    if op.thresholds.shape[0] == x.channels:
        assert np.all(rows >= first[:, None])
        assert np.all(rows <= last[:, None] + 1)


@pytest.mark.parametrize("gain", [Fraction(1, 8), Fraction(-1, 8)])
def test_tie_belongs_to_the_upper_step(gain: Fraction) -> None:
    """v == t counts as reached, on either side of zero gain; a value one step short does not."""
    pending = Pending("x", rationals([gain]), rationals([Fraction(1, 4)]))
    op = fold_thresholds(pending, function([0.5, 1.0]), integer((1,), -100, 100))
    reached = op.evaluate(np.array([[2], [1], [6], [5]]) * int(np.sign(gain)))
    assert reached.tolist() == [[1], [0], [2], [1]]
    assert op.sign.tolist() == [int(np.sign(gain))]


def test_neighbours_of_a_float32_threshold() -> None:
    """0.1 as float32 is above one tenth: the accumulator of exactly one tenth is not there yet."""
    pending = Pending("x", rationals([Fraction(1, 10)]), rationals([Fraction(0)]))
    op = fold_thresholds(pending, function([0.1]), integer((1,), -5, 5))
    assert op.thresholds.tolist() == [[2]]
    exact = Pending("x", rationals([Fraction(float(np.float32(0.1)))]), rationals([Fraction(0)]))
    assert fold_thresholds(exact, function([0.1]), integer((1,), -5, 5)).thresholds.tolist() == [[1]]


def test_float64_bisection_is_corrected() -> None:
    """A bias that swallows the gain in float64: only rationals see the step."""
    pending = Pending("x", rationals([Fraction(1, 2**40)]), rationals([Fraction(2**20) - Fraction(3, 2**40)]))
    op = fold_thresholds(pending, function([float(2**20)]), integer((1,), -1000, 1000))
    assert op.thresholds.tolist() == [[3]]


@pytest.mark.parametrize(("bias", "expected"), [(Fraction(1), -7), (Fraction(0), 8)])
def test_constant_channel(bias: Fraction, expected: int) -> None:
    """Zero gain: certain steps sit at the smallest integer, impossible ones one above the largest."""
    pending = Pending("x", rationals([Fraction(0)]), rationals([bias]))
    assert fold_thresholds(pending, function([0.5]), integer((1,), -7, 7)).thresholds.tolist() == [[expected]]


def test_infinite_thresholds() -> None:
    pending = Pending("x", rationals([Fraction(1), Fraction(-1)]), rationals([Fraction(0), Fraction(0)]))
    op = fold_thresholds(pending, function([-np.inf, 0.0, np.inf]), integer((2,), -7, 7))
    assert op.thresholds.tolist() == [[-7, 0, 8], [-7, 0, 8]]
    assert op.sign.tolist() == [1, -1]


def test_falling_levels_keep_their_order() -> None:
    """A quantizer that falls: codes rise, the levels they stand for fall."""
    step = StepFunction.from_values(np.float32([0.0, 1.0]), np.float32([1.0, 0.0, -1.0]))
    op = fold_thresholds(Pending("x", rationals([Fraction(1)]), rationals([Fraction(0)])), step, integer((1,), -2, 2))
    assert op.evaluate(np.array([[-1], [0], [1]])).tolist() == [[1], [0], [-1]]


def test_shared_row_only_where_channels_agree() -> None:
    same = Pending("x", rationals([Fraction(1)], 4), rationals([Fraction(0)], 4))
    assert fold_thresholds(same, function([0.5]), integer((4,), -7, 7)).thresholds.shape == (1, 1)
    turned = Pending("x", same.gain * np.array([1, 1, -1, 1]), same.bias)
    assert fold_thresholds(turned, function([0.5]), integer((4,), -7, 7)).thresholds.shape == (4, 1)


@pytest.mark.parametrize("gain", [1, -1])
def test_int32_range(gain: int) -> None:
    """Thresholds are found over the whole of int32 ..."""
    x = integer((1,), -(2**31) + 2, 2**31 - 2)
    pending = Pending("x", rationals([Fraction(gain, 2**31)]), rationals([Fraction(0)]))
    op = fold_thresholds(pending, function([0.5, 2.0]), x)
    assert op.thresholds.tolist() == [[2**30, 2**31 - 1]]
    op.infer(x)


def test_threshold_beyond_int32_is_refused() -> None:
    """... and one that int32 cannot hold is no valid op, instead of a wrap in a backend."""
    x = integer((1,), -(2**31), 2**31 - 1)
    op = fold_thresholds(Pending("x", rationals([Fraction(1)]), rationals([Fraction(0)])), function([3e38]), x)
    assert op.thresholds.tolist() == [[2**31]]
    with pytest.raises(GraphError, match="thresholds must fit int32"):
        op.infer(x)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=0)
def test_wide_layer_at_its_thresholds(seed: int) -> None:
    """Many channels and steps over a wide range: T is reached and T - 1 is not, in exact rationals."""
    rng = np.random.default_rng(seed)
    channels = 32
    gain = rationals([Fraction(float(g)) for g in rng.normal(0, 1e-3, channels)])
    bias = rationals([Fraction(float(g)) for g in rng.normal(0, 1, channels)])
    step = function(rng.normal(0, 2, 15).tolist())
    x = integer((channels,), -(2**20), 2**20)
    pending = Pending("x", gain, bias, (Clip(Fraction(-3), None),))
    op = fold_thresholds(pending, step, x)
    for c in range(channels):
        for i, t in enumerate(op.thresholds[c].tolist()):
            if t <= 2**20:
                assert exact_levels(pending, step, c, t * int(op.sign[c])) > i
            if t > -(2**20):
                assert exact_levels(pending, step, c, (t - 1) * int(op.sign[c])) <= i
