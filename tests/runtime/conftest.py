"""Fixtures that build the C runtime and the programs that test it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import pytest
from loader_program import SANITIZERS, Verdict, build_checker, checker, find_clang


@pytest.fixture(scope="session", params=["gcc", "clang-sanitizers"])
def check_files(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[bytes]], list[Verdict]]:
    """A function that opens files with the C loader.

    Once as a plain build, and once with AddressSanitizer and UndefinedBehaviorSanitizer, which end the program on
    any read beyond a file and any undefined arithmetic.
    """
    if request.param == "gcc":
        command = [shutil.which("gcc") or pytest.skip("gcc is not installed"), "-O2"]
    else:
        command = [find_clang() or pytest.skip("clang is not installed"), "-O1", *SANITIZERS]
    program = tmp_path_factory.mktemp("loader") / "check_files"
    build_checker(command, program)
    return checker(program)
