"""Rescale, Add, Clip and BorderBias equal the interpreter, up to the edges of int32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import run_all_tensors
from qexport.errors import AccumulatorError
from qexport.ir import Graph, integer
from qexport.ops import Add, BorderBias, Clip, Rescale
from qexport.reference import interpret

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def samples(rng: np.random.Generator, lo: int, hi: int, channels: int, count: int = 50) -> np.ndarray:
    """[count, channels, 1, 1] random values of a range with both ends and the neighbours of zero."""
    x = rng.integers(lo, hi + 1, (count, channels, 1, 1))
    for row, value in enumerate((lo, hi, -1, 0, 1)):
        x[row] = np.clip(value, lo, hi)
    return x


RESCALES = {
    "shift_free": ([3, -2, 1], [5, 0, -7], 0, -(10**6), 10**6),
    "shift_free_identity": ([1], [0], 0, -100, 100),
    "shift_free_wide_product": ([2**20, 1, 1], [-(2**31), 0, 0], 0, 2048, 3000),
    "narrow_shift": ([7, -9, 1], [3, 0, 2], 4, -1000, 1000),
    "nonnegative": ([7, 9, 1], [3, 0, 2], 4, 0, 1000),
    "wide_shift": ([2**30, -(2**30), 12345], [2**33, 1, -(2**33)], 34, -(2**20), 2**20),
    "shared": ([2**30 + 1], [2**39], 40, INT32_MIN, INT32_MAX),
    "full_int32": ([2**30, -(2**30), 2**30], [2**30, 2**30, 0], 31, INT32_MIN, INT32_MAX),
    "largest_shift": ([2**30, -(2**30), 1], [0, 5, -5], 62, INT32_MIN, INT32_MAX),
    "grows_past_int32": ([2**20, -(2**20), 2**10], [0, 0, 0], 1, INT32_MIN, INT32_MAX),
    "far_past_int32": ([2**31 - 1, -(2**31 - 1), 2**30], [0, 5, -5], 3, -(2**28), 2**28),
    "half_steps": ([1], [2], 2, -50, 50),
}


@pytest.mark.parametrize("name", RESCALES)
@pytest.mark.parametrize(("low", "high"), [(INT32_MIN, INT32_MAX), (-128, 127), (0, 255), (-3, 100000)])
def test_rescale(check_equal, one_op, rng, name, low, high):
    m, r, shift, lo, hi = RESCALES[name]
    op = Rescale(np.array(m, np.int64), np.array(r, np.int64), shift, low, high)
    check_equal(one_op(op, (3, 1, 1), lo, hi), {"x": samples(rng, lo, hi, 3)})


def test_rescale_features(check_equal, one_op, rng):
    """Tensors [N, F] with one multiplier per feature."""
    op = Rescale(np.array([3, 5, -7], np.int64), np.array([1, 2, 3], np.int64), 3)
    check_equal(one_op(op, (3,), -500, 500), {"x": samples(rng, -500, 500, 3)[:, :, 0, 0]})


def test_rescale_beyond_64_bits_is_refused(one_op):
    """Sums over the whole of +-2**62 cannot be made non-negative in 64 bits."""
    op = Rescale(np.array([2**31 - 1], np.int64), np.array([-(2**31)], np.int64), 62)
    graph = one_op(op, (1, 1, 1), -(2**31) + 2, 2**31 - 1)
    to_onnx(graph, metadata={})  # just fits
    op = Rescale(np.array([0], np.int64), np.array([2**62], np.int64), 62)
    to_onnx(one_op(op, (1, 1, 1), 0, 1), metadata={})
    op = Rescale(np.array([0, 0], np.int64), np.array([2**62, -(2**62)], np.int64), 1)
    with pytest.raises(AccumulatorError, match="leaves 64 bits"):
        to_onnx(one_op(op, (2, 1, 1), 0, 1), metadata={})


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_rescale(data):
    bound = st.integers(INT32_MIN, INT32_MAX)
    lo, hi = sorted((data.draw(bound), data.draw(bound)))
    low, high = sorted((data.draw(bound), data.draw(bound)))
    multiplier = data.draw(st.lists(st.integers(-INT32_MAX, INT32_MAX), min_size=2, max_size=2))
    addend = data.draw(st.lists(st.integers(-(2**61), 2**61), min_size=2, max_size=2))
    shift = data.draw(st.integers(1, 62))
    op = Rescale(np.array(multiplier, np.int64), np.array(addend, np.int64), shift, low, high)
    graph = Graph()
    graph.add_input("x", integer((2, 1, 1), lo, hi))
    try:
        graph.add("y", op, "x")
        graph.outputs = ["y"]
        model = to_onnx(graph, metadata={})
    except AccumulatorError:
        assume(False)
    feeds = {"x": samples(np.random.default_rng(0), lo, hi, 2)}
    np.testing.assert_array_equal(run_all_tensors(model, feeds)["y"], interpret(graph, feeds).outputs["y"])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((-4, 4), (0, 3)),
        ((0, 127), (0, 127)),
        ((100, 110), (-100, -90)),
        ((0, 255), (-255, 0)),
        ((0, 255), (-5, 5)),
        ((-(2**30), 2**30), (-(2**30), 2**30 - 1)),
    ],
)
def test_add(check_equal, rng, first, second):
    graph = Graph()
    graph.add_input("a", integer((3, 1, 1), *first))
    graph.add_input("b", integer((3, 1, 1), *second))
    graph.add("y", Add(), "a", "b")
    graph.add("z", Add(), "y", "y") if abs(second[0]) < 2**20 else None
    graph.outputs = [graph.nodes[-1].name]
    check_equal(graph, {"a": samples(rng, *first, 3), "b": samples(rng, *second, 3)})


@pytest.mark.parametrize("bounds", [(0, None), (None, 6), (0, 6), (None, None), (-300, 300), (300, 400), (-9, -3)])
@pytest.mark.parametrize("span", [(-128, 127), (0, 255), (-(10**6), 10**6)])
def test_clip(check_equal, one_op, rng, bounds, span):
    check_equal(one_op(Clip(*bounds), (3, 1, 1), *span), {"x": samples(rng, *span, 3)})


@pytest.mark.parametrize("span", [(0, 3), (0, 255), (-(10**9), 10**9)])
def test_border_bias(check_equal, one_op, rng, span):
    values = rng.integers(-50000, 50000, (3, 3, 2))
    rows, cols = np.array([0, 1, 1, 1, 2]), np.array([0, 1, 1, 0])
    graph = one_op(BorderBias(values, rows, cols), (3, 5, 4), *span)
    model = check_equal(graph, {"x": rng.integers(span[0], span[1] + 1, (2, 3, 5, 4))})
    stored = sum(len(t.raw_data) for t in model.graph.initializer)
    assert stored == values.size * 4 + (rows.size + cols.size) * 4


def test_border_bias_beyond_int32_is_refused(one_op):
    values = np.array([2**31, 0], np.int64).reshape(1, 1, 2)
    graph = one_op(BorderBias(values, np.zeros(1, np.int64), np.arange(2)), (1, 1, 2), -10, -5)
    with pytest.raises(AccumulatorError, match="leaves int32"):
        to_onnx(graph, metadata={})
