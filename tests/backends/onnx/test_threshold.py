"""Threshold equals the interpreter: any number of steps, signs, ties, duplicates, steps never or always taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import run_all_tensors
from qexport.backends.onnx.threshold import SEARCH_FROM
from qexport.ir import Graph, integer
from qexport.ops import Threshold
from qexport.reference import interpret

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
CHANNELS = 4


def threshold(thresholds: np.ndarray, sign: np.ndarray | int = 1, levels: np.ndarray | None = None) -> Threshold:
    rows, n_steps = thresholds.shape
    signs = np.broadcast_to(np.asarray(sign, np.int8), (rows,)).copy()
    return Threshold(thresholds, signs, np.arange(n_steps + 1, dtype=np.int32) if levels is None else levels)


def around(op: Threshold, lo: int, hi: int) -> np.ndarray:
    """[N, C, 1, 1]: every threshold of every channel hit exactly, one below and one above, and both ends."""
    signed = op.thresholds * op.sign.astype(np.int64)[:, None]
    signed = np.broadcast_to(signed, (CHANNELS, signed.shape[1]))
    columns = [signed - 1, signed, signed + 1, np.full((CHANNELS, 1), lo), np.full((CHANNELS, 1), hi)]
    return np.clip(np.concatenate(columns, axis=1), lo, hi).T[:, :, None, None]


@pytest.mark.parametrize("n_steps", [*range(1, 16), SEARCH_FROM - 1, SEARCH_FROM, 127, 200, 255])
@pytest.mark.parametrize("signs", ["positive", "negative", "mixed"])
@pytest.mark.parametrize("shared", [False, True])
def test_steps(check_equal, one_op, rng, n_steps, signs, shared):
    lo, hi = -3000, 2000
    rows = 1 if shared else CHANNELS
    sign = {"positive": np.ones(rows), "negative": -np.ones(rows), "mixed": rng.choice([-1, 1], rows)}[signs]
    op = threshold(np.sort(rng.integers(-2000, 2001, (rows, n_steps)), axis=1), sign)
    graph = one_op(op, (CHANNELS, 1, 1), lo, hi)
    check_equal(graph, {"x": around(op, lo, hi)})


LEVELS = {
    "signs": [-1, 1],
    "ternary": [-1, 0, 1],
    "uneven": [-4, -2, -1, 0, 1, 2, 4],
    "descending": [3, 2, 1, 0],
    "descending_uneven": [7, 3, 1, 0, -1],
    "any_order": [5, -2, 9, 0, 0, 127],
    "full_int8": [-128, 0, 127],
    "full_uint8": [0, 200, 255],
    "wide": [-70000, 3, 90000],
    "constant": [5, 5, 5],
}


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("mixed", [False, True])
def test_levels(check_equal, one_op, rng, name, mixed):
    levels = np.array(LEVELS[name], np.int32)
    sign = rng.choice([-1, 1], CHANNELS) if mixed else 1
    op = threshold(np.sort(rng.integers(-50, 51, (CHANNELS, levels.size - 1)), axis=1), sign, levels)
    check_equal(one_op(op, (CHANNELS, 1, 1), -100, 100), {"x": around(op, -100, 100)})


@pytest.mark.parametrize("name", ["uneven", "descending_uneven"])
def test_levels_by_search(check_equal, one_op, rng, name):
    """Many steps with arbitrary levels and mixed signs."""
    n_steps = SEARCH_FROM + 30
    levels = np.resize(np.array(LEVELS[name], np.int32), n_steps + 1)
    op = threshold(np.sort(rng.integers(-500, 500, (CHANNELS, n_steps)), axis=1), [1, -1, 1, -1], levels)
    check_equal(one_op(op, (CHANNELS, 1, 1), -600, 600), {"x": around(op, -600, 600)})


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n_steps", [3, 150])
@pytest.mark.parametrize("lo", [INT32_MIN, INT32_MIN + 1])
def test_whole_int32_range(check_equal, one_op, sign, n_steps, lo):
    """Comparisons at both ends of int32 do not wrap, also where -x of the smallest int32 is 2**31."""
    rows = np.sort(np.random.default_rng(1).integers(INT32_MIN, INT32_MAX, (CHANNELS, n_steps)), axis=1)
    rows[0, -1] = rows[1, -2:] = rows[3, -1] = INT32_MAX
    rows[2, 0] = rows[3, :2] = INT32_MIN
    op = threshold(rows, sign)
    check_equal(one_op(op, (CHANNELS, 1, 1), lo, INT32_MAX), {"x": around(op, lo, INT32_MAX)})


def test_duplicates_unreachable_and_always(check_equal, one_op):
    rows = np.array([[-10, -10, 3, 3], [11, 11, 11, 11], [-10, -10, -10, -10], [-3, 0, 0, 11]])
    op = threshold(rows, [1, 1, -1, -1])
    check_equal(one_op(op, (CHANNELS, 1, 1), -10, 10), {"x": around(op, -10, 10)})


@pytest.mark.parametrize("n_steps", [0, 1, 2])
def test_no_step_reachable(check_equal, one_op, n_steps):
    op = threshold(np.full((CHANNELS, n_steps), 8), [1, -1, 1, -1], np.arange(4, 5 + n_steps, dtype=np.int32))
    check_equal(one_op(op, (CHANNELS, 1, 1), -7, 7), {"x": around(op, -7, 7)})


@pytest.mark.parametrize(("lo", "hi"), [(-128, 127), (0, 255), (-40000, 40000)])
def test_input_containers_and_features(check_equal, one_op, rng, lo, hi):
    """int8, uint8 and int32 inputs; tensors [N, F]."""
    op = threshold(np.sort(rng.integers(lo, hi + 2, (CHANNELS, 3)), axis=1), [1, -1, -1, 1])
    check_equal(one_op(op, (CHANNELS,), lo, hi), {"x": around(op, lo, hi)[:, :, 0, 0]})


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_threshold(data):
    lo = data.draw(st.integers(INT32_MIN, INT32_MAX - 1))
    hi = data.draw(st.integers(lo, INT32_MAX))
    n_steps = data.draw(st.integers(1, 6))
    sign = np.array(data.draw(st.lists(st.sampled_from([-1, 1]), min_size=CHANNELS, max_size=CHANNELS)), np.int8)
    rows = []
    for s in sign:
        first, last = (lo, hi) if s > 0 else (-hi, -lo)
        step = st.integers(max(first, INT32_MIN), min(last + 1, INT32_MAX))
        rows.append(sorted(data.draw(st.lists(step, min_size=n_steps, max_size=n_steps))))
    levels = data.draw(st.lists(st.integers(-128, 255), min_size=n_steps + 1, max_size=n_steps + 1))
    op = threshold(np.array(rows), sign, np.array(levels, np.int32))
    graph = Graph()
    graph.add_input("x", integer((CHANNELS, 1, 1), lo, hi))
    graph.add("y", op, "x")
    graph.outputs = ["y"]
    feeds = {"x": around(op, lo, hi)}
    got = run_all_tensors(to_onnx(graph, metadata={}), feeds)["y"]
    np.testing.assert_array_equal(got, interpret(graph, feeds).outputs["y"])
