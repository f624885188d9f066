"""The generated C computes what the reference computes: every operator, every network of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embedded_program import (
    CLANG,
    CORTEX_M,
    GCC,
    HERE,
    HERE_BY_COMPILER,
    Target,
    build,
    expected_outputs,
    replay,
    self_check,
    undefined_symbols,
    write_network,
)
from lowering import lowered_case
from networks import CASES
from operator_graphs import OPERATOR_GRAPHS, operator_graph
from packed_networks import GOLDEN

from qexport.ir import Graph

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
QUICK = {"linear-stack", "two-outputs", "sign-zero-padding"}
QUICK_OPERATORS = 16


def check(graph: Graph, feeds: dict[str, np.ndarray], folder: Path, target: Target = GCC) -> None:
    """Compile with sanitizers and compare each output of each sample."""
    values = write_network(graph, folder)
    program = build(target, folder, ["model.c", HERE / "replay.c"], *SANITIZERS)
    found = replay(target, program, [feeds[name] for name in graph.inputs], values["output_size"])
    assert np.array_equal(found, expected_outputs(graph, feeds))


def marked(names: list[str], quick: set[str]) -> list:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(list(CASES), QUICK))
def test_networks(name: str, tmp_path: Path) -> None:
    low, images = lowered_case(name, 1)
    check(low.graph, {"image": images}, tmp_path)


@pytest.mark.parametrize("name", marked(list(OPERATOR_GRAPHS), set(list(OPERATOR_GRAPHS)[::QUICK_OPERATORS])))
def test_operators(name: str, tmp_path: Path) -> None:
    graph, images = operator_graph(name)
    check(graph, {next(iter(graph.inputs)): images}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_networks_with_helium(name: str, tmp_path: Path) -> None:
    """Vectors of another width than on any other processor."""
    write_network(lowered_case(name, 1)[0].graph, tmp_path)
    assert "self-check passed" in self_check(CORTEX_M["cortex-m55"], tmp_path, "-Os")


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_operators_with_helium(name: str, tmp_path: Path) -> None:
    write_network(operator_graph(name)[0], tmp_path)
    assert "self-check passed" in self_check(CORTEX_M["cortex-m55"], tmp_path, "-Os")


@pytest.mark.parametrize("name", GOLDEN)
def test_every_operator_and_form_of_weights(name: str, tmp_path: Path) -> None:
    """These four networks hold every operator, coding of weights, storage and kind of threshold."""
    graph = GOLDEN[name]()
    rng = np.random.default_rng(5)
    check(graph, {n: rng.integers(0, 256, (3, *t.shape)) for n, t in graph.inputs.items()}, tmp_path)


def test_clang_accepts_it(tmp_path: Path) -> None:
    graph = GOLDEN["products"]()
    feeds = {n: np.full((1, *t.shape), 200) for n, t in graph.inputs.items()}
    check(graph, feeds, tmp_path, CLANG)


@pytest.mark.parametrize("compiler", HERE_BY_COMPILER)
@pytest.mark.parametrize("name", GOLDEN)
def test_no_writable_data_and_no_library(name: str, compiler: str, tmp_path: Path) -> None:
    """Two threads can run it at once, from read-only memory; only memcpy and memset come from elsewhere."""
    write_network(GOLDEN[name](), tmp_path)
    assert undefined_symbols(HERE_BY_COMPILER[compiler], tmp_path / "model.c") <= {"memcpy", "memset"}
