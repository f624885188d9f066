"""Compiles the runtime to a WebAssembly module: python runtime/wasm/build.py [FILE], FILE qexport/embed/web/qxr.wasm.

The module is committed, so that users need no compiler. Zig (PyPI: ziglang, pinned in pyproject.toml) is clang and lld
of one version on every system: the same sources give the same bytes, which a test checks.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RUNTIME = Path(__file__).resolve().parents[1]
MODULE = RUNTIME.parent / "qexport" / "embed" / "web" / "qxr.wasm"

SOURCES = ("src/*.c", "src/scalar/*.c", "src/vector/*.c", "src/wasm/*.c")
FAST = re.compile(r"src/wasm/simd128_(bits|dot|table)\.c")
"""Products. Of all others the size counts: with -O3 they are 2 KB larger and gain 1 %."""
PROGRAMS = ("replay", "kernel_names")
"""Test programs of runtime/tests."""

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
CPU = "-mcpu=generic+simd128+bulk_memory+bulk_memory_opt"
OPTIONS = ("-std=c11", "-g0", CPU, "-DQXR_HAVE_SIMD128", "-Iinclude", "-Isrc")
BROWSER = ("-target", "wasm32-freestanding", "-ffreestanding", "-isystem", "wasm/freestanding")
WASI = ("-target", "wasm32-wasi", "-Iwasm/wasi", "-D_POSIX_C_SOURCE=200809L")
"""With a C library: Node.js runs such programs."""
STACK_BYTES = 1 << 16
LINKING = ("--no-entry", "--strip-all", "--export=__heap_base", f"-z,stack-size={STACK_BYTES}")


class Compiler:
    """The pinned compiler for one system; `with` gives it a folder of its own for objects.

    Raises:
        SystemExit: it is not installed.
        subprocess.CalledProcessError, from every method: a warning or error, which has been printed.
    """

    def __init__(self, system: Iterable[str]) -> None:
        if importlib.util.find_spec("ziglang") is None:
            raise SystemExit("the compiler is not installed: pip install 'qexport[test]', which has ziglang")
        self.command = [sys.executable, "-m", "ziglang", "cc", *system, *OPTIONS, *WARNINGS]

    def __enter__(self) -> Compiler:
        self.holder = tempfile.TemporaryDirectory()
        self.folder = Path(self.holder.name)
        return self

    def __exit__(self, *error: object) -> None:
        self.holder.cleanup()

    def run(self, *arguments: str) -> None:
        environment = os.environ | {"ZIG_LOCAL_CACHE_DIR": str(self.folder)}
        subprocess.run([*self.command, *arguments], cwd=RUNTIME, env=environment, check=True)

    def compile(self, source: str, level: str) -> str:
        """The object of a file, relative to the runtime's folder."""
        made = str(self.folder / (source.replace("/", "-") + ".o"))
        self.run("-c", level, source, "-o", made)
        return made

    def library(self) -> list[str]:
        """Objects of the runtime; their order decides the bytes of what is linked."""
        levels = {file: "-O3" if FAST.fullmatch(file) else "-Os" for file in sources()}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self.compile, levels, levels.values()))


def sources() -> list[str]:
    """C files of the runtime, relative to its folder, always in one order."""
    return [file.relative_to(RUNTIME).as_posix() for pattern in SOURCES for file in sorted(RUNTIME.glob(pattern))]


def build(output: Path) -> None:
    """Compile and link the module."""
    with Compiler(BROWSER) as compiler:
        objects = [compiler.compile("wasm/module.c", "-Os"), *compiler.library()]
        linking = [f"-Wl,{option}" for option in LINKING]
        compiler.run("-Os", "-nostdlib", *linking, *objects, "-o", str(output.resolve()))
    output.chmod(0o644)


def build_programs(folder: Path) -> None:
    """Compile the test programs: FOLDER/NAME.wasm."""
    with Compiler(WASI) as compiler:
        library = compiler.library()
        for name in PROGRAMS:
            program = compiler.compile(f"tests/{name}.c", "-Os")
            compiler.run(program, *library, "-o", str(folder.resolve() / f"{name}.wasm"))


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else MODULE)
