"""The kernels for 64-bit ARM under QEMU: each element of each tensor equals the reference's, each kernel forced.

The program places a page that may not be touched behind every block of memory: an access outside ends it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from code_layers import LAYERS, layer_graph, layer_images
from lowering import lowered_case
from networks import CASES
from operator_graphs import OPERATOR_GRAPHS, operator_graph
from runtime_program import PROGRAMS, RUNTIME, Build, configure_and_build, record, run

from qexport.ir import Graph

QEMU = "qemu-aarch64-static"
INSTRUCTION_SETS = {"cortex-a53": ["neon"], "cortex-a76": ["neon", "dotprod"], "max": ["neon", "dotprod"]}
"""Processor -> what it has beyond portable C, best last."""
SYSTEM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_EXE_LINKER_FLAGS=-static")
BUILD = Build(
    shutil.which("aarch64-linux-gnu-gcc"), ("-O2", "-fno-pie", "-no-pie", "-DQXR_GUARD_PAGES"), (*SYSTEM, *PROGRAMS)
)

QUICK_NETWORKS = {"linear-stack"}
QUICK_OPERATORS = 16
"""Every so many in the short test run."""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    return configure_and_build(BUILD, tmp_path_factory.mktemp("aarch64"))


def emulate(processor: str, program: Path, *arguments: str | Path) -> str:
    done = run([QEMU, "-cpu", processor, program, *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(programs: Path, folder: Path, graph: Graph, feeds: dict[str, np.ndarray], processor: str) -> None:
    """Replay tile by tile on every instruction set, with 1 to 3 threads, packed and not."""
    model, samples = folder / "model.qpk", folder / "samples.raw"
    for path, data in zip((model, samples), record(graph, feeds), strict=True):
        path.write_bytes(data)
    found = emulate(processor, programs / "qxr_replay", model, samples)
    assert found.splitlines() == [f"{name} ok" for name in ("scalar", *INSTRUCTION_SETS[processor])]


def marked(names: list[str], quick: set[str]) -> list:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(list(CASES), QUICK_NETWORKS))
def test_networks(programs: Path, name: str, tmp_path: Path) -> None:
    low, images = lowered_case(name, 1)
    check(programs, tmp_path, low.graph, {"image": images}, "cortex-a76")


@pytest.mark.parametrize("name", marked(list(OPERATOR_GRAPHS), set(list(OPERATOR_GRAPHS)[::QUICK_OPERATORS])))
def test_operators(programs: Path, name: str, tmp_path: Path) -> None:
    graph, images = operator_graph(name)
    check(programs, tmp_path, graph, {"image": images}, "cortex-a76")


KERNELS = {
    "bits": ("neon bits", "neon bits"),
    "bits, values beyond 16 bits": ("neon i16", "dotprod"),
    "two levels, two bits": ("neon table", "dotprod"),
    "two levels, signs": ("neon table", "dotprod"),
    "four levels, two bits": ("neon table", "dotprod"),
    "four levels, four bits": ("neon table", "dotprod"),
    "seven levels": ("neon s8", "dotprod"),
    "seven levels, strided": ("neon s8", "dotprod"),
    "bytes above 127": ("neon i16", "dotprod"),
    "groups": ("neon s8", "dotprod"),
    "depthwise": ("neon depthwise", "neon depthwise"),
}
"""Layer -> what it runs on without and with dot products."""
QUICK_LAYERS = {*KERNELS, "bits, odd channels", "sums leave 16 bits", "bytes above 127, wide weights"}


@pytest.mark.parametrize("name", marked(list(LAYERS), QUICK_LAYERS))
def test_layers_of_codes(programs: Path, name: str, tmp_path: Path) -> None:
    graph = layer_graph(name)
    check(programs, tmp_path, graph, layer_images(graph), "cortex-a76")
    if name in KERNELS:
        found = [
            emulate(processor, programs / "qxr_kernel_names", tmp_path / "model.qpk").splitlines()[-1]
            for processor in ("cortex-a53", "cortex-a76")
        ]
        assert tuple(found) == KERNELS[name]


@pytest.mark.parametrize("processor", INSTRUCTION_SETS)
def test_instruction_sets_are_found_while_running(programs: Path, processor: str, tmp_path: Path) -> None:
    graph = layer_graph("seven levels")
    check(programs, tmp_path, graph, layer_images(graph), processor)


@pytest.mark.slow
def test_convolutions_of_the_table_equal_the_scalar_kernel(programs: Path) -> None:
    found = emulate("cortex-a76", programs / "bench" / "qxr_bench", "--check")
    kernels = {line.rsplit(":", 1)[0] for line in found.splitlines()}
    assert {"neon bits", "neon table", "neon s8", "neon depthwise", "neon i16", "dotprod"} <= kernels


def test_clang_accepts_the_kernels(tmp_path: Path) -> None:
    """Phones are compiled for by clang."""
    clang = shutil.which("clang-14") or shutil.which("clang") or pytest.skip("clang is not installed")
    headers = Path("/usr/aarch64-linux-gnu/include")
    if not headers.is_dir():
        pytest.skip("the C library for 64-bit ARM is not installed")
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
    include = [f"-I{RUNTIME / 'src'}", f"-I{RUNTIME / 'include'}", "-isystem", headers]
    for path in sorted((RUNTIME / "src" / "arm").glob("*.c")):
        machine = ["-march=armv8.2-a+dotprod"] if path.name.startswith("dotprod") else []
        target = ["--target=aarch64-linux-gnu", "-std=c11", "-fsyntax-only", *machine]
        done = run([clang, *target, *warnings, *include, path])
        assert done.returncode == 0, done.stderr


def test_library_needs_nothing_and_keeps_nothing(programs: Path) -> None:
    nm = shutil.which("aarch64-linux-gnu-nm") or pytest.skip("binutils for 64-bit ARM are not installed")
    symbols = [line.split()[-2:] for line in run([nm, programs / "libqxr.a"]).stdout.splitlines() if " " in line]
    assert not {kind for kind, _ in symbols} & set("dDbBC"), "the library keeps no state"
    names = {kind: {name for k, name in symbols if (k == "U") == (kind == "U")} for kind in "UT"}
    assert names["U"] - names["T"] <= {"memcpy", "memset"}


def test_every_source_is_built() -> None:
    """CMake collects files by name; one that fits no instruction set would be left out silently."""
    names = {path.stem.split("_")[0] for path in (RUNTIME / "src" / "arm").glob("*.c")}
    assert names == {"cpu", "neon", "dotprod"}
