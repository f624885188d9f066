"""Rearranged networks compute what they computed."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexport.capture.rearrange import quantize_before_pooling, shorten
from qexport.ir import Graph, verify
from qexport.ir.types import integer, real
from qexport.ops import Add, Affine, Clip, MaxPool, Op, PRelu, Reshape, Slice, Step, Transpose
from qexport.reference import interpret
from qexport.stepfunction import StepFunction


def _graph(shape: tuple[int, ...], *ops: Op) -> Graph:
    graph = Graph()
    x = graph.add_input("x", integer(shape, 0, 1000))
    for i, op in enumerate(ops):
        x = graph.add(f"n{i}", op, x)
    graph.outputs = [x]
    return graph


def _outputs(graph: Graph) -> list[np.ndarray]:
    shape = graph.inputs["x"].shape
    x = np.arange(2 * math.prod(shape)).reshape(2, *shape) % 1000
    return list(interpret(graph, {"x": x}).outputs.values())


def _kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]


CASES = {
    "slice-slice": (
        (4, 8, 8),
        [Slice(((0, 4, 1), (1, 8, 2), (0, 8, 1))), Slice(((1, 3, 1), (0, 4, 3), (0, 8, 2)))],
        ["slice"],
    ),
    "reshape-reshape": ((4, 3, 2), [Reshape((4, 3, 2), (12, 2)), Reshape((12, 2), (2, 12))], ["reshape"]),
    "reshape-and-back": (
        (4, 3, 2),
        [Clip(0, 5), Reshape((4, 3, 2), (24,)), Reshape((24,), (4, 3, 2))],
        ["clip"],
    ),
    "heads": (
        (6, 2, 5),
        [Reshape((6, 2, 5), (2, 3, 2, 5)), Transpose((2, 3, 2, 5), (2, 3, 0, 1)), Reshape((2, 5, 2, 3), (20, 3))],
        ["reshape", "transpose", "reshape"],
    ),
    "anchors-first": (
        (6, 2, 5),
        [Reshape((6, 2, 5), (2, 3, 2, 5)), Transpose((2, 3, 2, 5), (0, 2, 3, 1)), Reshape((2, 2, 5, 3), (20, 3))],
        ["reshape", "transpose", "reshape"],
    ),
    "no-neighbours": ((2, 3, 2, 5), [Transpose((2, 3, 2, 5), (3, 1, 0, 2))], ["transpose"]),
    "few-axes": ((2, 3, 4), [Transpose((2, 3, 4), (1, 2, 0))], ["transpose"]),
}


@pytest.mark.parametrize("name", CASES)
def test_chains_are_composed(name: str) -> None:
    shape, ops, kinds = CASES[name]
    graph = _graph(shape, *ops)
    short = shorten(graph)
    verify(short)
    assert _kinds(short) == kinds
    for expected, found in zip(_outputs(graph), _outputs(short), strict=True):
        assert np.array_equal(found, expected)


def test_axes_that_stay_together_move_together() -> None:
    shape, ops, _ = CASES["heads"]
    (transpose,) = shorten(_graph(shape, *ops)).find(Transpose)
    assert isinstance(transpose.op, Transpose)
    assert (transpose.op.source, transpose.op.axes) == ((6, 10), (1, 0))


def test_what_is_read_elsewhere_stays() -> None:
    graph = _graph((4, 6), Slice(((0, 4, 1), (0, 6, 2))), Slice(((1, 2, 1), (0, 3, 1))))
    graph.outputs = ["n0", "n1"]
    short = shorten(graph)
    assert short.outputs == ["n0", "n1"]
    assert [node.inputs for node in short.nodes] == [("x",), ("x",)]
    for expected, found in zip(_outputs(graph), _outputs(short), strict=True):
        assert np.array_equal(found, expected)


@st.composite
def chains(draw: st.DrawFn) -> Graph:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    ops: list[Op] = []
    now = shape
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["slice", "reshape", "transpose", "clip"]))
        if kind == "slice":
            starts = [draw(st.integers(0, n - 1)) for n in now]
            ranges = tuple(
                (a, draw(st.integers(a + 1, n)), draw(st.integers(1, 3))) for a, n in zip(starts, now, strict=True)
            )
            ops.append(Slice(ranges))
            now = tuple(len(range(*r)) for r in ranges)
        elif kind == "reshape":
            size, parts = math.prod(now), []
            for _ in range(draw(st.integers(0, 3))):
                divisors = [d for d in range(1, size + 1) if size % d == 0]
                parts.append(draw(st.sampled_from(divisors)))
                size //= parts[-1]
            ops.append(Reshape(now, (*parts, size)))
            now = (*parts, size)
        elif kind == "transpose":
            axes = tuple(draw(st.permutations(range(len(now)))))
            ops.append(Transpose(now, axes))
            now = tuple(now[a] for a in axes)
        else:
            ops.append(Clip(0, 900))
    return _graph(shape, *ops)


@given(chains())
def test_any_chain_computes_the_same(graph: Graph) -> None:
    short = shorten(graph)
    if short.nodes:
        verify(short)
    assert len(short.nodes) <= len(graph.nodes) + 2 * sum(1 for _ in graph.find(Transpose))
    for expected, found in zip(_outputs(graph), _outputs(short), strict=True):
        assert np.array_equal(found, expected)


STEP = Step(StepFunction.from_values(np.array([-1.0, 0.5, 3.0], np.float32), np.array([0, 1, 2, 3], np.float32)))
POOL = MaxPool((3, 3), (2, 2), ((1, 1), (1, 1)))
RISING = Affine((Fraction(2), Fraction(1, 3), Fraction(0)), (Fraction(1), Fraction(-2), Fraction(1, 7)))
FALLING = Affine((Fraction(2), Fraction(-1, 3), Fraction(1)), (Fraction(1), Fraction(-2), Fraction(1, 7)))
ORDERS = {
    "pool": ([POOL, STEP], ["step", "max_pool"]),
    "pool-relu": ([POOL, Clip(0, None), STEP], ["clip", "step", "max_pool"]),
    "pool-rising": ([POOL, RISING, STEP], ["affine", "step", "max_pool"]),
    "pool-falling": ([POOL, FALLING, STEP], ["max_pool", "affine", "step"]),
    "pool-prelu": ([POOL, PRelu((Fraction(1, 4),) * 3), STEP], ["prelu", "step", "max_pool"]),
    "pool-falling-prelu": ([POOL, PRelu((Fraction(-1, 4),) * 3), STEP], ["max_pool", "prelu", "step"]),
    "two-pools": ([POOL, MaxPool((2, 2), (1, 1)), STEP], ["step", "max_pool", "max_pool"]),
    "two-steps": ([POOL, STEP, STEP], ["step", "step", "max_pool"]),
    "behind": ([POOL, STEP, Affine((Fraction(3),) * 3, (Fraction(1),) * 3)], ["step", "max_pool", "affine"]),
}


def _pixels(*ops: Op) -> tuple[Graph, np.ndarray]:
    graph = Graph()
    x = graph.add_input("x", real((3, 9, 10), -8.0, 8.0))
    for i, op in enumerate(ops):
        x = graph.add(f"n{i}", op, x)
    graph.outputs = [x]
    return graph, np.random.default_rng(3).uniform(-8, 8, (2, 3, 9, 10))


@pytest.mark.parametrize("name", ORDERS)
def test_quantizers_before_pooling(name: str) -> None:
    ops, kinds = ORDERS[name]
    graph, x = _pixels(*ops)
    exchanged = quantize_before_pooling(graph)
    verify(exchanged)
    assert _kinds(exchanged) == kinds
    (before,), (after,) = (list(interpret(g, {"x": x}).outputs.values()) for g in (graph, exchanged))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("also_output", [False, True])
def test_a_pool_that_others_read_stays(also_output: bool) -> None:
    graph, x = _pixels(POOL, STEP)
    if also_output:
        graph.outputs.append("n0")
    else:
        graph.outputs = [graph.add("sum", Add(), "n0", "n1")]
    exchanged = quantize_before_pooling(graph)
    assert _kinds(exchanged) == _kinds(graph)
    for before, after in zip(*(interpret(g, {"x": x}).outputs.values() for g in (graph, exchanged)), strict=True):
        assert np.array_equal(before, after)
