"""Fixtures that build the C loader."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import pytest
from loader_program import SANITIZERS, Verdict, build_checker, checker, find_clang

Check = Callable[[Sequence[bytes]], list[Verdict]]
"""Opens files with the C loader."""


@pytest.fixture(scope="session")
def plain_check_files(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """The loader as gcc optimises it."""
    program = tmp_path_factory.mktemp("loader") / "check_files"
    build_checker([shutil.which("gcc") or pytest.skip("gcc is not installed"), "-O2"], program)
    return checker(program)


@pytest.fixture(scope="session")
def sanitized_check_files(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """The loader with AddressSanitizer and UndefinedBehaviorSanitizer: any read beyond a file ends it, and any
    undefined arithmetic."""
    program = tmp_path_factory.mktemp("loader") / "check_files"
    build_checker([find_clang() or pytest.skip("clang is not installed"), "-O1", *SANITIZERS], program)
    return checker(program)


@pytest.fixture(scope="session", params=["plain", "sanitized"])
def check_files(request: pytest.FixtureRequest) -> Check:
    """Both, one after the other."""
    return request.getfixturevalue(f"{request.param}_check_files")
