"""A runner for the command, and a converted network, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from digits_checkpoint import save_digits, save_images

from qexport.cli.main import main

Run = Callable[..., Result]


def invoke(*arguments: object) -> Result:
    """Run `qexport ARGUMENTS` in this process, 100 columns wide; stdout and stderr are kept apart."""
    return CliRunner(env={"COLUMNS": "100"}).invoke(main, [str(a) for a in arguments], prog_name="qexport")


@pytest.fixture(scope="session")
def qexport() -> Run:
    return invoke


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_digits(tmp_path_factory.mktemp("checkpoint") / "digits.pt")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images with labels."""
    return save_images(tmp_path_factory.mktemp("images") / "digits.npz")


@pytest.fixture(scope="session")
def conversion(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Output directory and result of a conversion to all ONNX formats."""
    output = tmp_path_factory.mktemp("conversion") / "out"
    return output, invoke("convert", checkpoint, "--bits", 2, "--format", "onnx,onnx-qdq,onnx-qdq8", "-o", output)


@pytest.fixture(scope="session")
def converted(conversion: tuple[Path, Result]) -> Path:
    return conversion[0]
