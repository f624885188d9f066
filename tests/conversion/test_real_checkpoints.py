"""The real third-party checkpoints, converted and held against the golden logits of the original code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from qexport.backends.onnx.inspection import assert_integer, weight_bytes
from qexport.backends.onnx.session import open_session, run_session
from qexport.conversion import Artifact, convert

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Case:
    """One conversion and what it must reach on cifar10/test.npz, in percent and percentage points."""

    file: str
    bits: int
    agreement: float
    top1_within: float
    edge_bits: int | None = 16
    calibrated: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{Path(self.file).stem}-edge{self.edge_bits or 'max'}"


W3_LEVELS = {"weight_levels": (-4, -2, -1, 0, 1, 2, 4)}
CASES = [
    Case("daq/cifar10_W1A1.pth", 1, 99.0, 1.0, None),
    Case("daq/cifar10_W1A1.pth", 1, 96.0, 1.0, 16),
    Case("daq/cifar10_W1A1.pth", 1, 85.0, 1.5, 8),
    Case("daq/cifar10_W1A32.pth", 1, 97.0, 1.5, calibrated=True),
    Case("qn/resnet20_w2t_a2.pth", 2, 98.5, 1.0, None),
    Case("qn/resnet20_w2t.pth", 2, 97.0, 1.5, calibrated=True),
    Case("qn/resnet20_w2t_legacy.pth", 2, 97.0, 1.5, calibrated=True),
    Case("qn/resnet20_w3.pth", 3, 97.0, 1.5, calibrated=True, extra=W3_LEVELS),
    Case("qn/resnet20_w2t.pth", 2, 95.0, 2.0),  # no data: ranges from batch norm
]


@pytest.fixture(scope="module")
def calibration_images(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 training images, as a file."""
    path = tmp_path_factory.mktemp("calibration") / "images.npy"
    np.save(path, np.load(data_dir / "cifar10" / "calibration.npz")["images"][:128])
    return path


def _convert(case: Case, data_dir: Path, calibration: Path, output: Path) -> Artifact:
    return convert(
        data_dir / "checkpoints" / case.file,
        output,
        bits=case.bits,
        edge_bits=case.edge_bits,
        mean=MEAN,
        std=STD,
        calibration_data=calibration if case.calibrated else None,
        **case.extra,
    )


def _golden(case: Case, data_dir: Path) -> np.ndarray:
    stem = Path(case.file).name.removesuffix(".pth").removesuffix("_legacy")
    return np.load((data_dir / "checkpoints" / case.file).with_name(f"{stem}.logits.npy"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_integer_network_keeps_golden_predictions(
    case: Case, data_dir: Path, calibration_images: Path, tmp_path: Path
) -> None:
    artifact = _convert(case, data_dir, calibration_images, tmp_path)
    test = np.load(data_dir / "cifar10" / "test.npz")
    images, labels = np.ascontiguousarray(test["images"].transpose(0, 3, 1, 2)), test["labels"]
    golden = _golden(case, data_dir).argmax(1)

    x = (torch.from_numpy(images).float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        frozen = artifact.built.frozen.module(x).argmax(1).numpy()
    assert np.array_equal(frozen, golden)

    session = open_session(artifact.files["onnx"].read_bytes())
    (logits,) = run_session(session, {"image": images}).values()
    assert logits.dtype == np.int32
    found = logits.argmax(1)
    assert 100 * np.mean(found == golden) >= case.agreement
    assert abs(100 * (np.mean(found == labels) - np.mean(golden == labels))) <= case.top1_within


@pytest.mark.parametrize("case", CASES[1:2] + CASES[4:5] + CASES[7:8], ids=str)
def test_low_bit_layers_are_stored_packed_and_integer_only(
    case: Case, data_dir: Path, calibration_images: Path, tmp_path: Path
) -> None:
    artifact = _convert(case, data_dir, calibration_images, tmp_path)
    model = onnx.load(artifact.files["onnx"])
    assert_integer(model)
    stored = weight_bytes(model)
    low_bit = [layer for layer in artifact.report["layers"] if not layer["edge"]]
    assert len(low_bit) == 18
    for layer in low_bit:
        assert layer["weight_bits"] == case.bits
        assert stored[layer["name"]] <= 1.35 * layer["weights"] * case.bits / 8


def test_conversion_is_deterministic(data_dir: Path, calibration_images: Path, tmp_path: Path) -> None:
    first, second = (_convert(CASES[4], data_dir, calibration_images, tmp_path / name) for name in "ab")
    assert first.files["onnx"].read_bytes() == second.files["onnx"].read_bytes()
    assert (tmp_path / "a" / "report.json").read_bytes() == (tmp_path / "b" / "report.json").read_bytes()


def test_every_quantizer_is_proven(data_dir: Path, calibration_images: Path, tmp_path: Path) -> None:
    report = _convert(CASES[1], data_dir, calibration_images, tmp_path).report
    proof = report["proof"]
    assert proof["quantizers"] == 18 == proof["exhaustive_layers"] + proof["interval_layers"]
    assert proof["tied_thresholds"] == 0
    assert all(q["values_proven"] > 0 for q in report["quantizers"])
