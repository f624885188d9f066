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
EXAMPLES = re.findall(r"```c\n(.*?)```", PAGE, re.S)
COMMANDS = re.findall(r"^    (.+)$", re.sub(r"```.*?```", "", PAGE, flags=re.S), re.M)


@pytest.mark.slow
def test_commands_run(tmp_path: Path) -> None:
    """From the root of a clone, with another folder in the place of `out`."""
    for target in (CORTEX_M["cortex-m4"], GCC):
        target.require()
    printed = ""
    for line in COMMANDS:
        words = [re.sub(r"^(-I|-D\w+=)?out\b", rf"\g<1>{tmp_path}", word) for word in shlex.split(line)]
        if words[0] == "qexport":
            words[:1] = [sys.executable, "-m", "qexport"]
        assert shutil.which(words[0]), line
        done = run(words, cwd=ROOT)
        assert done.returncode == 0, (line, done.stderr.decode())
        printed += done.stdout.decode()
    assert printed.count("self-check passed") == 3
    done = run([tmp_path / "example" / "example", tmp_path / "model.qpk"], input=bytes(range(64)))
    assert done.returncode == 0 and len(done.stdout.split()) == 10, "one digit gives ten scores"
    assert ".rodata" in printed and re.search(r"^\.data +0 ", printed, re.M)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_compiles(example: str, tmp_path: Path) -> None:
    GCC.require()
    several = "models.h" in example
    write_network(GOLDEN["products"](), tmp_path, runtime=several, name="digits" if several else "model")
    (tmp_path / "example.c").write_text(example)
    include = [f"-I{tmp_path / 'qxr'}"] if several else []
    done = run(["gcc", *STRICT, *include, "-c", tmp_path / "example.c", "-o", tmp_path / "example.o"])
    assert done.returncode == 0, done.stderr.decode()
