"""A converted network, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from digits_checkpoint import save_digits

from qexport.conversion import convert


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with model.onnx, model.qdq.onnx and model.qpk of one conversion."""
    folder = tmp_path_factory.mktemp("bench")
    convert(save_digits(folder / "digits.pt"), folder / "out", bits=2, formats=("onnx", "onnx-qdq", "qpk"))
    return folder / "out"
