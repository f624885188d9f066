"""Codes as planes of bits: every number of planes, groups, strides, and long rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from embedded_program import CORTEX_M, HERE, Target, build, expected_outputs, replay, self_check, write_network
from plane_networks import plane_network

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SHAPES = {
    "binary-1": ((-1, 1), 1, {}),
    "binary-2": ((-1, 1), 2, {}),
    "ternary-1": ((-1, 0, 1), 1, {}),
    "ternary-3": ((-1, 0, 1), 3, {}),
    "uneven-2": ((-4, -2, -1, 0, 1, 2, 4), 1, {}),
    "shifted-1": ((3, 10), 1, {}),
    "grouped": ((-1, 1), 2, {"channels": 64, "groups": 2}),
    "strided": ((-1, 1), 1, {"channels": 32, "stride": 2}),
    "long-rows": ((-1, 1), 1, {"channels": 128}),
}


QUICK = {"binary-1", "ternary-3", "grouped", "long-rows"}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SHAPES])
def test_equal(name: str, tmp_path: Path) -> None:
    levels, bits, shape = SHAPES[name]
    graph = plane_network(levels, bits, **shape)
    values = write_network(graph, tmp_path)
    assert len(re.findall(r"^ +conv_planes\(", (tmp_path / "model.c").read_text(), re.M)) == 2
    feeds = {"image": np.random.default_rng(3).integers(0, 256, (3, 3, 6, 6))}
    program = build(Target("gcc"), tmp_path, ["model.c", HERE / "replay.c"], *SANITIZERS)
    found = replay(Target("gcc"), program, feeds["image"], values["output_size"])
    assert np.array_equal(found, expected_outputs(graph, feeds))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_equal_with_helium(name: str, tmp_path: Path) -> None:
    levels, bits, shape = SHAPES[name]
    write_network(plane_network(levels, bits, **shape), tmp_path)
    assert "self-check passed" in self_check(CORTEX_M["cortex-m55"], tmp_path, "-Os")
