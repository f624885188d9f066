"""qexport bench."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from qexport.benchmark.engines import PEERS
from qexport.cli import bench as command
from qexport.conversion import convert

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def packed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    convert(checkpoint, folder, bits=2, formats=("onnx", "qpk"))
    return folder / "model.qpk"


def test_tables_and_json(qexport: Run, packed: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    result = qexport(
        "bench", packed, packed.with_name("model.onnx"), "--against", "onnxruntime", "--rounds", 2, "--json", file
    )
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(file.read_text())
    assert [engine["name"] for engine in report["engines"]] == ["model.qpk", "model.onnx", "onnxruntime"]
    for part in (
        "qn-digits, input 1x8x8",
        "batch 1, threads 1",
        "2 rounds in turn",
        " model.qpk ",
        "onnxruntime: int8 QDQ",
        " fc ",
        "peak: ",
    ):
        assert part in result.stdout
    assert "WARNING" not in result.stdout
    products = sum("conv2d" in row["operators"] for row in report["layers"])
    assert products > 2 and result.stdout.count("conv2d") == products


def test_without_peers_and_layers(qexport: Run, packed: Path) -> None:
    result = qexport("bench", packed, "--against", "none", "--no-layers", "--rounds", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    assert " 1.00 " in result.stdout and "onnxruntime" not in result.stdout and "of peak" not in result.stdout


def test_outputs_that_differ_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    from qexport.cli.bench_tables import print_benchmark

    ratio = {"median": 1.0, "processor": 1.0, "minimum": 1.0, "load": 1.0, "first": 1.0, "memory": None}
    figures = dict.fromkeys(("median", "processor", "minimum", "load", "first", "macs_per_second"), 0.001)
    engine = {"what": "it", "memory": None, "ratio": ratio, **figures}
    report = {
        "machine": {"processor": "P", "cores": 2, "flags": ["f"], "caches": {"L1d": "32K"}, "load": 0.5},
        "settings": {"threads": 2, "batch": 1, "rounds": 1, "pinned_to": [0, 1]},
        "network": {"architecture": "a", "inputs": {"image": [3, 8, 8]}, "macs": 12_345_678},
        "base": "one",
        "engines": [{"name": "one", "same_outputs": True, **engine}, {"name": "two", "same_outputs": False, **engine}],
    }
    print_benchmark(report, layers=True)
    shown = capsys.readouterr().out
    assert "WARNING: outputs differ from those of one: two" in shown
    assert "pinned to cores 0, 1" in shown and "12.3 M multiply-accumulates" in shown


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--against", "tensorflow"), 1, "unknown engine"),
        (("--threads", "0"), 1, "the number of threads is out of range"),
        (("--threads", "two"), 2, "not a valid integer"),
        (("--against", ","), 2, "the list is empty"),
    ],
)
def test_wrong_options(qexport: Run, packed: Path, arguments: tuple[str, ...], status: int, text: str) -> None:
    result = qexport("bench", packed, *arguments)
    assert result.exit_code == status and text in result.stderr and not result.stdout


def test_a_wrong_file(qexport: Run, tmp_path: Path) -> None:
    assert "Missing argument 'MODEL...'" in qexport("bench").stderr
    result = qexport("bench", tmp_path / "none.qpk")
    assert result.exit_code == 1 and "no such file" in result.stderr


def test_the_names_are_the_librarys() -> None:
    assert command.PEERS == PEERS
