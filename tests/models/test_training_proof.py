"""The claims of docs/training.md, trained again from random weights: minutes, so only `make test-all` does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from qexport.conversion import convert
from qexport.models.train import main
from qexport.validation import validate

pytest.importorskip("sklearn", reason="the handwritten digits come with scikit-learn (extra 'demo')")

from qexport.models.digits_data import load_digits_split, write_npz

COMMANDS = {
    "qn": "--scheme qn --weight-levels=-1,0,1 --act-bits 2 --epochs 120 --seed 1 --hard-norms",
    "daq": "--scheme daq --weight-bits 2 --act-bits 2 --epochs 60",
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", COMMANDS)
def test_two_bit_digits_from_scratch(scheme: str, tmp_path: Path) -> None:
    """Held-out top-1 of at least 96 %, and the integer network within half a point of the soft one."""
    file, data = tmp_path / "net.pt", tmp_path / "test.npz"
    images, labels = load_digits_split("test")
    write_npz(data, images=images, labels=labels)
    options = ["--arch", "digits", "--data", "digits", *COMMANDS[scheme].split(), "-o", str(file)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    artifact = convert(file, tmp_path / "out", bits=2, edge_bits=None)
    report = validate([artifact.files["onnx"]], checkpoint=file, data=data, max_drop=0.5)
    assert report.passed, report.failures
    top1 = {level.name: level.top1 for level in report.levels}
    assert top1["float"] is not None and top1["float"] >= 96
    assert top1["integer"] is not None and top1["integer"] >= 96
