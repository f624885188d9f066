"""A published checkpoint as C: the DAQ W1A1 ResNet-20 on images, its memory, and its instructions on a Cortex-M4."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from embedded_program import (
    CORTEX_M,
    HERE,
    HERE_BY_COMPILER,
    LINUX,
    build,
    count_instructions,
    replay,
    run,
    self_check,
    undefined_symbols,
)

from qexport import convert
from qexport.backends.packed.reader import read_packed
from qexport.embed import embed
from qexport.reference import interpret

IMAGES = 8
CALIBRATION_IMAGES = 64
RUNTIME = HERE.parents[1] / "runtime"
MOST_CONSTANTS, MOST_CODE, MOST_ARENA = 52 * 1024, 12 * 1024, 64 * 1024
MOST_INSTRUCTIONS = {"cortex-m4": 48_500_000, "cortex-m55": 23_500_000}
"""3 % above what was measured with gcc 12.2 at -Os."""


QUICK = {"gcc", "cortex-m4"}
"""Processors of the short test run."""


def marked(processors: Iterable[str]) -> list:
    return [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in processors]


@pytest.fixture(scope="session")
def network(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .qpk file, with residual streams of 16 bits."""
    folder = tmp_path_factory.mktemp("resnet20")
    with np.load(data_dir / "cifar10" / "calibration.npz") as file:
        np.savez(
            folder / "few.npz", images=file["images"][:CALIBRATION_IMAGES], labels=file["labels"][:CALIBRATION_IMAGES]
        )
    convert(
        data_dir / "checkpoints" / "daq" / "cifar10_W1A1.pth",
        folder,
        bits=1,
        formats=("qpk",),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        calibration_data=folder / "few.npz",
    )
    return folder / "model.qpk"


@pytest.mark.parametrize("processor", marked([*HERE_BY_COMPILER, *LINUX]))
def test_images(processor: str, network: Path, data_dir: Path, tmp_path: Path) -> None:
    target = {**HERE_BY_COMPILER, **LINUX}[processor]
    values = embed(network, tmp_path)
    with np.load(data_dir / "cifar10" / "test.npz") as file:
        images = file["images"][:IMAGES].transpose(0, 3, 1, 2)
    flags = ["-O1", "-fsanitize=address,undefined"] if processor in HERE_BY_COMPILER else ["-O2"]
    program = build(target, tmp_path, ["model.c", HERE / "replay.c"], *flags)
    found = replay(target, program, images, values["output_size"])
    graph = read_packed(network).to_graph()
    (expected,) = interpret(graph, {"image": images.astype(np.int64)}).outputs.values()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("compiler", marked(HERE_BY_COMPILER))
def test_no_writable_data_and_no_library(compiler: str, network: Path, tmp_path: Path) -> None:
    embed(network, tmp_path)
    assert undefined_symbols(HERE_BY_COMPILER[compiler], tmp_path / "model.c") <= {"memcpy", "memset"}


@pytest.mark.parametrize("processor", marked(CORTEX_M))
def test_cortex_m(processor: str, network: Path, tmp_path: Path) -> None:
    embed(network, tmp_path)
    assert "self-check passed" in self_check(CORTEX_M[processor], tmp_path, "-Os")


def test_memory_on_a_cortex_m4(network: Path, tmp_path: Path) -> None:
    values = embed(network, tmp_path)
    target = CORTEX_M["cortex-m4"]
    target.require()
    size = shutil.which("arm-none-eabi-size") or pytest.skip("arm-none-eabi-size is not installed")
    compiled = tmp_path / "model.o"
    done = run(
        [target.compiler, "-std=c99", "-mcpu=cortex-m4", "-mthumb", "-Os", "-c", tmp_path / "model.c", "-o", compiled]
    )
    assert done.returncode == 0, done.stderr
    sections: dict[str, int] = {}
    for name, count in re.findall(
        r"^\.(text|rodata|data|bss)\S* +(\d+)", run([size, "-A", compiled]).stdout.decode(), re.M
    ):
        sections[name] = sections.get(name, 0) + int(count)
    assert sections["rodata"] <= MOST_CONSTANTS and sections["text"] <= MOST_CODE and values["arena"] <= MOST_ARENA
    assert abs(sections["rodata"] - values["constant_bytes"]) <= 0.01 * sections["rodata"], "what the README says"
    assert not sections.get("data") and not sections.get("bss")


@pytest.mark.slow
@pytest.mark.parametrize("processor", MOST_INSTRUCTIONS)
def test_instructions(processor: str, network: Path, tmp_path: Path) -> None:
    """At most a third of what the generic kernels of the runtime take; a slower kernel fails here."""
    embed(network, tmp_path)
    count = count_instructions(CORTEX_M[processor], tmp_path, "-Os")
    assert count <= MOST_INSTRUCTIONS[processor]
    assert count <= generic_instructions(processor, network, tmp_path) / 3


def generic_instructions(processor: str, network: Path, folder: Path) -> int:
    """Instructions of the C runtime's portable kernels for the same test vector, whose outputs are checked.

    They include opening the file, 1 % of the whole.
    """
    data = ",".join(map(str, network.read_bytes()))
    (folder / "network.h").write_text(f"static const uint8_t network[] __attribute__((aligned(64))) = {{{data}}};\n")
    sources = [HERE / "cortex_m" / "count_generic.c", *sorted((RUNTIME / "src").glob("*.c"))]
    sources += sorted((RUNTIME / "src" / "scalar").glob("*.c"))
    flags = ["-Os", "-std=c11", f"-I{RUNTIME / 'include'}", f"-I{RUNTIME / 'src'}", "-DQXR_SCALAR_ONLY"]
    program = build(CORTEX_M[processor], folder, sources, *flags)
    done = run([*CORTEX_M[processor].emulator, program])
    assert done.returncode == 0, (done.returncode, done.stdout)
    return int(done.stdout.split()[0])
