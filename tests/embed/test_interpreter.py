"""qexport embed --runtime: several .qpk files beside the interpreter, which the networks share."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from embedded_frameworks import (
    build_with_cmake,
    check_arduino_properties,
    run_arduino_sketch,
    run_zephyr_application,
)
from embedded_program import CLANG, CORTEX_M, GCC, LINUX, Target, expected_outputs, link_flags, run
from packed_networks import GOLDEN

from qexport.backends.packed.reader import read_packed
from qexport.backends.packed.writer import to_packed
from qexport.cli.main import main
from qexport.embed import embed
from qexport.embed.interpreter import INTERPRETER_KILOBYTES
from qexport.errors import OptionError

NAMES = ("stream", "products")
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WARNINGS = ("-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror")

REPLAY = """
#include "models.h"
#include <stdio.h>
static uint8_t arena[MODELS_ARENA_SIZE] __attribute__((aligned(MODELS_ARENA_ALIGN)));
static uint8_t in[MODELS_INPUT_SIZE];
static int32_t out[MODELS_OUTPUT_SIZE];
int main(void)
{
    qxr_model stream, products;
    if (stream_open(&stream) != QXR_OK || products_open(&products) != QXR_OK)
        return 2;
    if (stream_run(&stream, arena + 1, in, out) != QXR_ERROR_ALIGNMENT)
        return 3;
    if (stream_run(&stream, arena, in, NULL) != QXR_ERROR_ARGUMENT)
        return 3;
    while (fread(in, STREAM_INPUT_SIZE, 1, stdin) == 1) {
        if (stream_run(&stream, arena, in, out) != QXR_OK)
            return 4;
        fwrite(out, 4, STREAM_OUTPUT_SIZE, stdout);
        if (fread(in, PRODUCTS_INPUT_SIZE, 1, stdin) != 1 || products_run(&products, arena, in, out) != QXR_OK)
            return 5;
        fwrite(out, 4, PRODUCTS_OUTPUT_SIZE, stdout);
    }
    return 0;
}
"""
"""Samples of both networks by turns."""


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.qpk" for name in NAMES]
    for name, path in zip(NAMES, paths, strict=True):
        path.write_bytes(to_packed(GOLDEN[name](), metadata={}))
    return paths


def build(target: Target, folder: Path, program: str | Path, *flags: str) -> Path:
    """Compile the program (of the folder, or another), the networks and the interpreter."""
    target.require()
    models = [folder / f"{name}{suffix}.c" for name in NAMES for suffix in ("", "_test")]
    sources = [folder / program, *models, *(folder / "qxr").rglob("*.c"), *target.sources]
    include = [f"-I{folder}", f"-I{folder / 'qxr'}"]
    result = folder / "program"
    done = run(
        [target.compiler, *WARNINGS, *flags, *target.flags, *include, *sources, "-o", result, *link_flags(target)]
    )
    assert done.returncode == 0, done.stderr.decode()
    return result


def marked(names: Sequence[str], quick: str) -> list:
    """The interpreter takes seconds to compile: the short test run does it once a way."""
    return [name if name == quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("processor", marked(["gcc", "clang", "aarch64", "armv7", "riscv64"], "gcc"))
def test_both_networks_give_the_reference(processor: str, models: list[Path], tmp_path: Path) -> None:
    embed(models, tmp_path / "c", runtime=True)
    target = {"gcc": GCC, "clang": CLANG, **LINUX}[processor]
    (tmp_path / "c" / "replay.c").write_text(REPLAY)
    program = build(target, tmp_path / "c", "replay.c", *(SANITIZERS if target is GCC else ["-O2"]))
    rng = np.random.default_rng(3)
    given, expected = [], []
    for path in models:
        graph = read_packed(path).to_graph()
        feeds = {name: rng.integers(0, 256, (3, *t.shape)) for name, t in graph.inputs.items()}
        given.append(np.concatenate([x.reshape(3, -1) for x in feeds.values()], 1).astype(np.uint8))
        expected.append(expected_outputs(graph, feeds))
    done = run([*target.emulator, program], input=np.concatenate(given, 1).tobytes())
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    found = np.frombuffer(done.stdout, "<i4").reshape(3, -1)
    assert np.array_equal(found, np.concatenate(expected, 1))


@pytest.mark.parametrize("processor", marked([*CORTEX_M], "cortex-m4"))
def test_cortex_m(processor: str, models: list[Path], tmp_path: Path) -> None:
    embed(models, tmp_path / "c", runtime=True)
    program = build(CORTEX_M[processor], tmp_path / "c", "main.c", "-Os")
    done = run([*CORTEX_M[processor].emulator, program])
    assert done.returncode == 0 and b"self-check passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_big_endian_processors_are_refused(models: list[Path], tmp_path: Path) -> None:
    """By every call, not by wrong numbers."""
    embed(models, tmp_path / "c", runtime=True)
    done = run([*LINUX["s390x"].emulator, build(LINUX["s390x"], tmp_path / "c", "main.c", "-O1")])
    assert done.returncode == 1 and b"stream: self-check failed: -1" in done.stdout


@pytest.mark.slow
def test_self_check_notices_a_wrong_result(models: list[Path], tmp_path: Path) -> None:
    embed(models, tmp_path / "c", runtime=True)
    vector = tmp_path / "c" / "products_test.c"
    text = vector.read_text()
    first = text.index("{", text.index("test_output")) + 1
    vector.write_text(text[:first] + " 1 +" + text[first:])
    done = run([build(GCC, tmp_path / "c", "main.c")])
    assert done.returncode == 1 and b"products: self-check failed: 1" in done.stdout
    assert b"stream: self-check failed" not in done.stdout


def test_arena_is_the_largest_and_files_are_the_flash(models: list[Path], tmp_path: Path) -> None:
    values = embed(models, tmp_path / "c", runtime=True)
    header = (tmp_path / "c" / "models.h").read_text()
    assert f"#define MODELS_ARENA_SIZE {max(m['arena'] for m in values['models'])}\n" in header
    assert values["constant_bytes"] == sum(path.stat().st_size for path in models)


@pytest.mark.slow
def test_code_of_the_interpreter(models: list[Path], tmp_path: Path) -> None:
    """As large as the README says, without writable data."""
    embed(models, tmp_path / "c", runtime=True)
    target = CORTEX_M["cortex-m4"]
    target.require()
    size = shutil.which("arm-none-eabi-size") or pytest.skip("arm-none-eabi-size is not installed")
    source = tmp_path / "c" / "qxr"
    include = [f"-I{source}"]
    for path in source.rglob("*.c"):
        compiled = path.with_suffix(".o")
        flags = [*WARNINGS, "-Os", "-mcpu=cortex-m4", "-mthumb", *include]
        done = run([target.compiler, *flags, "-c", path, "-o", compiled])
        assert done.returncode == 0, done.stderr.decode()
    total = run([size, "-t", *source.rglob("*.o")]).stdout.decode().splitlines()[-1].split()
    assert abs(int(total[0]) - 1000 * INTERPRETER_KILOBYTES) <= 1000
    assert total[1:3] == ["0", "0"]


@pytest.mark.parametrize("target", marked(["c", "cmake"], "c"))
def test_build_files(target: str, models: list[Path], tmp_path: Path) -> None:
    tool = shutil.which({"c": "make"}.get(target, target)) or pytest.skip(f"{target} is not installed")
    GCC.require()
    embed(models, tmp_path / "c", target=target, runtime=True)
    if target == "c":
        done = run([tool, "-C", tmp_path / "c", "run", "CC=gcc"])
    else:
        build_with_cmake(tool, tmp_path / "c", tmp_path / "b")
        done = run([tool, "-E", "chdir", tmp_path / "b", "ctest", "-V"])
    assert done.returncode == 0 and b"self-check passed" in done.stdout, done.stderr.decode()


def test_arduino(models: list[Path], tmp_path: Path) -> None:
    embed(models, tmp_path / "library", target="arduino", runtime=True)
    check_arduino_properties(tmp_path / "library")
    printed = run_arduino_sketch(tmp_path / "library", "-std=c11", "-pedantic")
    assert re.findall(r"(\w+): self-check passed", printed) == [*NAMES]


@pytest.mark.slow
def test_zephyr(models: list[Path], tmp_path: Path) -> None:
    embed(models, tmp_path / "module", target="zephyr", runtime=True)
    program = (tmp_path / "module" / "models.h").read_text()
    assert "stream_test.h" in program
    main_c = (
        '#include "models.h"\n'
        "static uint8_t arena[MODELS_ARENA_SIZE] __attribute__((aligned(MODELS_ARENA_ALIGN)));\n"
        "static int32_t out[MODELS_OUTPUT_SIZE];\n"
        "int main(void) { return stream_test(arena, out) | products_test(arena, out); }\n"
    )
    options = ["CONFIG_QXR_MODELS", "CONFIG_QXR_MODELS_TEST"]
    assert run_zephyr_application(tmp_path, "qxr_models", options, main_c) == 0


def refused(models: Sequence[Path], folder: Path, **options: object) -> str:
    with pytest.raises(OptionError) as error:
        embed(models, folder / "x", runtime=True, **options)  # type: ignore[arg-type]
    assert not (folder / "x").exists()
    return str(error.value)


def test_refusals(models: list[Path], tmp_path: Path) -> None:
    assert "--name A,B" in refused([models[0], models[0]], tmp_path)
    assert "not one name a model" in refused(models, tmp_path, name=["one"])
    assert "a file of the interpreter has this name" in refused(models, tmp_path, name=["plan", "net"])
    assert "the page holds the interpreter anyway" in refused(models[:1], tmp_path, target="wasm")


def test_command(models: list[Path], tmp_path: Path) -> None:
    arguments = ["embed", *map(str, models), "--runtime", "--name", "a,b", "-o", str(tmp_path / "c")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert {"a.c", "b.c", "a_test.c", "b_test.c", "models.h", "qxr"} <= {p.name for p in (tmp_path / "c").iterdir()}
    assert f"into {tmp_path / 'c'}" in done.output
