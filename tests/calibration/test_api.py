"""qexport.calibrate: checkpoints and models in memory, whatever holds the images, and convert with the result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits_checkpoint import random_digits, save_digits, save_images
from torch.utils.data import DataLoader, TensorDataset

import qexport
from qexport.checkpoints import load_checkpoint
from qexport.errors import DataError, OptionError, OutputError

PREPROCESSING: dict[str, Any] = {"input_shape": (1, 8, 8), "mean": (0.3,), "std": (0.4,)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight-only digits."""
    return save_digits(tmp_path_factory.mktemp("weight_only") / "digits.pt", weight_only=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """random_digits(20) with labels."""
    return save_images(tmp_path_factory.mktemp("images") / "digits.npz")


def test_every_source_gives_the_same_calibration(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    x = random_digits(20).transpose(0, 3, 1, 2)
    normalized = (torch.from_numpy(x).float() / 255 - 0.3) / 0.4
    expected = qexport.calibrate(checkpoint, images, tmp_path / "c.json")
    assert qexport.Calibration.load(tmp_path / "c.json") == expected
    assert (expected.images, expected.method, expected.source.file) == (20, "mse", "digits.pt")
    for data in (x, DataLoader(TensorDataset(normalized, torch.zeros(20)), batch_size=7, shuffle=True)):
        assert qexport.calibrate(str(checkpoint), data) == expected


def test_a_model_in_memory_is_its_checkpoint(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    model = load_checkpoint(checkpoint).model.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = qexport.calibrate(model, images, **PREPROCESSING)
    assert model.training and all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    from_file = qexport.calibrate(checkpoint, images)
    assert (found.ranges, found.streams) == (from_file.ranges, from_file.streams)
    assert found.source.sha256 == ""
    artifact = qexport.convert(checkpoint, tmp_path / "out", calibration=found)
    assert artifact.built.settings.ranges == found.ranges


def test_a_model_in_memory_needs_its_preprocessing(checkpoint: Path, images: Path) -> None:
    with pytest.raises(OptionError, match="does not say how its images are prepared"):
        qexport.calibrate(load_checkpoint(checkpoint).model, images, mean=(0.3,))


def test_conversion_takes_the_calibration_or_its_file(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    found = qexport.calibrate(checkpoint, images, tmp_path / "c.json", method="percentile", act_bits=5)
    artifacts = [
        qexport.convert(checkpoint, tmp_path / str(i), calibration=calibration)
        for i, calibration in enumerate((found, tmp_path / "c.json"))
    ]
    first, second = ((tmp_path / name / "model.onnx").read_bytes() for name in "01")
    assert first == second
    settings = artifacts[0].built.settings
    assert (settings.ranges, settings.stream_ranges, settings.float_act_bits) == (found.ranges, found.streams, 5)
    assert settings.calibration == "20 images, method percentile"


def test_an_artifact_of_mixed_bits_is_validated(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """Ranges and their bits survive in the artifact, from which validation builds the network again."""
    found = qexport.calibrate(checkpoint, images, act_budget=4.5)
    assert len(set(found.bits_of.values())) > 1
    artifact = qexport.convert(checkpoint, tmp_path, calibration=found)
    report = qexport.validate([artifact.files["onnx"]], checkpoint=checkpoint, data=images)
    assert report.passed and report.unexplained == 0


def test_sensitivity_sees_no_more_images_than_calibration(checkpoint: Path, images: Path) -> None:
    few = qexport.calibrate(checkpoint, images, limit=3, sensitivity=True)
    same = qexport.calibrate(checkpoint, random_digits(20).transpose(0, 3, 1, 2)[:3], sensitivity=True)
    assert few.sensitivity == same.sensitivity
    assert few.sensitivity != qexport.calibrate(checkpoint, images, sensitivity=True).sensitivity


def test_streams_stay_wide_where_asked(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    found = qexport.calibrate(checkpoint, images, act_bits=3)
    wide = qexport.convert(checkpoint, tmp_path, calibration=found, stream_bits=32)
    narrow = qexport.convert(checkpoint, tmp_path, calibration=found)
    assert wide.built.settings.stream_ranges == {}
    assert {f.bits for f in wide.built.lowered.fixed_points.values()} == {32}
    assert 16 in {f.bits for f in narrow.built.lowered.fixed_points.values()}


def test_the_calibration_of_another_network_is_refused(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    found = qexport.calibrate(load_checkpoint(checkpoint).model, images, **PREPROCESSING)
    found.ranges.pop("relu")
    with pytest.raises(OptionError, match="made from another network\n  got:      no range for 1 activations: relu"):
        qexport.convert(checkpoint, tmp_path / "out", calibration=found)
    assert not (tmp_path / "out").exists()


def test_ranges_of_unknown_tensors_are_refused(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """A name misspelt by hand must not pass for a calibrated one."""
    found = qexport.calibrate(load_checkpoint(checkpoint).model, images, **PREPROCESSING)
    found.ranges["rleu"] = found.ranges["relu"]
    with pytest.raises(OptionError, match="tensors the network does not have\n  got:      rleu"):
        qexport.convert(checkpoint, tmp_path / "out", calibration=found)


@pytest.mark.parametrize("method", ["max", "average", "percentile", "entropy", "mse", "output"])
def test_black_images(method: str, checkpoint: Path, tmp_path: Path) -> None:
    """Every activation is the same in all images; some are zero throughout."""
    found = qexport.calibrate(checkpoint, np.zeros((3, 1, 8, 8), np.uint8), method=method)
    assert all(np.isfinite(span).all() and span[0] < span[1] for span in found.ranges.values())
    qexport.convert(checkpoint, tmp_path, calibration=found)


def test_nothing_is_left_behind(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        qexport.calibrate(checkpoint, [np.full((1, 1, 8, 8), np.nan)], tmp_path / "new" / "c.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        qexport.calibrate(checkpoint, images, tmp_path / "file" / "c.json")


def test_no_torch_before_it_is_needed() -> None:
    code = "import sys, qexport; assert 'calibrate' in qexport.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
