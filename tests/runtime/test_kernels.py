"""The executor and every kernel of the C runtime: each element of each tensor equals the reference's."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lowering import lowered_case
from networks import CASES
from operator_graphs import OPERATOR_GRAPHS, operator_graph
from runtime_program import BUILDS, RUNTIME, configure_and_build, record, replay, run

MOST_SCALAR_BYTES = 40 * 1024

recorded_network = functools.cache(lambda name: record(*_network(name)))
recorded_operator = functools.cache(lambda name: record(*_operator(name)))


def _network(name: str) -> tuple:
    low, images = lowered_case(name, 1)
    return low.graph, {"image": images}


def _operator(name: str) -> tuple:
    graph, images = operator_graph(name)
    return graph, {"image": images}


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives the folder of a build; each is made once."""
    return functools.cache(lambda name: configure_and_build(BUILDS[name], tmp_path_factory.mktemp(name)))


@pytest.fixture(params=["clang-sanitizers", "gcc-emulated"])
def built(request: pytest.FixtureRequest, build: Callable[[str], Path]) -> Path:
    """A build of library, replay and benchmark.

    clang's sanitizers end the program on any access outside its memory and on undefined arithmetic; the emulated
    build runs AVX-512 and AMX kernels on any processor.
    """
    return build(request.param)


@pytest.mark.parametrize("name", CASES)
def test_networks(built: Path, name: str, tmp_path: Path) -> None:
    done = replay(built, *recorded_network(name), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scalar ok" in done.stdout


@pytest.mark.parametrize("name", OPERATOR_GRAPHS)
def test_operators(built: Path, name: str, tmp_path: Path) -> None:
    done = replay(built, *recorded_operator(name), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scalar ok" in done.stdout


def test_convolutions_of_the_table_equal_the_scalar_kernel(built: Path) -> None:
    """Every kernel has rows in the table of the benchmark, and equals the scalar kernel on them."""
    done = run([built / "bench" / "qxr_bench", "--check"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^scalar: \d+ shapes$", done.stdout, re.M)


def test_every_instruction_set_is_replayed_under_emulation(build: Callable[[str], Path], tmp_path: Path) -> None:
    done = replay(build("gcc-emulated"), *recorded_network("chain-relu"), tmp_path)
    if "avx2" not in done.stdout:
        pytest.skip("not an x86-64 processor with AVX2, on which AVX-512 and AMX are emulated")
    assert done.stdout.split() == ["scalar", "ok", "avx2", "ok", "avx512vnni", "ok", "amx", "ok"]


def test_replay_sees_one_wrong_element(built: Path, tmp_path: Path) -> None:
    file, samples = recorded_network("chain-relu")
    wrong = np.frombuffer(samples, np.uint8).copy()
    wrong[-1] ^= 1
    done = replay(built, file, wrong.tobytes(), tmp_path)
    assert done.returncode == 1
    assert "FAILED a tensor differs: tensor" in done.stdout


@pytest.fixture
def scalar_library(build: Callable[[str], Path]) -> Path:
    if shutil.which("size") is None or shutil.which("nm") is None:
        pytest.skip("binutils are not installed")
    return build("gcc-scalar") / "libqxr.a"


def test_scalar_runtime_is_small(scalar_library: Path) -> None:
    lines = run(["size", scalar_library]).stdout.splitlines()[1:]
    text, data, bss = (sum(int(line.split()[i]) for line in lines) for i in range(3))
    assert text < MOST_SCALAR_BYTES, f"{text} bytes"
    assert (data, bss) == (0, 0), "the library keeps no state"


def test_scalar_runtime_needs_nothing_and_keeps_nothing(scalar_library: Path) -> None:
    defined, undefined = set(), set()
    for line in run(["nm", scalar_library]).stdout.splitlines():
        found = re.fullmatch(r"(?:[0-9a-f]+)?\s+([A-Za-z]) (\S+)", line)
        if found is None:
            continue
        assert found[1] not in "dDbBC", f"writable data: {line}"
        (undefined if found[1] == "U" else defined).add(found[2])
    assert undefined - defined <= {"memcpy", "memset"}


def test_installed_library_is_found_by_cmake(build: Callable[[str], Path], tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    assert cmake is not None
    assert run([cmake, "--install", build("gcc"), "--prefix", tmp_path / "prefix"]).returncode == 0
    user = tmp_path / "user"
    user.mkdir()
    (user / "main.c").write_text(
        "#include <qxr.h>\nint main(void) { qxr_model m; return qxr_open(0, 0, &m) != QXR_ERROR_ARGUMENT; }\n"
    )
    (user / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(user C)\nfind_package(qxr 1 REQUIRED)\n"
        "add_executable(user main.c)\ntarget_link_libraries(user qxr::qxr)\n"
    )
    done = run([cmake, "-S", user, "-B", user / "build", f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}"])
    assert done.returncode == 0, done.stderr
    done = run([cmake, "--build", user / "build"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert run([user / "build" / "user"]).returncode == 0


def test_every_source_of_an_instruction_set_is_built() -> None:
    """CMake collects files by name; one that fits no instruction set would be left out silently."""
    names = {path.stem.split("_")[0] for path in (RUNTIME / "src" / "x86").glob("*.c")}
    assert names == {"cpu", "avx2", "avx512vnni", "amx"}
