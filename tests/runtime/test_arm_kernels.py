"""The kernels for 64-bit ARM under QEMU: each element of each tensor equals the reference's, each kernel forced.

The program places a page that may not be touched behind every block of memory: an access outside ends it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from arm_program import (
    BUILD,
    EMULATOR,
    INSTRUCTION_SETS,
    check,
    compile_objects,
    count_hash,
    count_input,
    count_instructions,
    emulate,
    machine_flags,
    require,
)
from code_layers import LAYERS, layer_graph, layer_images
from lowering import lowered_case
from networks import CASES
from operator_graphs import OPERATOR_GRAPHS, operator_graph
from runtime_program import RUNTIME, configure_and_build, run

from qexport import convert
from qexport.backends.packed.reader import read_packed
from qexport.reference import interpret

QUICK_NETWORKS = {"linear-stack"}
QUICK_OPERATORS = 16
"""Every so many in the short test run."""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(EMULATOR)
    return configure_and_build(BUILD, tmp_path_factory.mktemp("aarch64"))


def marked(names: list[str], quick: set[str]) -> list:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(list(CASES), QUICK_NETWORKS))
def test_networks(programs: Path, name: str, tmp_path: Path) -> None:
    low, images = lowered_case(name, 1)
    check(programs, tmp_path, low.graph, {"image": images}, "max")


@pytest.mark.parametrize("name", marked(list(OPERATOR_GRAPHS), set(list(OPERATOR_GRAPHS)[::QUICK_OPERATORS])))
def test_operators(programs: Path, name: str, tmp_path: Path) -> None:
    graph, images = operator_graph(name)
    check(programs, tmp_path, graph, {"image": images}, "max")


KERNELS = {
    "bits": ("neon bits",) * 3,
    "bits, values beyond 16 bits": ("neon i16", "dotprod", "i8mm"),
    "two levels, two bits": ("neon table", "dotprod", "i8mm"),
    "two levels, signs": ("neon table", "dotprod", "i8mm"),
    "four levels, two bits": ("neon table", "dotprod", "i8mm"),
    "four levels, four bits": ("neon table", "dotprod", "i8mm"),
    "seven levels": ("neon s8", "dotprod", "i8mm"),
    "seven levels, strided": ("neon s8", "dotprod", "i8mm"),
    "bytes above 127": ("neon i16", "dotprod", "i8mm"),
    "groups": ("neon s8", "dotprod", "i8mm"),
    "depthwise": ("neon depthwise",) * 3,
}
"""Layer -> what it runs on: NEON alone, with dot products, with matrix products."""
QUICK_LAYERS = {*KERNELS, "bits, odd channels", "sums leave 16 bits", "bytes above 127, wide weights"}


@pytest.mark.parametrize("name", marked(list(LAYERS), QUICK_LAYERS))
def test_layers_of_codes(programs: Path, name: str, tmp_path: Path) -> None:
    graph = layer_graph(name)
    check(programs, tmp_path, graph, layer_images(graph), "max")
    if name in KERNELS:
        found = [
            emulate(processor, programs / "qxr_kernel_names", tmp_path / "model.qpk").splitlines()[-1]
            for processor in INSTRUCTION_SETS
        ]
        assert tuple(found) == KERNELS[name]


@pytest.mark.parametrize("processor", INSTRUCTION_SETS)
def test_instruction_sets_are_found_while_running(programs: Path, processor: str, tmp_path: Path) -> None:
    graph = layer_graph("seven levels")
    check(programs, tmp_path, graph, layer_images(graph), processor)


MOST_INSTRUCTIONS = {
    "resnet20": {"neon": 7_230_000, "dotprod": 7_300_000, "i8mm": 7_175_000},
    "digits": {"neon": 359_000, "dotprod": 277_500, "i8mm": 265_000},
}
"""3 % above what was measured with gcc 12.2 at -O3."""


@pytest.fixture(scope="session", params=MOST_INSTRUCTIONS)
def real_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Name and .qpk file: the published DAQ W1A1 ResNet-20, and the network of the demo."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "digits":
        checkpoint = RUNTIME.parent / "models" / "checkpoints" / "digits_w2a2.pt"
        return request.param, convert(checkpoint, folder, bits=2, formats=("qpk",)).files["qpk"]
    checkpoint = request.getfixturevalue("data_dir") / "checkpoints" / "daq" / "cifar10_W1A1.pth"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return request.param, convert(checkpoint, folder, bits=1, formats=("qpk",), mean=mean, std=std).files["qpk"]


@pytest.mark.slow
def test_real_networks(programs: Path, real_model: tuple[str, Path], data_dir: Path, tmp_path: Path) -> None:
    name, model = real_model
    graph = read_packed(model).to_graph()
    ((given, image),) = graph.inputs.items()
    if name == "resnet20":
        with np.load(data_dir / "cifar10" / "test.npz") as file:
            images = file["images"][:2].transpose(0, 3, 1, 2)
    else:
        images = np.random.default_rng(7).integers(0, 256, (2, *image.shape)).astype(np.uint8)
    check(programs, tmp_path, graph, {given: images}, "max")


@pytest.mark.slow
def test_instructions(real_model: tuple[str, Path], tmp_path: Path) -> None:
    """Not time: no such processor is here. The outputs are the reference's."""
    name, model = real_model
    graph = read_packed(model).to_graph()
    ((given, image),) = graph.inputs.items()
    images = count_input(int(np.prod(image.shape))).reshape(1, *image.shape)
    (expected,) = interpret(graph, {given: images}).outputs.values()
    found = count_instructions(compile_objects(tmp_path), model, tmp_path)
    assert {value for _, value in found.values()} == {count_hash(expected.astype("<i4").tobytes())}
    assert set(found) == {"scalar", *MOST_INSTRUCTIONS[name]}
    for instruction_set, most in MOST_INSTRUCTIONS[name].items():
        assert found[instruction_set][0] <= most, found


@pytest.mark.slow
def test_convolutions_of_the_table_equal_the_scalar_kernel(programs: Path) -> None:
    found = emulate("max", programs / "bench" / "qxr_bench", "--check")
    kernels = {line.rsplit(":", 1)[0] for line in found.splitlines()}
    assert {"neon bits", "neon table", "neon s8", "neon depthwise", "neon i16", "dotprod", "i8mm"} <= kernels


def test_clang_accepts_the_kernels(tmp_path: Path) -> None:
    """Phones are compiled for by clang."""
    clang = shutil.which("clang-14") or shutil.which("clang") or pytest.skip("clang is not installed")
    headers = Path("/usr/aarch64-linux-gnu/include")
    if not headers.is_dir():
        pytest.skip("the C library for 64-bit ARM is not installed")
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
    include = [f"-I{RUNTIME / 'src'}", f"-I{RUNTIME / 'include'}", "-isystem", headers]
    for path in sorted((RUNTIME / "src" / "arm").glob("*.c")):
        target = ["--target=aarch64-linux-gnu", "-std=c11", "-fsyntax-only", *machine_flags(path)]
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
    assert names == {"cpu", "neon", "dotprod", "i8mm"}
