"""qexport validate: tables, verdict, exit status, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from digits_checkpoint import random_digits, save_digits
from onnx import numpy_helper

from qexport.checkpoints import load_checkpoint
from qexport.cli.json_text import json_text
from qexport.models.quantizers import set_soft

Run = Callable[..., Result]
ONNX, QDQ, QDQ8 = "model.onnx", "model.qdq.onnx", "model.qdq8.onnx"


def test_pass(qexport: Run, converted: Path, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    json_file = tmp_path / "deep" / "result.json"
    arguments = ["--checkpoint", checkpoint, "--data", images, "--max-drop", 100, "--json", json_file]
    result = qexport("validate", converted / ONNX, converted / QDQ, converted / QDQ8, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("PASS: ") and lines[-1].endswith("0 unexplained.")
    report = json.loads(json_file.read_text())
    assert report["passed"] and report["images"] == 20 and report["unexplained"] == 0
    levels = ["float", "frozen", "edge-quantized", "integer", ONNX, QDQ, QDQ8]
    assert [level["name"] for level in report["levels"]] == levels
    for level in report["levels"]:
        row = next(line for line in lines if line.split()[:1] == [level["name"]])
        assert f"{level['top1']:.2f} %" in row
    for layer in report["layers"]:
        assert any(line.startswith(f" {layer['name']} ") for line in lines)
    assert [p.name for p in json_file.parent.iterdir()] == ["result.json"]


def test_too_large_a_drop_fails(qexport: Run, converted: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Labelled by the soft network itself; the frozen one, never trained to be frozen, decides otherwise."""
    pixels = random_digits(40)
    loaded = load_checkpoint(checkpoint)
    set_soft(loaded.model, True)
    with torch.no_grad():
        x = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float() / 255
        labels = loaded.model((x - 0.3) / 0.4).argmax(1).numpy()
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels)
    arguments = ["--checkpoint", checkpoint, "--data", tmp_path / "images.npz", "--max-drop", 0.5]
    result = qexport("validate", converted / ONNX, *arguments)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("  top-1 falls by ")
    assert result.stdout.splitlines()[-1].endswith(" points from float to integer, allowed 0.5")


def test_images_without_labels(qexport: Run, converted: Path, checkpoint: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", random_digits(5))
    arguments = ["--checkpoint", checkpoint, "--data", tmp_path / "images.npy"]
    result = qexport("validate", converted / ONNX, *arguments, "--limit", 3)
    assert result.exit_code == 0 and "Levels on 3 images (no labels)" in result.stdout
    result = qexport("validate", converted / ONNX, *arguments, "--max-drop", 1)
    assert result.exit_code == 1 and "--max-drop needs labels" in result.stderr


def test_a_wrong_threshold_fails(qexport: Run, converted: Path, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """The mutated file still loads and runs; only the comparison can tell."""
    model = onnx.load(converted / ONNX)
    comparison = next(node for node in model.graph.node if node.op_type == "GreaterOrEqual")
    (tensor,) = (t for t in model.graph.initializer if t.name == comparison.input[1])
    bars = numpy_helper.to_array(tensor)
    tensor.raw_data = (bars + np.ptp(bars) // 4 + 1000).astype(bars.dtype).tobytes()
    onnx.save(model, tmp_path / "wrong.onnx")
    json_file = tmp_path / "result.json"
    arguments = ["--checkpoint", checkpoint, "--data", images, "--json", json_file]
    result = qexport("validate", tmp_path / "wrong.onnx", *arguments)
    assert (result.exit_code, result.stderr) == (1, "")
    verdict = result.stdout[result.stdout.index("FAIL:") :]
    name = comparison.output[0].partition("/")[0]
    assert "wrong.onnx" in verdict and "differ from the reference" in verdict and name in verdict
    assert not json.loads(json_file.read_text())["passed"]


def test_an_artifact_of_another_checkpoint(qexport: Run, converted: Path, images: Path, tmp_path: Path) -> None:
    other = save_digits(tmp_path / "other.pt")
    other.write_bytes(other.read_bytes() + b"\0")
    result = qexport("validate", converted / ONNX, "--checkpoint", other, "--data", images)
    assert result.exit_code == 1 and not result.stdout
    assert "model.onnx: the artifact was made from another checkpoint" in result.stderr


def test_an_unwritable_json_file(qexport: Run, converted: Path, checkpoint: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    target = tmp_path / "file" / "result.json"
    arguments = ["--checkpoint", checkpoint, "--data", images, "--limit", 2, "--json", target]
    result = qexport("validate", converted / ONNX, *arguments)
    assert result.exit_code == 1 and "the output cannot be written" in result.stderr
    assert "PASS" in result.stdout  # what took long to compute is shown first
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_json_is_strictly_valid(value: float) -> None:
    assert json.loads(json_text({"a": [value, 1.5]})) == {"a": [str(value), 1.5]}
