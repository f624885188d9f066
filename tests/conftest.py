"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real checkpoints and images from elsewhere; tests that need them skip where they are absent."""
    path = Path(os.environ.get("QEXPORT_TEST_DATA", PROJECT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no test data at {path}; set QEXPORT_TEST_DATA to its folder")
    return path
