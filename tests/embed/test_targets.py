"""The generated C on other processors: equal outputs, whatever the byte order, width and alignment."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from embedded_program import (
    CORTEX_M,
    HERE,
    LINUX,
    QUICK,
    build,
    count_instructions,
    expected_outputs,
    replay,
    self_check,
    write_network,
)
from lowering import lowered_case
from packed_networks import GOLDEN
from plane_networks import plane_network

NETWORKS = {
    **GOLDEN,
    "planes": lambda: plane_network((-1, 1), 1),
    "inverted-residual": lambda: lowered_case("inverted-residual", 1)[0].graph,
}
MOST_INSTRUCTIONS = {"cortex-m4": 306_000, "cortex-m55": 157_300}
"""For the network of planes at -Os: 3 % above what was measured with gcc 12.2."""


def pairs(table: dict) -> list:
    """Every processor with every network; the short test run has three networks on two processors."""
    quick = {(processor, network) for processor in QUICK for network in ("products", "planes", "inverted-residual")}
    return [
        pair if pair in quick else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product(table, NETWORKS)
    ]


@pytest.mark.parametrize("processor,network", pairs(LINUX))
def test_linux(processor: str, network: str, tmp_path: Path) -> None:
    graph, target = NETWORKS[network](), LINUX[processor]
    values = write_network(graph, tmp_path)
    rng = np.random.default_rng(6)
    feeds = {n: rng.integers(0, 256, (2, *t.shape)) for n, t in graph.inputs.items()}
    program = build(target, tmp_path, ["model.c", HERE / "replay.c"], "-O2")
    found = replay(target, program, list(feeds.values()), values["output_size"])
    assert np.array_equal(found, expected_outputs(graph, feeds))


@pytest.mark.parametrize("processor,network", pairs(CORTEX_M))
def test_cortex_m(processor: str, network: str, tmp_path: Path) -> None:
    write_network(NETWORKS[network](), tmp_path)
    assert "self-check passed" in self_check(CORTEX_M[processor], tmp_path, "-Os")


def test_self_check_notices_a_wrong_result(tmp_path: Path) -> None:
    write_network(GOLDEN["stream"](), tmp_path)
    text = (tmp_path / "model_test.c").read_text()
    first = text.index("{", text.index("test_output")) + 1
    (tmp_path / "model_test.c").write_text(text[:first] + " 1 +" + text[first:])
    with pytest.raises(AssertionError, match="self-check failed: 1"):
        self_check(CORTEX_M["cortex-m4"], tmp_path, "-Os")


@pytest.mark.parametrize("processor", MOST_INSTRUCTIONS)
def test_number_of_instructions(processor: str, tmp_path: Path) -> None:
    """Deterministic, so that a slower kernel fails here."""
    write_network(plane_network((-1, 1), 1), tmp_path)
    assert count_instructions(CORTEX_M[processor], tmp_path, "-Os") <= MOST_INSTRUCTIONS[processor]
