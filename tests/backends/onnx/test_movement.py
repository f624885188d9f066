"""Pooling, slices, padding, concatenation, reshape, transpose and norm equal the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from qexport.ir import Graph, integer
from qexport.ops import Concat, L2Norm, MaxPool, Pad, Reshape, Slice, SumPool, Transpose

SPANS = {"int8": (-128, 127), "uint8": (0, 255), "codes": (0, 3), "int32": (-(10**6), 10**6)}

POOLS = {
    "3x3_stride2_padded": ((3, 3), (2, 2), ((1, 1), (1, 1))),
    "2x2": ((2, 2), (2, 2), ((0, 0), (0, 0))),
    "3x3_stride1": ((3, 3), (1, 1), ((1, 1), (1, 1))),
    "gaps": ((1, 2), (2, 3), ((0, 0), (0, 0))),
    "uneven": ((3, 5), (2, 3), ((0, 1), (2, 1))),
    "global": ((9, 8), (9, 8), ((0, 0), (0, 0))),
    "global_stride1": ((9, 8), (1, 1), ((0, 0), (0, 0))),
    "identity": ((1, 1), (1, 1), ((0, 0), (0, 0))),
}


@pytest.mark.parametrize("pool", [MaxPool, SumPool])
@pytest.mark.parametrize("settings", POOLS)
@pytest.mark.parametrize("span", SPANS)
def test_pooling(check_equal, one_op, rng, pool, settings, span):
    lo, hi = SPANS[span]
    graph = one_op(pool(*POOLS[settings]), (3, 9, 8), lo, hi)
    check_equal(graph, {"x": rng.integers(lo, hi + 1, (2, 3, 9, 8))})


@pytest.mark.parametrize("dilation", [(1, 2), (2, 1), (3, 3)])
@pytest.mark.parametrize("span", SPANS)
def test_dilated_max_pool(check_equal, one_op, rng, dilation, span):
    lo, hi = SPANS[span]
    graph = one_op(MaxPool((2, 3), (2, 1), ((1, 1), (1, 2)), dilation), (3, 9, 8), lo, hi)
    check_equal(graph, {"x": rng.integers(lo, hi + 1, (2, 3, 9, 8))})


@pytest.mark.parametrize(
    ("pool", "factors"),
    [
        (((3, 3), (2, 2), ((1, 1), (1, 2))), ((3, 2, 2, 2, 3), (3, 2, 2, 2, 6))),
        (((9, 8), (1, 1), ((0, 0), (0, 0))), ((7,), (1,))),
        (((2, 2), (2, 2), ((0, 1), (0, 0))), ((1, 1, 1, 1, 2), (1, 1, 1, 1))),
    ],
)
@pytest.mark.parametrize("span", SPANS)
def test_sum_with_factors(check_equal, one_op, rng, pool, factors, span):
    lo, hi = SPANS[span]
    graph = one_op(SumPool(*pool, factors), (3, 9, 8), lo, hi)
    check_equal(graph, {"x": rng.integers(lo, hi + 1, (2, 3, 9, 8))})


@pytest.mark.parametrize("peak", [1, 2, 127, 255, 2**15, 2**26])
@pytest.mark.parametrize("signed", [False, True])
def test_l2_norm(check_equal, one_op, rng, peak, signed):
    """Random vectors of every length from 0 on, the longest ones included."""
    graph = one_op(L2Norm(), (48, 3, 5), -peak if signed else 0, peak)
    x = rng.integers(-peak if signed else 0, peak + 1, (4, 48, 3, 5))
    x[1] >>= rng.integers(0, 27, (3, 5))
    x[2, :, 0] = 0
    x[2, 7, 1] = rng.integers(0, peak + 1, 5)
    x[3] = peak
    check_equal(graph, {"x": x})


@pytest.mark.parametrize("channels", [1, 3])
def test_l2_norm_beside_squares(check_equal, one_op, channels):
    """Sums of squares beside perfect squares and powers of two, where a root of floats would round up."""
    roots = [*range(9), *(2**k + d for k in range(2, 30) for d in (-1, 0, 1))]
    x = np.zeros((1, channels, 1, len(roots)), np.int64)
    x[0, 0, 0] = roots
    x[0, -1, 0] = [r if channels == 1 else max(1, r >> 15) for r in roots]
    check_equal(one_op(L2Norm(), x.shape[1:], 0, 2**30), {"x": x})


@pytest.mark.parametrize("axes", [(1, 2, 0), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("span", SPANS)
def test_transpose(check_equal, one_op, rng, axes, span):
    lo, hi = SPANS[span]
    check_equal(one_op(Transpose((3, 4, 5), axes), (3, 4, 5), lo, hi), {"x": rng.integers(lo, hi + 1, (2, 3, 4, 5))})


def test_heads_of_a_detector(check_equal, rng):
    """Transpose, general reshape, concatenation along anchors, and one along the last axis."""
    graph, feeds = Graph(), {}
    for i, size in enumerate((4, 2)):
        name = graph.add_input(f"x{i}", integer((6, size, size), -(10**i), 100**i))
        feeds[name] = rng.integers(-(10**i), 100**i + 1, (2, 6, size, size))
        graph.add(f"t{i}", Transpose((6, size, size), (1, 2, 0)), name)
        graph.add(f"r{i}", Reshape((size, size, 6), (size * size * 2, 3)), f"t{i}")
    graph.add("anchors", Concat(), "r0", "r1")
    graph.add("twice", Concat(1), "anchors", "anchors")
    graph.outputs = ["anchors", "twice"]
    check_equal(graph, feeds)


def test_max_pool_of_the_smallest_int32(check_equal, one_op, rng):
    graph = one_op(MaxPool((3, 3), (2, 2), ((1, 1), (1, 1))), (2, 5, 5), -(2**31), 2**31 - 1)
    x = rng.integers(-(2**31), 2**31, (2, 2, 5, 5))
    x[0] = -(2**31)
    check_equal(graph, {"x": x})


@pytest.mark.parametrize("ranges", [((0, 4, 2), (1, 6, 2), (0, 6, 1)), ((0, 4, 1), (0, 6, 1), (0, 6, 1))])
@pytest.mark.parametrize("span", SPANS)
def test_slice(check_equal, one_op, rng, ranges, span):
    lo, hi = SPANS[span]
    check_equal(one_op(Slice(ranges), (4, 6, 6), lo, hi), {"x": rng.integers(lo, hi + 1, (2, 4, 6, 6))})


def test_slice_into_a_narrower_type(check_equal):
    """Per-channel ranges let a slice of an int32 tensor become int8."""
    graph = Graph()
    graph.add_input("x", integer((2, 3, 3), np.array([-5, -(10**6)]), np.array([5, 10**6])))
    graph.add("narrow", Slice(((0, 1, 1), (0, 3, 1), (0, 3, 2))), "x")
    graph.add("y", Pad(((1, 0), (0, 0), (2, 1))), "narrow")
    graph.outputs = ["y"]
    x = np.stack([np.arange(9).reshape(3, 3) - 4, np.full((3, 3), 10**6)])[None]
    check_equal(graph, {"x": x})


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("pads", [((2, 2), (0, 0), (0, 0)), ((0, 1), (1, 2), (3, 0))])
def test_pad(check_equal, one_op, rng, pads, span):
    lo, hi = SPANS[span]
    check_equal(one_op(Pad(pads), (3, 4, 4), lo, hi), {"x": rng.integers(lo, hi + 1, (2, 3, 4, 4))})


@pytest.mark.parametrize("spans", [("int8", "codes"), ("int8", "uint8"), ("uint8", "codes", "int32")])
def test_concat(check_equal, rng, spans):
    graph, feeds = Graph(), {}
    for i, span in enumerate(spans):
        graph.add_input(f"x{i}", integer((i + 1, 2, 2), *SPANS[span]))
        feeds[f"x{i}"] = rng.integers(SPANS[span][0], SPANS[span][1] + 1, (2, i + 1, 2, 2))
    graph.add("joined", Concat(), *graph.inputs)
    graph.add("y", Reshape((sum(range(1, len(spans) + 1)), 2, 2), (4 * sum(range(1, len(spans) + 1)),)), "joined")
    graph.outputs = ["y"]
    check_equal(graph, feeds)


@pytest.mark.parametrize("batch", [1, 4])
def test_two_outputs_and_a_read_output(check_equal, rng, batch):
    """An output that another node reads keeps its int32 type; narrow readers still get bytes."""
    graph = Graph()
    graph.add_input("x", integer((2, 4, 4), 0, 3))
    graph.add("pooled", MaxPool((2, 2), (2, 2)), "x")
    graph.add("flat", Reshape((2, 2, 2), (8,)), "pooled")
    graph.outputs = ["pooled", "flat"]
    check_equal(graph, {"x": rng.integers(0, 4, (batch, 2, 4, 4))})
