"""The fingerprint changes with everything that decides what a graph computes, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from qexport.ir import Graph, fingerprint, integer
from qexport.ops import Add, Clip, Linear, Weight


def graph(
    *,
    reach: int = 7,
    low: int | None = 0,
    levels: np.ndarray | None = None,
    added: tuple[str, str] = ("clip", "clip"),
    outputs: tuple[str, ...] = ("fc", "sum"),
    name: str = "fc",
) -> Graph:
    """x -> clip -> linear, and clip + clip."""
    weight = np.arange(8).reshape(2, 4) if levels is None else levels
    made = Graph()
    made.add_input("x", integer((4,), -8, reach))
    made.add("clip", Clip(low, None), "x")
    made.add(name, Linear(Weight(weight)), "clip")
    made.add("sum", Add(), *added)
    made.outputs = list(outputs)
    return made


CHANGES: dict[str, Callable[[], Graph]] = {
    "range of the input": lambda: graph(reach=6),
    "attribute": lambda: graph(low=1),
    "attribute left out": lambda: graph(low=None),
    "one weight": lambda: graph(levels=np.array([[0, 1, 2, 3], [4, 5, 6, 8]])),
    "shape of a weight": lambda: graph(levels=np.arange(12).reshape(3, 4)),
    "order of weights": lambda: graph(levels=np.arange(8)[::-1].reshape(2, 4)),
    "wiring": lambda: graph(added=("clip", "x")),
    "outputs": lambda: graph(outputs=("sum", "fc")),
    "name": lambda: graph(name="head", outputs=("head", "sum")),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_shows(change: str) -> None:
    assert fingerprint(CHANGES[change]()) != fingerprint(graph())


def test_equal_graphs_have_equal_fingerprints() -> None:
    assert fingerprint(graph()) == fingerprint(graph())
    narrow = graph(levels=np.arange(8, dtype=np.int8).reshape(2, 4))
    assert fingerprint(narrow) == fingerprint(graph()), "the number type of an array is no matter"
    moved = graph()
    moved.nodes[0] = replace(moved.nodes[0], source="net.py, line 3")
    assert fingerprint(moved) == fingerprint(graph())
