"""The claims of docs/training.md, trained again from random weights: minutes, so only `make test-all` does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from qexport.conversion import convert
from qexport.models.train import main as train_command
from qexport.validation import validate

pytest.importorskip("sklearn", reason="the handwritten digits come with scikit-learn (extra 'demo')")

from qexport.models.detection.digit_scenes import main as write_scenes
from qexport.models.digits_data import load_digits_split, write_npz

COMMANDS = {
    "qn": "--scheme qn --weight-levels=-1,0,1 --act-bits 2 --epochs 120 --seed 1 --hard-norms",
    "daq": "--scheme daq --weight-bits 2 --act-bits 2 --epochs 60",
}

DETECTOR = "--arch ssd_small --scheme daq --weight-bits 3 --act-bits 3 --data scenes --epochs 6"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", COMMANDS)
def test_two_bit_digits_from_scratch(scheme: str, tmp_path: Path) -> None:
    """Held-out top-1 of at least 96 %, and the integer network within half a point of the soft one."""
    file, data = tmp_path / "net.pt", tmp_path / "test.npz"
    images, labels = load_digits_split("test")
    write_npz(data, images=images, labels=labels)
    options = ["--arch", "digits", "--data", "digits", *COMMANDS[scheme].split(), "-o", str(file)]
    result = CliRunner().invoke(train_command, options)
    assert result.exit_code == 0, result.output
    artifact = convert(file, tmp_path / "out", bits=2, edge_bits=None)
    report = validate([artifact.files["onnx"]], checkpoint=file, data=data, max_drop=0.5)
    assert report.passed, report.failures
    top1 = {level.name: level.top1 for level in report.levels}
    assert top1["float"] is not None and top1["float"] >= 96
    assert top1["integer"] is not None and top1["integer"] >= 96


@pytest.mark.slow
def test_a_detector_from_scratch(tmp_path: Path) -> None:
    """mAP@0.5 of at least 0.8 on scenes it was not trained on, and the integer network's within 0.01."""
    file, data = tmp_path / "net.pt", tmp_path / "test.npz"
    result = CliRunner().invoke(train_command, [*DETECTOR.split(), "-o", str(file)])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(write_scenes, [str(data), "--split", "test", "--count", "200"])
    assert result.exit_code == 0, result.output
    artifact = convert(file, tmp_path / "out", formats=("onnx", "qpk"))
    report = validate(list(artifact.files.values()), checkpoint=file, data=data, max_drop=1.0)
    assert report.passed, report.failures
    levels = {level.name: level.mean_ap for level in report.levels}
    soft, integer = levels["float"], levels["integer"]
    assert soft is not None and soft.voc >= 80
    assert integer is not None and abs(integer.voc - soft.voc) <= 1
