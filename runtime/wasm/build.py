"""Compiles the runtime to a WebAssembly module: python runtime/wasm/build.py [FILE], FILE qexport/embed/web/qxr.wasm.

The module is committed, so that users need no compiler. Zig (PyPI: ziglang, pinned in pyproject.toml) is clang and lld
of one version on every system: the same sources give the same bytes, which a test checks.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUNTIME = Path(__file__).resolve().parents[1]
MODULE = RUNTIME.parent / "qexport" / "embed" / "web" / "qxr.wasm"

SOURCES = ("wasm/module.c", "src/*.c", "src/scalar/*.c")
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
MACHINE = ("-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory")
OPTIONS = ("-std=c11", "-O3", "-g0", "-ffreestanding", "-nostdlib")
HEADERS = ("-isystem", "wasm/freestanding", "-Iinclude", "-Isrc")
STACK_BYTES = 1 << 16
LINKING = ("--no-entry", "--strip-all", "--export=__heap_base", f"-z,stack-size={STACK_BYTES}")


def zig() -> tuple[str, ...]:
    """The command of the pinned compiler.

    Raises:
        SystemExit: it is not installed.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise SystemExit("the compiler is not installed: pip install 'qexport[test]', or the ziglang of pyproject.toml")
    return (sys.executable, "-m", "ziglang")


def sources() -> list[str]:
    """C files relative to the runtime's folder, sorted: their order decides the bytes."""
    return [str(file.relative_to(RUNTIME)) for pattern in SOURCES for file in sorted(RUNTIME.glob(pattern))]


def build(output: Path) -> None:
    """Compile and link the module.

    Raises:
        subprocess.CalledProcessError: a warning or error of the compiler, which has been printed.
    """
    linking = [f"-Wl,{option}" for option in LINKING]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        command = [
            *zig(),
            "cc",
            *MACHINE,
            *OPTIONS,
            *HEADERS,
            *WARNINGS,
            *linking,
            *sources(),
            "-o",
            str(output.resolve()),
        ]
        subprocess.run(command, cwd=RUNTIME, env=environment, check=True)
    output.chmod(0o644)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else MODULE)
