"""Builds the C runtime with CMake, in several ways, and replays networks in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from loader_program import RUNTIME, SANITIZERS, find_clang

from qexport.backends.packed.writer import lay_out, to_packed
from qexport.ir import Graph
from qexport.reference import interpret

TIMEOUT = 300
"""Seconds a program may run; none here needs a tenth of it."""


@dataclass(frozen=True)
class Build:
    """How the runtime is compiled."""

    compiler: str | None
    flags: tuple[str, ...]
    options: tuple[str, ...] = ()


PROGRAMS = ("-DQXR_BUILD_TESTS=ON", "-DQXR_BUILD_BENCH=ON")

BUILDS = {
    "gcc": Build(shutil.which("gcc"), ("-O1",)),
    "clang-sanitizers": Build(find_clang(), ("-O1", *SANITIZERS), PROGRAMS),
    "gcc-emulated": Build(shutil.which("gcc"), ("-O2",), ("-DQXR_EMULATE=ON", *PROGRAMS)),
    "gcc-scalar": Build(shutil.which("gcc"), ("-Os", "-fno-pie", "-no-pie"), ("-DQXR_SCALAR_ONLY=ON",)),
}


def run(command: list[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, **options)  # type: ignore[call-overload]


def configure_and_build(build: Build, folder: Path) -> Path:
    """The folder of a finished build; skips where a tool is missing. Every warning is an error."""
    cmake = shutil.which("cmake") or pytest.skip("cmake is not installed")
    if build.compiler is None:
        pytest.skip("the compiler is not installed")
    if "-DQXR_EMULATE=ON" in build.options and not Path("/usr/include/simde").is_dir():
        pytest.skip("SIMDe is not installed")
    settings = [f"-DCMAKE_C_COMPILER={build.compiler}", f"-DCMAKE_C_FLAGS={' '.join(build.flags)}", *build.options]
    settings += ["-DCMAKE_BUILD_TYPE=None", "-DQXR_WERROR=ON"]
    configured = run([cmake, "-S", RUNTIME, "-B", folder, *settings], env=_plain_environment())
    assert configured.returncode == 0, configured.stderr
    built = run([cmake, "--build", folder, "--parallel", str(os.cpu_count() or 1)])
    if "libclang_rt" in built.stderr:
        pytest.skip("clang's sanitizer runtime is not installed")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def _plain_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("CC", "CFLAGS", "LDFLAGS")}


def record(graph: Graph, feeds: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    """The .qpk file of a graph, and its samples as runtime/tests/replay.c reads them."""
    ordered = lay_out(graph).graph
    tensors = interpret(graph, dict(feeds), keep="*").tensors
    inputs, names = list(ordered.inputs), [*ordered.inputs, *(node.name for node in ordered.nodes)]
    samples = []
    for i in range(len(tensors[names[0]])):
        samples += [tensors[name][i].astype(np.uint8).tobytes() for name in inputs]
        samples += [tensors[name][i].astype("<i4").tobytes() for name in names]
    return to_packed(graph, metadata={}), b"".join(samples)


def replay(folder: Path, file: bytes, samples: bytes, scratch: Path) -> subprocess.CompletedProcess[str]:
    """Run qxr_replay; its output names the instruction sets on which every element was equal."""
    model, recorded = scratch / "model.qpk", scratch / "samples.raw"
    model.write_bytes(file)
    recorded.write_bytes(samples)
    return run([folder / "qxr_replay", model, recorded])
