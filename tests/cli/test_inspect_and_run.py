"""qexport inspect and run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from digits_checkpoint import CLASS_NAMES, random_digits
from onnx import TensorProto, helper
from PIL import Image

Run = Callable[..., Result]


def test_artifact(qexport: Run, converted: Path) -> None:
    result = qexport("inspect", converted / "model.onnx", "--assert-integer")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads((converted / "report.json").read_text())
    for layer in report["layers"]:
        assert f" {layer['name']} " in result.stdout
    for part in (
        "format onnx, opset ai.onnx 25",
        "from digits.pt",
        "qn-digits",
        "classes: zero, one",
        "uint8 [N, 1, 8, 8]",
    ):
        assert part in result.stdout
    assert "Thresholds as stored" in result.stdout and "float tensors: none" in result.stdout


def test_float_tensors_are_named_and_fail(qexport: Run, converted: Path) -> None:
    result = qexport("inspect", converted / "model.qdq.onnx", "--assert-integer")
    assert result.exit_code == 1
    assert "model.qdq.onnx: " in result.stderr and "values have a float or unknown type" in result.stderr
    assert qexport("inspect", converted / "model.qdq.onnx").exit_code == 0


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An ONNX file of somebody else: one Relu."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "relu.onnx")
    return tmp_path / "relu.onnx"


def test_a_foreign_onnx_file(qexport: Run, foreign: Path) -> None:
    result = qexport("inspect", foreign)
    assert result.exit_code == 0
    assert "not written by qexport, opset ai.onnx 18" in result.stdout and "operators: Relu 1" in result.stdout
    result = qexport("inspect", foreign, "--assert-integer")
    assert result.exit_code == 1 and "got:      x, y (Relu)" in result.stderr
    result = qexport("run", foreign, "--input", foreign)
    assert result.exit_code == 1 and "the model was not written by qexport" in result.stderr


def test_json_of_both_kinds(qexport: Run, converted: Path, checkpoint: Path) -> None:
    artifact = json.loads(qexport("inspect", converted / "model.onnx", "--assert-integer", "--json").stdout)
    assert artifact["float_tensors"] == [] and artifact["layers"][0]["stored_bytes"] > 0
    found = json.loads(qexport("inspect", checkpoint, "--json").stdout)
    assert found["family"] == "native" and len(found["quantizers"]) > 0 and len(found["layers"]) > 0


def test_checkpoint(qexport: Run, checkpoint: Path) -> None:
    result = qexport("inspect", checkpoint)
    assert (result.exit_code, result.stderr) == (0, "")
    for part in ("family native, qn-digits, input 1x8x8", "temperature: 50", "-1 0 1", "0 1 2 3", "quan0"):
        assert part in result.stdout


def test_files_that_are_neither(qexport: Run, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.pt"):
        result = qexport("inspect", tmp_path / name)
        assert result.exit_code == 1 and "no such file" in result.stderr
        (tmp_path / name).write_text("nothing of the kind")
        result = qexport("inspect", tmp_path / name)
        assert result.exit_code == 1 and "not a" in result.stderr and name in result.stderr


def test_run_one_image(qexport: Run, converted: Path, tmp_path: Path) -> None:
    pixels = random_digits(1)[0, :, :, 0]
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.save(tmp_path / "image.npy", pixels)
    shown = [
        qexport("run", converted / "model.onnx", "--input", tmp_path / name, "--top", 3)
        for name in ("image.png", "image.npy")
    ]
    assert shown[0].exit_code == 0 and shown[0].stdout == shown[1].stdout
    rows = [
        line.split() for line in shown[0].stdout.splitlines() if line.split()[:1] and line.split()[0] in CLASS_NAMES
    ]
    assert len(rows) == 3
    scale = json.loads((converted / "report.json").read_text())["outputs"][0]["scale"]
    for _, integer, value in rows:
        assert float(value) == pytest.approx(int(integer.replace(",", "")) * scale, rel=1e-5)


def test_run_many_images(qexport: Run, converted: Path, images: Path) -> None:
    result = qexport("run", converted / "model.onnx", "--input", images, "--top", 2)
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 20
    found = json.loads(qexport("run", converted / "model.onnx", "--input", images, "--json").stdout)
    assert len(found) == 20 and all(len(classes) == 5 for classes in found)
    first = result.stdout.splitlines()[0].split()
    assert first[:2] == ["0", found[0][0]["name"]]
    # The float flavour computes the same network: real values only, close to the integer ones.
    real = json.loads(qexport("run", converted / "model.qdq.onnx", "--input", images, "--json").stdout)
    assert all(classes[0]["integer"] is None for classes in real)


def test_run_needs_no_torch(converted: Path, images: Path) -> None:
    program = (
        "import sys; from qexport.cli.main import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    for arguments in (["run", converted / "model.onnx", "--input", images], ["inspect", converted / "model.onnx"]):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("False\n")


def test_an_image_of_another_size(qexport: Run, converted: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "image.png")
    result = qexport("run", converted / "model.onnx", "--input", tmp_path / "image.png")
    assert result.exit_code == 1 and "another size" in result.stderr and not result.stdout
