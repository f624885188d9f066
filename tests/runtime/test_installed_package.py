"""The runtime as an installed CMake package: programs in C++ and Rust link it and give the outputs of the reference."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from embedded_program import expected_outputs
from packed_networks import GOLDEN

from qexport.backends.packed.writer import to_packed

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
EXAMPLES = RUNTIME / "examples"
pytestmark = pytest.mark.slow


def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess:
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done


@pytest.fixture(scope="session")
def cmake() -> str:
    return shutil.which("cmake") or pytest.skip("cmake is not installed")


@pytest.fixture(scope="session")
def prefix(cmake: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library has been installed."""
    folder = tmp_path_factory.mktemp("qxr")
    run([cmake, "-S", RUNTIME, "-B", folder / "build"])
    run([cmake, "--build", folder / "build", "--parallel", "2"])
    run([cmake, "--install", folder / "build", "--prefix", folder / "prefix"])
    shutil.rmtree(folder / "build")
    return folder / "prefix"


@pytest.fixture(scope="session")
def cpp(cmake: str, prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpp")
    run([cmake, "-S", EXAMPLES / "cpp", "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}"])
    run([cmake, "--build", folder])
    return folder / "example"


@pytest.fixture(scope="session")
def rust(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cargo = shutil.which("cargo") or pytest.skip("cargo is not installed")
    folder = tmp_path_factory.mktemp("rust")
    shutil.copytree(EXAMPLES / "rust", folder, dirs_exist_ok=True)
    flags = {"QXR_PREFIX": str(prefix), "RUSTFLAGS": "-D warnings"}
    run([cargo, "build", "--offline", "--release"], cwd=folder, env={**os.environ, **flags})
    return folder / "target" / "release" / "example"


@pytest.fixture(params=["cpp", "rust"])
def program(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_the_reference(name: str, program: Path, tmp_path: Path) -> None:
    graph = GOLDEN[name]()
    (tmp_path / "model.qpk").write_bytes(to_packed(graph, metadata={}))
    rng = np.random.default_rng(9)
    feeds = {n: rng.integers(0, 256, (3, *t.shape)) for n, t in graph.inputs.items()}
    given = np.concatenate([x.reshape(3, -1) for x in feeds.values()], 1).astype(np.uint8)
    done = run([program, tmp_path / "model.qpk"], input=given.tobytes())
    found = [list(map(int, line.split())) for line in done.stdout.decode().splitlines()]
    assert np.array_equal(found, expected_outputs(graph, feeds))


def test_damage_is_named(program: Path, tmp_path: Path) -> None:
    (tmp_path / "model.qpk").write_bytes(to_packed(GOLDEN["stream"](), metadata={})[:-1])
    done = subprocess.run([program, tmp_path / "model.qpk"], capture_output=True, check=False)
    assert done.returncode == 1 and b"the file is shorter than its header says" in done.stderr


def test_another_major_version_is_not_found(cmake: str, prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(x NONE)\nfind_package(qxr 2.0 REQUIRED)\n"
    )
    command = [cmake, "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}"]
    done = subprocess.run([*map(str, command)], capture_output=True, check=False)
    assert done.returncode != 0 and b"version: 1.0.0" in done.stderr, done.stderr.decode()


def test_what_is_installed(prefix: Path) -> None:
    files = {path.relative_to(prefix).as_posix() for path in prefix.rglob("*") if path.is_file()}
    config = {f"lib/cmake/qxr/qxr-{name}.cmake" for name in ("config", "config-version", "targets", "targets-release")}
    assert files == {"include/qxr.h", "lib/libqxr.a", *config}
