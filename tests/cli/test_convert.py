"""qexport convert: files, the table, and what the options do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from qexport.backends.packed.file import weight_bytes
from qexport.backends.packed.reader import read_packed
from qexport.cli.convert_tables import grouped, proof_line

Run = Callable[..., Result]


def test_files_and_table(conversion: tuple[Path, Result]) -> None:
    output, result = conversion
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(p.name for p in output.iterdir()) == [
        "model.onnx",
        "model.qdq.onnx",
        "model.qdq8.onnx",
        "report.json",
    ]
    report = json.loads((output / "report.json").read_text())
    rows = [line.split() for line in result.stdout.splitlines()]
    for layer in report["layers"]:
        row = next(row for row in rows if row and row[0] == layer["name"])
        assert row[1:4] == [layer["kind"], f"{layer['weights']:,}", str(layer["weight_bits"])]
    total = next(row for row in rows if row and row[0] == "total")
    assert total[1] == f"{report['sizes']['weights']:,}"
    proof = report["proof"]
    assert f"{proof['quantizers']} quantizers proven: {proof['enumerated']:,} accumulator values" in result.stdout
    for name, size in report["files"].items():
        assert (output / name).stat().st_size == size
        assert f"wrote {output / name}  " in result.stdout
    assert "Traceback" not in result.stdout and "\x1b" not in result.stdout


def test_the_packed_format_alone(qexport: Run, checkpoint: Path, tmp_path: Path) -> None:
    """Equal bytes from run to run; sizes and layers are those of the file."""
    files = []
    for name in ("one", "two"):
        result = qexport("convert", checkpoint, "--bits", 2, "--format", "qpk", "-o", tmp_path / name)
        assert (result.exit_code, result.stderr) == (0, "")
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["model.qpk", "report.json"]
        files.append((tmp_path / name / "model.qpk").read_bytes())
    assert files[0] == files[1]
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert report["files"] == {"model.qpk": len(files[1])}
    model = read_packed(tmp_path / "two" / "model.qpk")
    assert {row["name"]: row["stored_bytes"] for row in report["layers"]} == weight_bytes(model)
    assert model.metadata["qexport.source_sha256"] == report["checkpoint"]["sha256"]
    assert not {"qexport.bounds", "qexport.layers"} & set(model.metadata)


@pytest.mark.parametrize("width", [60, 100, 200])
def test_tables_fit_the_terminal(conversion: tuple[Path, Result], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from qexport.cli.convert_tables import layer_table
    from qexport.cli.tables import stdout_console

    monkeypatch.setenv("COLUMNS", str(width))
    console = stdout_console()
    assert console.width == width
    report = json.loads((conversion[0] / "report.json").read_text())
    with console.capture() as captured:
        console.print(layer_table(report))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown


def test_options_reach_the_library(qexport: Run, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    options = [
        "--weight-bits",
        2,
        "--act-bits",
        3,
        "--edge-bits",
        "max",
        "--mean",
        "0.25",
        "--std",
        "0.5",
        "--opset",
        21,
    ]
    options += ["--calibration-data", images, "--temperature", 20, "--family", "native", "--input-shape", "1,8,8"]
    result = qexport("convert", checkpoint, *options, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    settings = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]
    expected = {"weight_bits": 2, "act_bits": 3, "edge_bits": None, "mean": [0.25], "std": [0.5], "temperature": 20.0}
    assert {**settings, **expected, "family": "native", "input_shape": [1, 8, 8]} == settings
    found = qexport("inspect", tmp_path / "out" / "model.onnx", "--json")
    assert json.loads(found.stdout)["opset"]["ai.onnx"] == 21


def test_a_second_conversion_replaces_the_files_of_the_first(qexport: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for edge_bits in (8, 16):
        assert qexport("convert", checkpoint, "--edge-bits", edge_bits, "-o", tmp_path).exit_code == 0
        assert json.loads((tmp_path / "report.json").read_text())["settings"]["edge_bits"] == edge_bits
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "notes.txt", "report.json"]


def test_notes_of_one_kind_are_one_line() -> None:
    notes = ["a: kept", "b: kept", "c: other", "no layer", "d: kept", "e: kept"]
    assert grouped(notes) == ["kept: a, b, d and 1 more", "other: c", "no layer"]


def test_proof_line_says_what_was_enumerated() -> None:
    proof = {"quantizers": 3, "values": 1200, "enumerated": 1200, "tied_thresholds": 0}
    assert proof_line(proof) == "3 quantizers proven: 1,200 accumulator values checked one by one."
    proof |= {"values": 5_001_200, "tied_thresholds": 2}
    assert "1,200 accumulator values checked one by one, 5,000,000 more by intervals; 2 thresholds off" in proof_line(
        proof
    )
