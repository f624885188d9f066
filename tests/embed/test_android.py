"""qexport embed --target android: the Java API and its native library compute what the reference computes.

Gradle and the NDK are not used: the module is compiled by javac and by this machine's compilers, with stand-ins for the
few classes of Android that it calls.
"""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from embedded_program import GCC, HERE, LINUX, Target, expected_outputs, run
from packed_networks import GOLDEN
from PIL import Image

from qexport.backends.packed.reader import read_packed
from qexport.backends.packed.writer import to_packed
from qexport.embed import embed
from qexport.errors import OptionError

SOURCES = HERE / "android"
CLASS_NAMES = ['cat "tabby"', "dög \U0001f436", "*/ \\u000a \\ \n", "a\tb"]
METADATA = {
    "qexport.architecture": '*/ "tiny" \\u002a/',
    "qexport.class_names": json.dumps(CLASS_NAMES),
    "qexport.outputs": json.dumps([{"name": "logits", "scale": 0.125}]),
}
NAMES = ("stream", "products_2")
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"


@dataclass(frozen=True)
class Jdk:
    """Tools of a JDK, and its headers."""

    javac: Path
    java: Path
    include: Path


@pytest.fixture(scope="session")
def jdk() -> Jdk:
    found = shutil.which("javac") or pytest.skip("javac is not installed")
    home = Path(found).resolve().parents[1]
    if not (home / "include" / "jni.h").is_file():
        pytest.skip("the JDK has no jni.h")
    return Jdk(home / "bin" / "javac", home / "bin" / "java", home / "include")


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module of two networks."""
    folder = tmp_path_factory.mktemp("android")
    models = []
    for name in NAMES:
        models.append(folder / f"{name}.qpk")
        models[-1].write_bytes(to_packed(GOLDEN[name.removesuffix("_2")](), metadata=METADATA))
    embed(models, folder / "module", target="android")
    return folder / "module"


def build_library(module: Path, binary: Path, include: Path, *options: str) -> Path:
    """The native library, as its CMake project makes it."""
    cmake = shutil.which("cmake") or pytest.skip("cmake is not installed")
    chosen = [f"-DQXR_JNI_INCLUDE={include}", *options]
    for command in (["-S", module / "src/main/cpp", "-B", binary, *chosen], ["--build", binary]):
        done = run([cmake, *command])
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert b"qxr_jni.c" not in done.stderr, done.stderr.decode()  # no warning
    return binary


@pytest.fixture(scope="session")
def driver(module: Path, jdk: Jdk, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The command that runs Driver.java with the compiled module and its library."""
    GCC.require()
    folder = tmp_path_factory.mktemp("java")
    for part in (SOURCES / "StandIns.java").read_text().split("// ==== ")[1:]:
        name, _, text = part.partition("\n")
        (folder / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sources" / name).write_text(text)
    sources = [*module.rglob("*.java"), *(folder / "sources").rglob("*.java"), SOURCES / "Driver.java"]
    done = run([jdk.javac, "-Xlint:all", "-Werror", "-d", folder / "classes", *sources])
    assert done.returncode == 0, done.stderr.decode()
    # Portable kernels alone, to be built quickly; the others run in the tests of the native library.
    options = ("-DCMAKE_C_COMPILER=gcc", "-DQXR_SCALAR_ONLY=ON")
    library = build_library(module, folder / "native", jdk.include, *options)
    flags = ["-Xcheck:jni", f"-Djava.library.path={library}", f"-Dmodule={module}", "-cp", folder / "classes"]
    return [jdk.java, *flags, "Driver"]


def drive(driver: Sequence[str | Path], *arguments: str | Path, given: bytes = b"") -> list[str]:
    done = run([*driver, *arguments], input=given)
    assert done.returncode == 0, done.stderr.decode()
    assert b"WARNING" not in done.stdout, done.stdout.decode()
    return done.stdout.decode().splitlines()


def samples(module: Path, name: str) -> tuple[bytes, np.ndarray]:
    """Three random inputs, and what the reference gives for them."""
    graph = read_packed(module / "src/main/assets" / f"{name}.qpk").to_graph()
    rng = np.random.default_rng(4)
    feeds = {n: rng.integers(0, 256, (3, *t.shape)) for n, t in graph.inputs.items()}
    given = np.concatenate([x.reshape(3, -1) for x in feeds.values()], 1).astype(np.uint8)
    return given.tobytes(), expected_outputs(graph, feeds)


def test_self_check(driver: list[str | Path]) -> None:
    """The test class for devices passes with its vectors."""
    assert sorted(drive(driver, "check")) == [f"{name} passed" for name in sorted(NAMES)]


@pytest.mark.parametrize("name", NAMES)
def test_java_gives_the_reference(name: str, driver: list[str | Path], module: Path) -> None:
    given, expected = samples(module, name)
    found = drive(driver, "run", module / "src/main/assets" / f"{name}.qpk", given=given)
    assert np.array_equal([json.loads(line) for line in found], expected)


def test_self_check_notices_a_wrong_result(driver: list[str | Path], module: Path, tmp_path: Path) -> None:
    shutil.copytree(module / "src", tmp_path / "src")
    vector = tmp_path / "src/androidTest/assets/stream.vector"
    data = bytearray(vector.read_bytes())
    data[-1] ^= 1
    vector.write_bytes(data)
    moved = [f"-Dmodule={tmp_path}" if str(word).startswith("-Dmodule=") else word for word in driver]
    done = run([*moved, "check"])
    assert done.returncode != 0 and b"AssertionError" in done.stderr


def test_refusals_are_named(driver: list[str | Path], module: Path) -> None:
    assert drive(driver, "refuse", module / "src/main/assets/stream.qpk") == [
        "IllegalArgumentException: the file is damaged: its checksum differs",
        "IllegalArgumentException: the file is shorter than its header says",
        "IllegalArgumentException: the file is shorter than its header says",
        "IllegalArgumentException: the file is null",
        "IllegalArgumentException: the input has not the size of the network's inputs",
        "IllegalArgumentException: the input has not the size of the network's inputs",
        "IllegalArgumentException: the input is no direct buffer",
        "IllegalArgumentException: the input has not the size of the network's inputs",
        "IllegalArgumentException: the output array has not the size of the outputs",
        "IllegalArgumentException: no such input",
        "IllegalStateException: this network has been closed",
    ]


def test_bitmaps_become_bytes_as_pillow_makes_them(driver: list[str | Path]) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    packed = (colours.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(2) | 0xFF000000
    given = packed.astype(">u4").tobytes()
    expected = {"3": colours.transpose(2, 0, 1), "1": np.asarray(Image.fromarray(colours).convert("L"))}
    for channels, values in expected.items():
        (printed,) = drive(driver, "pixels", "5", channels, "6", "5", given=given)
        assert np.array_equal(np.array(json.loads(printed)).astype(np.uint8), values.ravel())
    (scaled,) = drive(driver, "pixels", "5", "3", "3", "5", given=given)
    assert np.array_equal(np.array(json.loads(scaled)).astype(np.uint8), colours[::2].transpose(2, 0, 1).ravel())


def test_texts_of_the_metadata_stay_texts(driver: list[str | Path]) -> None:
    *names, rest = drive(driver, "names", "Stream")
    assert ["".join(map(chr, json.loads(name))) for name in names] == CLASS_NAMES
    assert rest == "[0.125, 1.0][[3], [2, 4, 4]]1[-1.0, 3.0, 3.0]"


def host(module: Path, folder: Path, jdk: Jdk, target: Target, *options: str, flags: Sequence[str] = ()) -> Path:
    """jni_host.c with the native library of a processor."""
    target.require()
    library = build_library(module, folder / "native", jdk.include, f"-DCMAKE_C_COMPILER={target.compiler}", *options)
    include = [f"-I{jdk.include}", f"-I{jdk.include / 'linux'}"]
    linked = [f"-L{library}", "-lqxr_jni", f"-Wl,-rpath,{library}"]
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    program = folder / "host"
    done = run([target.compiler, *warnings, *flags, *include, SOURCES / "jni_host.c", "-o", program, *linked])
    assert done.returncode == 0, done.stderr.decode()
    return program


def check_host(command: Sequence[str | Path], module: Path, tmp_path: Path, instruction_set: str | None = None) -> None:
    for name in NAMES:
        given, expected = samples(module, name)
        done = run([*command, module / "src/main/assets" / f"{name}.qpk"], input=given)
        assert done.returncode == 0, done.stderr.decode()
        assert instruction_set in (None, done.stderr.decode().strip())
        assert np.array_equal(np.frombuffer(done.stdout, "<i4").reshape(3, -1), expected)
    damaged = tmp_path / "damaged.qpk"
    good = (module / "src/main/assets/stream.qpk").read_bytes()
    for size in range(0, len(good), len(good) // 7):
        damaged.write_bytes(good[:size])
        done = run([*command, damaged])
        assert done.returncode == 1 and b"IllegalArgumentException" in done.stderr, done.stderr.decode()


@pytest.mark.slow
def test_native_library_under_sanitizers(module: Path, jdk: Jdk, tmp_path: Path) -> None:
    options = (f"-DCMAKE_C_FLAGS={SANITIZERS}", "-DCMAKE_BUILD_TYPE=None")
    program = host(module, tmp_path, jdk, GCC, *options, flags=SANITIZERS.split())
    check_host([program], module, tmp_path)


PHONES = {
    "aarch64": ("aarch64", "cortex-a76", "dotprod"),
    "aarch64-plain": ("aarch64", "cortex-a53", "neon"),
    "armv7": ("armv7-a", "max", "scalar"),
}
"""Processor -> what CMake calls it, which one is emulated, and whose kernels it runs."""


@pytest.mark.slow
@pytest.mark.parametrize("processor", PHONES)
def test_native_library_on_phones(processor: str, module: Path, jdk: Jdk, tmp_path: Path) -> None:
    """With the flags of the NDK's baseline: faster instructions are chosen while it runs."""
    target, (system, cpu, instruction_set) = LINUX[processor], PHONES[processor]
    program = host(module, tmp_path, jdk, target, "-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={system}")
    triple = target.compiler.removesuffix("-gcc")
    check_host([target.emulator[0], "-cpu", cpu, "-L", f"/usr/{triple}", program], module, tmp_path, instruction_set)


def test_project_files_name_what_is_there(module: Path) -> None:
    gradle = (module / "build.gradle.kts").read_text()
    for name in re.findall(r'(?:path = file|consumerProguardFiles)\("(.+?)"\)', gradle):
        assert (module / name).is_file(), name
    assert gradle.count("{") == gradle.count("}")
    manifest = module / "src/main/AndroidManifest.xml"
    assert ElementTree.parse(manifest).getroot().tag == "manifest"
    readme = (module / "README.md").read_text()
    assert "Stream.open(context.assets)" in readme and "`Products2`" in readme


def test_refusals_of_names(module: Path, tmp_path: Path) -> None:
    model = module / "src/main/assets/stream.qpk"
    for names in (["network"], ["a_b", "aB"]):
        with pytest.raises(OptionError, match="two Java classes would have one name"):
            embed([model] * len(names), tmp_path / "x", target="android", name=names)
    assert not (tmp_path / "x").exists()
