"""Pooling, slices, padding, concatenation and reshape equal the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from qexport.ir import Graph, integer
from qexport.ops import Concat, MaxPool, Pad, Reshape, Slice, SumPool

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
