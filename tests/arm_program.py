"""Builds the C runtime for 64-bit ARM; replays networks and counts instructions under QEMU."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from runtime_program import PROGRAMS, RUNTIME, Build, record, run

from qexport.ir import Graph

COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64-static"
INSTRUCTION_SETS = {"cortex-a53": ["neon"], "cortex-a76": ["neon", "dotprod"], "max": ["neon", "dotprod", "i8mm"]}
"""Processor -> what it has beyond portable C, best last."""

_SYSTEM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_EXE_LINKER_FLAGS=-static")
_FLAGS = ("-O2", "-fno-pie", "-no-pie", "-DQXR_GUARD_PAGES")
BUILD = Build(shutil.which(COMPILER), _FLAGS, (*_SYSTEM, *PROGRAMS))

HERE = Path(__file__).resolve().parent / "runtime" / "aarch64"
FOLDERS = ("src", "src/scalar", "src/vector", "src/arm")
MACHINES = {"dotprod": "-march=armv8.2-a+dotprod", "i8mm": "-march=armv8.2-a+dotprod+i8mm"}
"""Beginning of a file's name -> what it is compiled for."""


def require(*tools: str) -> None:
    """Skip where one is missing."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def machine_flags(source: Path) -> list[str]:
    return [flag for name, flag in MACHINES.items() if source.name.startswith(name)]


def emulate(processor: str, program: Path, *arguments: str | Path) -> str:
    """What a Linux program prints; fails where it does."""
    done = run([EMULATOR, "-cpu", processor, program, *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(programs: Path, folder: Path, graph: Graph, feeds: Mapping[str, np.ndarray], processor: str) -> None:
    """Replay tile by tile on every instruction set, with 1 to 3 threads, weights packed and not."""
    model, samples = folder / "model.qpk", folder / "samples.raw"
    for path, data in zip((model, samples), record(graph, feeds), strict=True):
        path.write_bytes(data)
    found = emulate(processor, programs / "qxr_replay", model, samples)
    assert found.splitlines() == [f"{name} ok" for name in ("scalar", *INSTRUCTION_SETS[processor])]


def compile_objects(folder: Path) -> list[Path]:
    """The library as CMake's Release compiles it, without position-independent code."""
    require(COMPILER)
    sources = [source for path in FOLDERS for source in RUNTIME.glob(f"{path}/*.c")]
    objects = []
    for source in sorted(sources):
        objects.append(folder / f"{source.parent.name}-{source.stem}.o")
        flags = ["-std=c11", "-O3", "-fno-pie", "-mno-outline-atomics", *machine_flags(source), *_include(), "-c"]
        done = run([COMPILER, *flags, source, "-o", objects[-1]])
        assert done.returncode == 0, done.stderr
    return objects


def count_instructions(objects: list[Path], model: Path, folder: Path) -> dict[str, tuple[int, int]]:
    """Instructions of one run, loading and packing left out, and a hash of its outputs, by instruction set.

    A program without an operating system, on a processor of QEMU that has everything. Exact, and always the same.
    """
    emulator = "qemu-system-aarch64"
    require(emulator)
    program = folder / "count"
    flags = ["-std=gnu11", "-O2", "-ffreestanding", "-fno-tree-loop-distribute-patterns", "-fno-pie", *_include()]
    linked = ["-no-pie", "-static", "-nostdlib", f"-T{HERE / 'link.ld'}", "-Wl,--no-warn-rwx-segments"]
    done = run([COMPILER, *flags, f'-DMODEL="{model}"', HERE / "count.c", *objects, *linked, "-o", program])
    assert done.returncode == 0, done.stderr
    board = ["-M", "virt", "-cpu", "max", "-m", "256", "-nodefaults", "-nographic", "-semihosting"]
    done = run([emulator, *board, "-icount", "shift=0", "-kernel", program])
    printed = done.stdout + done.stderr
    hashes = dict(re.findall(r"^(\w+) output (\d+)$", printed, re.M))
    assert done.returncode == 0 and hashes, printed
    counts = re.findall(r"^(\w+) instructions (\d+) \d+ \d+$", printed, re.M)
    return {name: (sum(int(n) for of, n in counts if of == name), int(value)) for name, value in hashes.items()}


def count_input(elements: int) -> np.ndarray:
    """The input, u8, that the program makes up."""
    return (np.arange(elements, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(24)).astype(np.uint8)


def count_hash(outputs: bytes) -> int:
    """The hash of the outputs, i32, that the program prints: FNV-1a."""
    value = 2166136261
    for byte in outputs:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def _include() -> list[str]:
    return [f"-I{RUNTIME / 'src'}", f"-I{RUNTIME / 'include'}"]
