"""qexport models."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import Result

from qexport.models.registry import architectures

Run = Callable[..., Result]


def test_every_architecture_is_listed(qexport: Run) -> None:
    result = qexport("models", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert [entry["name"] for entry in found] == list(architectures())
    assert all(entry["parameters"] > 0 and entry["macs"] > 0 and entry["outputs"] for entry in found)


def test_table_of_some(qexport: Run) -> None:
    result = qexport("models", "qn-resnet50", "ssd_small")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    (resnet,) = [line for line in lines if "qn-resnet50" in line]
    assert resnet[:6] == ["qn-resnet50", "3x224x224", "25,557,032", "4,089.2", "M", "1000"]
    assert [line[0] for line in lines if line and "-" in line[0] and line[0][0] in "dq"] == [
        "daq-ssd_small",
        "qn-resnet50",
        "qn-ssd_small",
    ]


def test_json_of_one(qexport: Run) -> None:
    (entry,) = json.loads(qexport("models", "qn-mobilenet", "--json").stdout)
    assert entry["preprocessing"] == {
        "input_shape": [3, 224, 224],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert (entry["parameters"], entry["outputs"]) == (3504872, [[1000]])


def test_unknown_name(qexport: Run) -> None:
    result = qexport("models", "inception")
    assert result.exit_code == 2
    assert "no architecture has inception in its name" in result.stderr
