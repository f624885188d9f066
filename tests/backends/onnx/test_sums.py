"""Residual sums in plain int32: equal codes for every pair of operands, and which sums take the form."""

from __future__ import annotations

import numpy as np
import pytest

from qexport.backends.onnx import sums
from qexport.backends.onnx.session import absorbed_tensors
from qexport.backends.onnx.sums import plain_sums
from qexport.ir import Graph, integer, verify
from qexport.ops import Add, Clip, Rescale, Threshold
from qexport.reference import interpret

LEVELS = np.arange(4, dtype=np.int32)


def residual(rng: np.random.Generator, *, values: int = 4, shift: int = 13, channels: int = 3) -> Graph:
    """An accumulator and another integer, brought to one step, added and compared."""
    graph = Graph()
    graph.add_input("a", integer((channels, 1, 1), -600, 700))
    graph.add_input("v", integer((channels, 1, 1), -1, values - 2))
    m = rng.integers(2**29, 2**31 - 1, channels) * np.array([1, -1, 1])[:channels]
    graph.add("scaled", Rescale(m, rng.integers(-(2**38), 2**38, channels), shift), "a")
    graph.add("other", Rescale(rng.integers(2**20, 2**22, 1), np.array([0]), 0), "v")
    graph.add("total", Add(), "scaled", "other")
    t = np.sort(rng.integers(-(2**26), 2**26, (1, 3)), axis=1)
    graph.add("y", Threshold(t, np.ones(1, np.int8), LEVELS), "total")
    graph.outputs = ["y"]
    return graph


def every_pair(graph: Graph) -> dict[str, np.ndarray]:
    a, v = (np.arange(graph.types[n].lo[0], graph.types[n].hi[0] + 1) for n in ("a", "v"))
    both = np.stack(np.meshgrid(a, v)).reshape(2, -1)
    return {n: np.repeat(row[:, None, None, None], 3, axis=1) for n, row in zip("av", both, strict=True)}


@pytest.mark.parametrize("seed", range(20))
def test_codes_of_every_pair_are_equal(seed):
    graph = residual(np.random.default_rng(seed))
    plain = plain_sums(graph)
    verify(plain, require_integer=True)
    assert {node.op.shift for node in plain.find(Rescale)} == {0}
    feeds = every_pair(graph)
    assert np.array_equal(interpret(plain, feeds).outputs["y"], interpret(graph, feeds).outputs["y"])


def test_two_accumulators(check_equal):
    """Both operands rescaled with shifts, of hundreds of values each."""
    rng = np.random.default_rng(1)
    graph = residual(rng, values=150)
    op = Rescale(rng.integers(2**26, 2**27, 3), rng.integers(-(2**20), 2**20, 3), 9)
    graph.nodes[1] = type(graph.nodes[1])("other", op, ("v",))
    for node in graph.nodes:
        graph.types[node.name] = node.op.infer(*(graph.types[t] for t in node.inputs))
    feeds = every_pair(graph)
    model = check_equal(graph, feeds)
    assert absorbed_tensors(model) == ["scaled", "other", "total"]


def test_a_channel_whose_steps_lie_out_of_reach(check_equal):
    graph = residual(np.random.default_rng(2))
    rows = np.array([[graph.types["total"].lo[0]] * 3, [graph.types["total"].hi[1] + 1] * 3, [-5, 0, 5]])
    graph.nodes[-1] = type(graph.nodes[-1])("y", Threshold(rows, np.ones(3, np.int8), LEVELS), ("total",))
    graph.types["y"] = graph.nodes[-1].op.infer(graph.types["total"])
    model = check_equal(graph, every_pair(graph))
    assert absorbed_tensors(model) == ["scaled", "other", "total"]


@pytest.mark.parametrize("case", ["another reader", "saturates", "many values", "no shift"])
def test_sums_that_stay(check_equal, monkeypatch, case):
    rng = np.random.default_rng(3)
    graph = residual(rng)
    if case == "many values":
        monkeypatch.setattr(sums, "MOST_VALUES", 3)
    if case == "another reader":
        graph.outputs = ["y", graph.add("clipped", Clip(0, None), "total")]
    if case in ("saturates", "no shift"):
        graph = Graph(dict(graph.inputs), types=dict(graph.inputs))
        op = Rescale(np.array([2**30]), np.array([0]), 10, -1000, 1000) if case == "saturates" else None
        graph.add("scaled", op or Rescale(np.array([3]), np.array([0]), 0), "a")
        graph.add("other", Rescale(np.array([50]), np.array([0]), 0), "v")
        graph.add("total", Add(), "scaled", "other")
        rows = np.array([[-30, 0, 30]])
        graph.outputs = [graph.add("y", Threshold(rows, np.ones(1, np.int8), LEVELS), "total")]
    assert plain_sums(graph) is graph
    a, v = graph.types["a"], graph.types["v"]
    feeds = {n: rng.integers(t.lo[0], t.hi[0] + 1, (5, 3, 1, 1)) for n, t in (("a", a), ("v", v))}
    assert absorbed_tensors(check_equal(graph, feeds)) == []
