"""The table of layers, from given seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qexport.backends.packed.describe import describe_packed
from qexport.backends.packed.reader import read_packed
from qexport.benchmark.layers import layer_macs, layer_rows
from qexport.session import InferenceSession


def test_macs_are_those_of_the_description(converted: Path) -> None:
    described = {row["name"]: row["macs"] for row in describe_packed(converted / "model.qpk")["layers"]}
    assert layer_macs(read_packed(converted / "model.qpk")) == described
    assert sum(described.values()) > 0


def test_rows_account_for_every_operator_and_second(converted: Path) -> None:
    model = read_packed(converted / "model.qpk")
    seconds = dict.fromkeys([*model.names, ""], 0.5)
    rows = layer_rows(model, seconds, peak=1e9)
    assert [row["layer"] for row in rows[:1] + rows[-1:]] == ["inputs", "outputs"]
    assert [kind for row in rows for kind in row["operators"]] == [op.kind for op in model.ops]
    assert sum(row["macs"] for row in rows) == sum(layer_macs(model).values())
    for row in rows:
        assert row["seconds"] == 0.5 and row["share"] == pytest.approx(0.5 / sum(seconds.values()))
        if row["macs"]:
            assert row["macs_per_second"] == row["macs"] / 0.5
            assert row["peak_share"] == row["macs"] / 0.5 / 1e9
        else:
            assert row["macs_per_second"] is None and row["peak_share"] is None


def test_an_unknown_peak_leaves_its_share_open(converted: Path) -> None:
    model = read_packed(converted / "model.qpk")
    assert all(row["peak_share"] is None for row in layer_rows(model, {"": 1.0}, peak=0.0))


def test_a_session_times_the_groups_of_the_table(converted: Path) -> None:
    """Every time a session tells finds its row: the shares of the rows sum to one."""
    session = InferenceSession(converted / "model.qpk")
    (image,) = session.get_inputs()
    x = np.zeros((3, *image.shape[1:]), np.uint8)
    seconds = session.time_layers({image.name: x})
    rows = layer_rows(read_packed(converted / "model.qpk"), seconds, peak=1e9)
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    assert all(value > 0 for value in seconds.values())
