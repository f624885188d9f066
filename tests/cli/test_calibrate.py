"""qexport calibrate, and what convert does with its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from digits_checkpoint import random_digits, save_digits

from qexport.calibration import METHOD_NAMES, Calibration
from qexport.cli.options import METHODS

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def weight_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_digits(tmp_path_factory.mktemp("weight_only") / "digits.pt", weight_only=True)


@pytest.fixture(scope="module")
def calibrated(weight_only: Path, images: Path, qexport: Run) -> tuple[Path, Result]:
    """The file, and what the command said."""
    path = weight_only.parent / "calibration.json"
    return path, qexport("calibrate", weight_only, "--data", images, "--sensitivity", "--act-bits", 4, "-o", path)


def test_the_command_knows_the_methods_of_the_library() -> None:
    assert METHODS == METHOD_NAMES


def test_file_and_tables(calibrated: tuple[Path, Result]) -> None:
    path, result = calibrated
    assert (result.exit_code, result.stderr) == (0, "")
    found = Calibration.load(path)
    assert (found.method, found.images, found.act_bits) == ("mse", 20, 4)
    assert found.ranges and found.streams
    rows = [line.split() for line in result.stdout.splitlines()]
    for name in found.ranges:
        assert any(row[:2] == [name, "4"] for row in rows)
    assert {cost.kind for cost in found.sensitivity} == {"activation", "weights", "stream"}
    for cost in found.sensitivity:
        assert any(row[0] == cost.name and str(cost.bits) in row for row in rows if row)
    assert "Measured on 20 images, method mse." in result.stdout
    assert f"wrote {path}" in result.stdout and "\x1b" not in result.stdout
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_inspect_shows_the_file_again(qexport: Run, calibrated: tuple[Path, Result]) -> None:
    path, made = calibrated
    shown = qexport("inspect", path)
    assert shown.exit_code == 0 and shown.stdout.startswith(f"{path}: made for digits.pt, images 1x8x8\n")
    tables = made.stdout.split("Note:")[0].split(f"wrote {path}")[0]
    assert shown.stdout.endswith(tables)
    assert qexport("inspect", path, "--json").stdout == path.read_text(encoding="utf-8")


def test_a_conversion_with_the_file_is_the_one_with_the_images(
    qexport: Run, weight_only: Path, images: Path, calibrated: tuple[Path, Result], tmp_path: Path
) -> None:
    path, _ = calibrated
    from_file = qexport("convert", weight_only, "--calibration", path, "-o", tmp_path / "file")
    measured = qexport(
        "convert", weight_only, "--calibration-data", images, "--calibration-method", "mse", "--act-bits", 4,
        "-o", tmp_path / "measured",
    )  # fmt: skip
    assert (from_file.exit_code, measured.exit_code) == (0, 0), from_file.stderr + measured.stderr
    assert "Ranges of float activations: 20 images, method mse." in from_file.stdout
    assert "batch-norm statistics" not in from_file.stdout + measured.stdout
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("file", "measured"))
    assert first["layers"] == second["layers"] and first["quantizers"] == second["quantizers"]
    assert all(len(q["levels"]) == 16 for q in first["quantizers"])


def test_without_data_the_terminal_says_that_data_would_do_better(
    qexport: Run, weight_only: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = qexport("convert", weight_only, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "come from batch-norm statistics; a few hundred unlabelled images (--calibration-data)" in result.stdout
    # A network whose activations are all trained has nothing to gain.
    assert "--calibration-data" not in qexport("convert", checkpoint, "-o", tmp_path / "out").stdout


def test_a_trained_network_gets_ranges_of_its_streams_only(
    qexport: Run, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    result = qexport("calibrate", checkpoint, "--data", images, "-o", tmp_path / "c.json")
    assert result.exit_code == 0 and "training quantized them all" in result.stdout
    found = Calibration.load(tmp_path / "c.json")
    assert not found.ranges and found.streams
    assert qexport("convert", checkpoint, "--calibration", tmp_path / "c.json", "-o", tmp_path).exit_code == 0


def test_options_reach_the_library(qexport: Run, weight_only: Path, images: Path, tmp_path: Path) -> None:
    options = ["--method", "percentile", "--percentile", 90, "--limit", 5, "--act-budget", 5]
    result = qexport("calibrate", weight_only, "--data", images, *options, "-o", tmp_path / "c.json")
    assert result.exit_code == 0, result.stderr
    found = Calibration.load(tmp_path / "c.json")
    assert (found.method, found.images) == ("percentile", 5)
    assert {found.bits(name) for name in found.ranges} - {8}
    result = qexport("convert", weight_only, "--calibration", tmp_path / "c.json", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    quantizers = json.loads((tmp_path / "out" / "report.json").read_text())["quantizers"]
    sizes = {q["name"].removesuffix(".quantized"): len(q["levels"]) for q in quantizers if q["calibrated"]}
    assert sizes == {name: 2 ** found.bits(name) for name in found.ranges}


FAILURES = {
    "method": (("--method", "magic"), 2, "'magic' is not one of 'max', 'average'"),
    "percentile": (("--method", "percentile", "--percentile", 20), 1, "--percentile: the percentile is out of range"),
    "limit": (("--limit", 0), 2, "--limit"),
    "budget": (("--act-budget", 9), 1, "--act-budget: the budget is out of range"),
    "budget_without_histogram": (("--act-budget", 4, "--method", "max"), 1, "the method keeps no histogram"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_wrong_options(qexport: Run, weight_only: Path, images: Path, tmp_path: Path, case: str) -> None:
    options, status, message = FAILURES[case]
    result = qexport("calibrate", weight_only, "--data", images, *options, "-o", tmp_path / "c.json")
    assert result.exit_code == status and message in result.stderr
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


def test_wrong_images(qexport: Run, weight_only: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "empty").mkdir(parents=True)
    np.save(tmp_path / "data" / "large.npy", np.zeros((2, 9, 9, 1), np.uint8))
    np.save(tmp_path / "data" / "nan.npy", np.full((2, 8, 8, 1), np.nan, np.float32))
    np.save(tmp_path / "data" / "none.npy", random_digits(0))
    for name, message in {
        "absent": "no such file or folder",
        "empty": "there are no images",
        "large.npy": "images have another size than the network takes",
        "nan.npy": "images must be uint8 pixels\n  got:      float32, with NaN",
        "none.npy": "there are no images",
    }.items():
        data = tmp_path / "data" / name
        result = qexport("calibrate", weight_only, "--data", data, "-o", tmp_path / "new" / "c.json")
        assert result.exit_code == 1 and f"{data}: {message}" in result.stderr, result.stderr
        assert not (tmp_path / "new").exists()


def test_a_file_that_does_not_fit(
    qexport: Run, weight_only: Path, checkpoint: Path, images: Path, calibrated: tuple[Path, Result], tmp_path: Path
) -> None:
    path, _ = calibrated
    (tmp_path / "text.json").write_text("{}")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((checkpoint, "--calibration", path), "--calibration: the calibration was made from another checkpoint"),
        ((weight_only, "--calibration", path, "--act-bits", 8), "--act-bits: the calibration was made for other bits"),
        ((weight_only, "--calibration", path, "--mean", "0.25"), "the calibration was made with another mean"),
        ((weight_only, "--calibration", path, "--calibration-data", images), "got:      also --calibration-data"),
        ((weight_only, "--calibration", tmp_path / "absent.json"), "absent.json: the calibration file cannot be read"),
        ((weight_only, "--calibration", tmp_path / "text.json"), "got:      no entry 'format'"),
        ((weight_only, "--calibration", tmp_path / "bytes.json"), "got:      it is no text"),
        ((weight_only, "--calibration-method", "mse"), "--calibration-method: a method needs images"),
        ((weight_only, "--act-budget", 4), "--act-budget: bits of activations cannot be distributed without images"),
    ]
    for arguments, message in cases:
        result = qexport("convert", *arguments, "-o", tmp_path / "out")
        assert result.exit_code == 1 and message in result.stderr, result.stderr
        assert "internal error" not in result.stderr and not (tmp_path / "out").exists()
