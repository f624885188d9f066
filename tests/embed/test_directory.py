"""The generated directory: its build files work, its header tells the truth, its errors name what is wrong."""

from __future__ import annotations

import json
import shutil
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
from embedded_program import GCC, STRICT, run, write_network
from packed_networks import GOLDEN

from qexport.backends.packed.writer import to_packed
from qexport.cli.main import main
from qexport.embed import TARGETS, embed
from qexport.errors import ArtifactError, OptionError
from qexport.ir import Graph, integer
from qexport.ops import Clip

METADATA = {
    "qexport.architecture": "tiny",
    "qexport.class_names": json.dumps(['cat "tabby"', "dög", "what??!"]),
    "qexport.outputs": json.dumps([{"name": "logits", "scale": 0.125}, {"name": "narrow", "scale": 2.0}]),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "network.qpk"
    path.write_bytes(to_packed(GOLDEN["stream"](), metadata=METADATA))
    return path


def test_header_says_what_a_user_needs(model: Path, tmp_path: Path) -> None:
    embed(model, tmp_path, name="tiny_net")
    (tmp_path / "show.c").write_text(
        "#include <stdio.h>\n"
        '#include "tiny_net.h"\n'
        "static const char *const names[TINY_NET_CLASSES] = TINY_NET_CLASS_NAMES;\n"
        "static const int shape[] = TINY_NET_INPUT_0_SHAPE;\n"
        "int main(void) {\n"
        '    printf("%d,%d,%d|%d|%d|%g|%d|", shape[0], shape[1], shape[2], TINY_NET_INPUT_SIZE, TINY_NET_OUTPUT_SIZE,\n'
        "           TINY_NET_OUTPUT_0_SCALE, TINY_NET_OUTPUT_1_OFFSET);\n"
        '    printf("%s|%s|%s|%s", names[0], names[1], names[2], TINY_NET_HASH);\n'
        "    return 0;\n"
        "}\n"
    )
    GCC.require()
    done = run(["gcc", *STRICT, tmp_path / "show.c", "-o", tmp_path / "show"])
    assert done.returncode == 0, done.stderr.decode()
    shown = run([tmp_path / "show"]).stdout.decode().split("|")
    assert shown[:5] == ["2,4,4", "32", "35", "0.125", "3"]
    assert shown[5:8] == ['cat "tabby"', "dög", "what??!"]
    assert shown[8] == run(["sha256sum", model]).stdout.decode()[:16]


HOSTILE = {
    "qexport.architecture": '*/ #error "\n??/ \\',
    "qexport.preprocessing": "*/ int x; /*",
    "qexport.class_names": "[1,",
    "qexport.outputs": '[{"name": "*/ #error\\n\\\\", "scale": "0; }"}, 3]',
}


@pytest.mark.parametrize("target", ["c", "zephyr", "arduino"])
def test_metadata_cannot_become_code(target: str, tmp_path: Path) -> None:
    GCC.require()
    graph = Graph()
    graph.add_input("/*", integer((3, 2, 2), 0, 255))
    graph.add("*/ #error\n\\", Clip(1, 200), "/*")
    graph.outputs = ["*/ #error\n\\"]
    path = tmp_path / "network.qpk"
    path.write_bytes(to_packed(graph, metadata=HOSTILE))
    values = embed(path, tmp_path, target=target)
    (source,) = tmp_path.rglob("model.c")
    done = run(["gcc", *STRICT, "-c", source, "-o", tmp_path / "model.o"])
    assert done.returncode == 0, done.stderr.decode()
    assert values["classes"] == [] and values["outputs"][0]["scale"] is None


def test_equal_files_give_equal_directories(model: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        embed(model, tmp_path / folder)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_make(model: Path, tmp_path: Path) -> None:
    make = shutil.which("make") or pytest.skip("make is not installed")
    GCC.require()
    embed(model, tmp_path / "c")
    done = run([make, "-C", tmp_path / "c", "run", "CC=gcc"])
    assert done.returncode == 0 and b"self-check passed" in done.stdout, done.stderr


def test_cmake(model: Path, tmp_path: Path) -> None:
    cmake = shutil.which("cmake") or pytest.skip("cmake is not installed")
    GCC.require()
    embed(model, tmp_path / "c", target="cmake")
    build_with_cmake(cmake, tmp_path / "c", tmp_path / "b")
    done = run([cmake, "-E", "chdir", tmp_path / "b", "ctest", "--output-on-failure"])
    assert done.returncode == 0, done.stdout.decode()


def test_arduino_sketch_compiles(model: Path, tmp_path: Path) -> None:
    embed(model, tmp_path, target="arduino")
    check_arduino_properties(tmp_path)
    assert "self-check passed" in run_arduino_sketch(tmp_path, "-std=c99", "-pedantic")


def test_zephyr_module_builds(model: Path, tmp_path: Path) -> None:
    embed(model, tmp_path / "module", target="zephyr")
    assert (tmp_path / "module" / "zephyr" / "module.yml").read_text() == (
        "name: model\nbuild:\n  cmake: zephyr\n  kconfig: zephyr/Kconfig\n"
    )
    kconfig = (tmp_path / "module" / "zephyr" / "Kconfig").read_text()
    assert "config MODEL\n" in kconfig and "config MODEL_TEST\n" in kconfig
    main = (
        '#include "model.h"\n#include "model_test.h"\n'
        "static uint8_t arena[MODEL_ARENA_SIZE] __attribute__((aligned(MODEL_ARENA_ALIGN)));\n"
        "int main(void) { int32_t out[MODEL_OUTPUT_SIZE]; return model_test(arena, out); }\n"
    )
    assert run_zephyr_application(tmp_path, "model", ["CONFIG_MODEL", "CONFIG_MODEL_TEST"], main) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_command(model: Path, tmp_path: Path, target: str) -> None:
    folder = tmp_path / target
    done = CliRunner().invoke(main, ["embed", str(model), "-o", str(folder), "--target", target, "--name", "net"])
    assert done.exit_code == 0, done.output
    written = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert written == sorted(embed(model, tmp_path / "again", target=target, name="net")["files"])
    again = CliRunner().invoke(main, ["embed", str(model), "-o", str(folder), "--target", target, "--name", "net"])
    assert again.exit_code == 0, "files of an earlier run are replaced"


def test_refusals(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="avr") as wrong_target:
        embed(model, tmp_path / "x", target="avr")
    assert "zephyr" in str(wrong_target.value)
    for name in ("my-net", "string", "main"):
        with pytest.raises(OptionError, match=name):
            embed(model, tmp_path / "x", name=name)
    with pytest.raises(OptionError, match="--runtime for several"):
        embed([model, model], tmp_path / "x")
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ArtifactError):
        embed(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_two_networks_in_one_program(tmp_path: Path) -> None:
    """Names of files, functions and macros differ, everything else is private."""
    GCC.require()
    calls = []
    for name in ("stream", "moves"):
        graph: Graph = GOLDEN[name]()
        write_network(graph, tmp_path, name=name)
        calls.append(f"{name}_test(arena, out)")
    (tmp_path / "both.c").write_text(
        '#include "stream.h"\n#include "stream_test.h"\n#include "moves.h"\n#include "moves_test.h"\n'
        "static uint8_t arena[STREAM_ARENA_SIZE + MOVES_ARENA_SIZE] __attribute__((aligned(16)));\n"
        "static int32_t out[STREAM_OUTPUT_SIZE + MOVES_OUTPUT_SIZE];\n"
        f"int main(void) {{ return {' | '.join(calls)}; }}\n"
    )
    sources = [tmp_path / f"{name}{suffix}.c" for name in ("stream", "moves") for suffix in ("", "_test")]
    done = run(["gcc", *STRICT, f"-I{tmp_path}", tmp_path / "both.c", *sources, "-o", tmp_path / "both"])
    assert done.returncode == 0, done.stderr.decode()
    assert run([tmp_path / "both"]).returncode == 0


def test_every_output_counts(tmp_path: Path) -> None:
    """The values that embed returns are those of the file."""
    graph = GOLDEN["products"]()
    values = write_network(graph, tmp_path)
    sizes = [int(np.prod(graph.types[name].shape)) for name in graph.outputs]
    assert [y["size"] for y in values["outputs"]] == sizes and values["output_size"] == sum(sizes)
