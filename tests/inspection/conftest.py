"""A converted network, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from digits_checkpoint import save_digits

from qexport.conversion import Artifact, convert


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_digits(tmp_path_factory.mktemp("checkpoint") / "digits.pt")


@pytest.fixture(scope="session")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return convert(checkpoint, tmp_path_factory.mktemp("out"), bits=2, formats=("onnx", "onnx-qdq"))
