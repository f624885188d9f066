"""Bad input: exit status 1, a message that helps, nothing on stdout, nothing left on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from digits_checkpoint import random_digits, save_digits, save_images
from torch import nn

Run = Callable[..., Result]
MEAN_STD = ("--mean", "0.5", "--std", "0.5")

USER_NETWORK = """
import torch
from torch import nn


class Sine(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(72, 4)

    def forward(self, x):
        return self.fc(torch.sin(self.conv(x)).flatten(1))
"""


class Payload:
    """Pickles into a call that makes a directory."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def not_a_checkpoint(root: Path) -> tuple[object, ...]:
    (root / "in.pt").write_text("<html>404</html>")
    return (root / "in.pt",)


def absent(root: Path) -> tuple[object, ...]:
    return (root / "in.pt",)


def truncated(root: Path) -> tuple[object, ...]:
    path = save_digits(root / "in.pt")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return (path,)


def pickled_code(root: Path) -> tuple[object, ...]:
    torch.save({"state_dict": {"a": torch.ones(2)}, "x": Payload(root / "was-run")}, root / "in.pt")
    return (root / "in.pt",)


def plain(root: Path, *options: object) -> tuple[object, ...]:
    return (save_digits(root / "in.pt"), *options)


def nan_weight(root: Path) -> tuple[object, ...]:
    return (save_digits(root / "in.pt", damage=True),)


def user_network(root: Path, *options: object) -> tuple[object, ...]:
    (root / "sine_network.py").write_text(USER_NETWORK)
    layers = {"conv": nn.Conv2d(1, 2, 3), "fc": nn.Linear(72, 4)}
    state = {f"{name}.{key}": t for name, layer in layers.items() for key, t in layer.state_dict().items()}
    torch.save(state, root / "in.pt")
    return (root / "in.pt", "--model", "sine_network:Sine", "--input-shape", "1,8,8", *options)


def wrong_image_size(root: Path) -> tuple[object, ...]:
    np.savez(root / "images.npz", images=np.zeros((4, 9, 9, 1), np.uint8))
    return plain(root, "--calibration-data", root / "images.npz")


def empty_data_set(root: Path) -> tuple[object, ...]:
    np.savez(root / "images.npz", images=random_digits(0))
    return plain(root, "--calibration-data", root / "images.npz")


CONVERSIONS: dict[str, tuple[Callable[[Path], tuple[object, ...]], tuple[str, ...]]] = {
    "absent": (absent, ("in.pt: no such file",)),
    "not_a_checkpoint": (
        not_a_checkpoint,
        ("in.pt: not a checkpoint", "<html>", "expected: a file written by torch.save"),
    ),
    "truncated": (truncated, ("in.pt: the file is truncated or damaged", "remedy:   copy or download it again")),
    "pickled_code": (pickled_code, ("would run code from it, which is refused", "mkdir", "remedy:", "torch.save(")),
    "wrong_bits": (
        lambda root: plain(root, "--bits", 1),
        ("have more levels than 1 bit can hold", "2 bits", "say --bits 2"),
    ),
    "unknown_architecture": (
        lambda root: plain(root, "--arch", "resnet1001"),
        ("resnet1001", "expected: qn-digits"),
    ),
    "nan_weight": (nan_weight, ("NaN or infinite", "finite")),
    "unsupported_operator": (
        lambda root: user_network(root, *MEAN_STD),
        ("sin", "sine_network.py"),
    ),
    "missing_mean": (user_network, ("how its images were prepared", "no --mean and no --std", "such as --mean 0.485")),
    "wrong_image_size": (wrong_image_size, ("another size than the network takes", "(4, 9, 9, 1)", "[N, 8, 8, 1]")),
    "empty_data_set": (empty_data_set, ("images.npz: there are no images",)),
    "unknown_format": (
        lambda root: plain(root, "--format", "onnx,tflite"),
        ("--format: unknown format", "tflite", "expected: onnx, onnx-qdq, onnx-qdq8, qpk, ort"),
    ),
    "edge_bits": (
        lambda root: plain(root, "--edge-bits", 40),
        ("--edge-bits: unsupported bit width", "4 to 24, or max"),
    ),
    "opset": (lambda root: plain(root, "--opset", 9), ("--opset: unsupported ONNX opset", "18 to 25")),
}


@pytest.mark.parametrize("case", CONVERSIONS)
def test_conversions_that_must_fail(qexport: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    prepare, parts = CONVERSIONS[case]
    arguments = prepare(tmp_path)
    before = {p.name for p in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)  # where a user's own module is found
    result = qexport("convert", *arguments, "-o", tmp_path / "new" / "out")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and "internal error" not in result.stderr, result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_unwritable_output(qexport: Run, tmp_path: Path) -> None:
    """Below a regular file nothing can be made, not even by root, who runs tests in containers."""
    path = save_digits(tmp_path / "in.pt")
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        result = qexport("convert", path, "-o", output)
        assert result.exit_code == 1 and f"{output}: the output cannot be written" in result.stderr
        assert "choose another one with -o" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_validation_data_that_must_fail(qexport: Run, converted: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "large.npz", images=np.zeros((2, 16, 16, 1), np.uint8))
    np.savez(tmp_path / "labels.npz", images=random_digits(2), labels=np.array([0, 10]))
    cases = {
        "absent": "no such file or folder",
        "empty": "there are no images",
        "large.npz": "images have another size than the network takes",
        "labels.npz": "a label lies outside the network's classes",
    }
    for name, message in cases.items():
        arguments = ["--checkpoint", checkpoint, "--data", tmp_path / name]
        result = qexport("validate", converted / "model.onnx", *arguments)
        assert result.exit_code == 1 and f"{tmp_path / name}: {message}" in result.stderr, name
        assert not result.stdout


def test_artifacts_that_cannot_be_validated(qexport: Run, converted: Path, checkpoint: Path, tmp_path: Path) -> None:
    data = save_images(tmp_path / "images.npz", 2)
    whole = (converted / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("absent.onnx", "no such file"),
        ("cut.onnx", "not an ONNX model"),
        ("images.npz", "not an ONNX"),
    ):
        result = qexport("validate", tmp_path / name, "--checkpoint", checkpoint, "--data", data)
        assert result.exit_code == 1 and f"{tmp_path / name}: {message}" in result.stderr, name
