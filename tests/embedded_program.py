"""Generates the C of networks, compiles it for this machine and others, and runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qexport.backends.packed.writer import to_packed
from qexport.embed import embed
from qexport.ir import Graph
from qexport.reference import interpret

HERE = Path(__file__).resolve().parent / "embed"
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
TIMEOUT = 120
"""Seconds a program may run; none here needs a tenth of it."""


@dataclass(frozen=True)
class Target:
    """A processor: how to compile for it and run the result.

    Attributes:
        compiler: command.
        flags: of the compiler, also to link.
        emulator: command in front of the program.
        sources: start-up code.
        byte_order: of numbers the program writes.
    """

    compiler: str
    flags: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    byte_order: str = "<"

    def require(self) -> None:
        """Skip where a tool is missing."""
        for tool in (self.compiler, *self.emulator[:1]):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")


def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, timeout=TIMEOUT, **options)  # type: ignore[call-overload]


def write_network(graph: Graph, folder: Path, **options: str) -> dict:
    """The generated directory of a graph."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "network.qpk"
    model.write_bytes(to_packed(graph, metadata={}))
    return embed(model, folder, **options)


def build(target: Target, folder: Path, sources: Sequence[Path | str], *flags: str) -> Path:
    """Compile files of a generated directory (by name) and others (by path), with every warning an error."""
    target.require()
    program = folder / "program"
    paths = [folder / s if isinstance(s, str) else s for s in sources]
    options = [*STRICT, *target.flags, *flags, f"-I{folder}"]
    done = run([target.compiler, *options, *paths, *target.sources, "-o", program, *link_flags(target)])
    if b"libclang_rt" in done.stderr or b"cannot find -lasan" in done.stderr:
        pytest.skip("the compiler's sanitizer runtime is not installed")
    assert done.returncode == 0, done.stderr.decode()
    return program


def link_flags(target: Target) -> tuple[str, ...]:
    return () if os.path.basename(target.compiler) in ("gcc", "clang", "clang-14") else ("-static",)


def replay(target: Target, program: Path, feeds: np.ndarray | Sequence[np.ndarray], size: int) -> np.ndarray:
    """Outputs [N, size] of a program made with replay.c for samples [N, ...] of every input."""
    arrays = [feeds] if isinstance(feeds, np.ndarray) else feeds
    rows = np.concatenate([a.reshape(len(a), -1).astype(np.uint8) for a in arrays], axis=1)
    done = run([*target.emulator, program], input=rows.tobytes())
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    return np.frombuffer(done.stdout, f"{target.byte_order}i4").reshape(len(rows), size)


def expected_outputs(graph: Graph, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What the reference computes, [N, all outputs]."""
    found = interpret(graph, feeds).outputs
    return np.concatenate([found[name].reshape(len(found[name]), -1) for name in graph.outputs], axis=1)
