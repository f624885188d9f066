"""The interpreter checks what it is fed and every value it makes against the declared type."""

from __future__ import annotations

import numpy as np
import pytest

from qexport.errors import DataError, GraphError
from qexport.ir import Graph, integer, real
from qexport.ops import Add, Clip, Linear, Weight
from qexport.reference import interpret


def graph() -> Graph:
    g = Graph()
    g.add_input("x", integer((2,), 0, 7))
    g.add("fc", Linear(Weight(np.array([[1, 2], [3, -4]], np.int32))), "x")
    g.add("relu", Clip(0, None), "fc")
    g.add("sum", Add(), "relu", "fc")
    g.outputs = ["sum"]
    return g


def test_values_and_kept_tensors() -> None:
    run = interpret(graph(), {"x": np.array([[1, 2], [7, 0]], np.uint8)}, keep=["fc", "x"])
    assert {k: v.tolist() for k, v in run.outputs.items()} == {"sum": [[10, -5], [14, 42]]}
    assert {k: v.tolist() for k, v in run.tensors.items()} == {"x": [[1, 2], [7, 0]], "fc": [[5, -5], [7, 21]]}
    assert set(interpret(graph(), {"x": np.zeros((1, 2), int)}, keep=["*"]).tensors) == {"x", "fc", "relu", "sum"}


def test_output_that_is_read_again_is_kept() -> None:
    g = graph()
    g.outputs = ["fc", "sum", "x"]
    run = interpret(g, {"x": np.array([[1, 2]])})
    assert [v.tolist() for v in run.outputs.values()] == [[[5, -5]], [[10, -5]], [[1, 2]]]


def test_empty_batch() -> None:
    assert interpret(graph(), {"x": np.zeros((0, 2), np.int64)}).outputs["sum"].shape == (0, 2)


def test_override_replaces_a_value_for_its_readers() -> None:
    run = interpret(graph(), {"x": np.array([[1, 2]])}, override=lambda n, v: v * 0 + 1 if n == "relu" else v)
    assert run.outputs["sum"].tolist() == [[6, -4]]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "x: an input is missing"),
        ({"y": np.zeros((1, 2), int)}, "x: an input is missing\n  got:      ['y']"),
        ({"x": np.zeros((1, 3), int)}, "x: an input has the wrong shape"),
        ({"x": np.zeros(2, int)}, "x: an input has the wrong shape"),
        ({"x": np.array([[0, 8]])}, "x: an input leaves its declared range"),
        ({"x": np.array([[-1, 0]])}, "x: an input leaves its declared range"),
        ({"x": np.array([[0.5, 1]])}, "x: an input has the wrong number type\n  got:      float64"),
        ({"x": np.array([[1.0, 1.0]])}, "x: an input has the wrong number type"),
    ],
)
def test_bad_feed(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError) as caught:
        interpret(graph(), feeds)
    assert str(caught.value).startswith(message)


def test_nan_is_no_input() -> None:
    g = Graph()
    g.add_input("x", real((1,), 0, 1))
    g.add("clip", Clip(0, None), "x")
    g.outputs = ["clip"]
    with pytest.raises(DataError, match="leaves its declared range"):
        interpret(g, {"x": np.array([[np.nan]])})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda v: v + 1000, "fc: a value leaves its proven range"),
        (lambda v: v.astype(np.float64), "fc: an integer tensor was computed as"),
        (lambda v: v[:, :1], "fc: a value has the wrong shape"),
    ],
)
def test_wrong_value_is_caught(value, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        interpret(graph(), {"x": np.zeros((1, 2), int)}, override=lambda n, v: value(v) if n == "fc" else v)
    assert str(caught.value).startswith(message)


def test_range_is_checked_per_channel() -> None:
    """-1 is within the range of the whole tensor but not within channel 0's [0, 21]."""
    g = graph()
    assert (g.types["fc"].lo.tolist(), g.types["fc"].hi.tolist()) == ([0, -28], [21, 21])
    force = np.array([[-1, 0]])
    with pytest.raises(GraphError, match="fc: a value leaves its proven range"):
        interpret(g, {"x": np.zeros((1, 2), int)}, override=lambda n, v: force if n == "fc" else v)
