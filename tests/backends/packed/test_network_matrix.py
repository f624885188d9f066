"""The matrix of networks as .qpk files: each computes the reference's integers, in the arena it plans."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from lowering import lowered_case
from networks import CASES
from packed_emulator import Emulator

from qexport.backends.packed.reader import parse_packed
from qexport.backends.packed.writer import lay_out, to_packed
from qexport.errors import GraphError
from qexport.ir import Graph
from qexport.ir.types import integer
from qexport.ops import Reshape
from qexport.reference import interpret

torch.set_num_threads(1)

lowered = functools.cache(lowered_case)


@pytest.mark.parametrize("name", CASES)
def test_reads_back_as_the_same_network(name: str) -> None:
    low, x = lowered(name)
    data = to_packed(low.graph, metadata={"note": name})
    model = parse_packed(data)
    graph = model.to_graph()
    expected = interpret(low.graph, {"image": x}, keep="*").tensors
    found = interpret(graph, {"image": x}, keep="*").tensors
    assert graph.outputs == low.graph.outputs and set(found) == set(expected)
    for tensor in expected:
        assert np.array_equal(found[tensor], expected[tensor]), tensor
    assert to_packed(graph, metadata=model.metadata) == data


@pytest.mark.parametrize("name", CASES)
def test_runs_in_its_arena(name: str) -> None:
    low, x = lowered(name)
    model = parse_packed(to_packed(low.graph, metadata={}))
    expected = interpret(low.graph, {"image": x}, keep="*").tensors
    for tiles, sample in ((1, 0), (3, -1)):
        found = Emulator(model, tiles).run([x[sample].astype(np.uint8)])
        for tensor in expected:
            assert np.array_equal(found[tensor], expected[tensor][sample]), tensor


@pytest.mark.parametrize("name", CASES)
def test_arena_is_close_to_the_largest_live_set(name: str) -> None:
    low, _ = lowered(name)
    plan = lay_out(low.graph).plan
    assert plan.lower_bound <= plan.size <= 1.1 * plan.lower_bound


def test_more_axes_are_refused() -> None:
    graph = Graph()
    x = graph.add_input("image", integer((2, 3, 4), 0, 255))
    graph.outputs = [graph.add("view", Reshape((2, 3, 4), (2, 3, 2, 2)), x)]
    with pytest.raises(GraphError, match="tensors of 1 to 3 axes"):
        to_packed(graph, metadata={})
