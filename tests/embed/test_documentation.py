"""docs/embedding.md is true: its commands run, one after the other, and its C compiles."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from embedded_program import CORTEX_M, GCC, HERE, STRICT, run, write_network
from packed_networks import GOLDEN

ROOT = HERE.parents[1]
PAGE = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (.+)$", PAGE.replace(re.search(r"```c.*?```", PAGE, re.S)[0], ""), re.M)  # type: ignore[index]


@pytest.mark.slow
def test_commands_run(tmp_path: Path) -> None:
    """From the root of a clone, with another folder in the place of `out`."""
    for target in (CORTEX_M["cortex-m4"], GCC):
        target.require()
    printed = ""
    for line in COMMANDS:
        words = [re.sub(r"^(-I)?out\b", rf"\g<1>{tmp_path}", word) for word in shlex.split(line)]
        if words[0] == "qexport":
            words[:1] = [sys.executable, "-m", "qexport"]
        assert shutil.which(words[0]), line
        done = run(words, cwd=ROOT)
        assert done.returncode == 0, (line, done.stderr.decode())
        printed += done.stdout.decode()
    assert printed.count("self-check passed") == 2
    assert ".rodata" in printed and re.search(r"^\.data +0 ", printed, re.M)


def test_example_compiles(tmp_path: Path) -> None:
    GCC.require()
    write_network(GOLDEN["products"](), tmp_path)
    (tmp_path / "example.c").write_text(re.search(r"```c\n(.*?)```", PAGE, re.S)[1])  # type: ignore[index]
    done = run(["gcc", *STRICT, "-c", tmp_path / "example.c", "-o", tmp_path / "example.o"])
    assert done.returncode == 0, done.stderr.decode()
