"""Builds the C loader and asks it what it thinks of files."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"
LOADER = ["status.c", "crc.c", "weights.c", "open.c", "info.c", *(p.name for p in (RUNTIME / "src").glob("check_*.c"))]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
CLANGS = ["clang", *(f"clang-{n}" for n in range(25, 10, -1))]
"""Names clang goes by where no plain one is installed."""


@dataclass(frozen=True)
class Verdict:
    """What qxr_open said: the name of its status without the prefix, and the tensor at fault (-1: the whole file)."""

    status: str
    failed_at: int


def status_names() -> list[str]:
    """Members of qxr_status in order, without the prefix QXR_ERROR_."""
    text = (RUNTIME / "include" / "qxr.h").read_text()
    body = re.search(r"typedef enum qxr_status \{(.*?)\}", text, re.S)
    assert body is not None
    names = re.findall(r"^\s*QXR_(?:ERROR_)?(\w+)", body[1], re.M)
    assert names[0] == "OK" and names[-1] == "STATUS_COUNT"
    return names[:-1]


def find_clang() -> str | None:
    return next((path for path in map(shutil.which, CLANGS) if path), None)


def build_checker(command: list[str], program: Path) -> None:
    """Build runtime/tests/check_files.c with the loader; skips where clang comes without its sanitizers."""
    sources = [str(RUNTIME / "src" / name) for name in LOADER] + [str(RUNTIME / "tests" / "check_files.c")]
    include = [f"-I{RUNTIME / 'include'}", f"-I{RUNTIME / 'src'}"]
    built = subprocess.run([*command, *WARNINGS, *include, *sources, "-o", program], capture_output=True, text=True)
    if "libclang_rt" in built.stderr:
        pytest.skip("clang's sanitizer runtime is not installed")
    assert built.returncode == 0, built.stderr


def checker(program: Path) -> Callable[[Sequence[bytes]], list[Verdict]]:
    names = status_names()

    def check(files: Sequence[bytes]) -> list[Verdict]:
        stream = b"".join(struct.pack("<I", len(data)) + data for data in files)
        done = subprocess.run([program], input=stream, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        verdicts = []
        for line in done.stdout.decode().splitlines():
            status, at = map(int, line.split())
            verdicts.append(Verdict(names[status], at))
        assert len(verdicts) == len(files)
        return verdicts

    return check
