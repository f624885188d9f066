"""Generates the C of networks, compiles it for this machine and others, and runs it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from loader_program import find_clang

from qexport.backends.packed.writer import to_packed
from qexport.embed import embed
from qexport.ir import Graph
from qexport.reference import interpret

HERE = Path(__file__).resolve().parent / "embed"
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
TIMEOUT = 300
"""Seconds a program may run: building the C runtime takes longest, none of the others needs a tenth of it."""


@dataclass(frozen=True)
class Target:
    """A processor: how to compile for it and run the result.

    Attributes:
        compiler: command.
        flags: of the compiler, also to link.
        emulator: command in front of the program.
        sources: start-up code.
        byte_order: of numbers the program writes.
    """

    compiler: str
    flags: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    byte_order: str = "<"

    def require(self) -> None:
        """Skip where a tool is missing."""
        for tool in (self.compiler, *self.emulator[:1]):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")


def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, timeout=TIMEOUT, **options)  # type: ignore[call-overload]


def write_network(graph: Graph, folder: Path, **options: str | bool) -> dict:
    """The generated directory of a graph."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "network.qpk"
    model.write_bytes(to_packed(graph, metadata={}))
    return embed(model, folder, **options)  # type: ignore[arg-type]


def build(target: Target, folder: Path, sources: Sequence[Path | str], *flags: str) -> Path:
    """Compile files of a generated directory (by name) and others (by path), with every warning an error."""
    target.require()
    program = folder / "program"
    paths = [folder / s if isinstance(s, str) else s for s in sources]
    options = [*STRICT, *target.flags, *flags, f"-I{folder}"]
    done = run([target.compiler, *options, *paths, *target.sources, "-o", program, *link_flags(target)])
    if b"libclang_rt" in done.stderr or b"cannot find -lasan" in done.stderr:
        pytest.skip("the compiler's sanitizer runtime is not installed")
    assert done.returncode == 0, done.stderr.decode()
    return program


def link_flags(target: Target) -> tuple[str, ...]:
    """Programs for other machines carry their libraries."""
    return ("-static",) if target.emulator else ()


def replay(target: Target, program: Path, feeds: np.ndarray | Sequence[np.ndarray], size: int) -> np.ndarray:
    """Outputs [N, size] of a program made with replay.c for samples [N, ...] of every input."""
    arrays = [feeds] if isinstance(feeds, np.ndarray) else feeds
    rows = np.concatenate([a.reshape(len(a), -1).astype(np.uint8) for a in arrays], axis=1)
    done = run([*target.emulator, program], input=rows.tobytes())
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    return np.frombuffer(done.stdout, f"{target.byte_order}i4").reshape(len(rows), size)


def expected_outputs(graph: Graph, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What the reference computes, [N, all outputs]."""
    found = interpret(graph, feeds).outputs
    return np.concatenate([found[name].reshape(len(found[name]), -1) for name in graph.outputs], axis=1)


def cortex_m(cpu: str, machine: str, mhz: int, rom: int, ram: int, *flags: str) -> Target:
    """A board of QEMU; an instruction takes one nanosecond, so that counting gives the same number every time."""
    start = HERE / "cortex_m" / "start.c"
    linked = ("-nostartfiles", "--specs=rdimon.specs", f"-T{HERE / 'cortex_m' / 'link.ld'}")
    places = (f"-Wl,--defsym=rom={rom:#x}", f"-Wl,--defsym=ram={ram:#x}", "-Wl,--no-warn-rwx-segments")
    emulator = ("qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-icount", "shift=0", "-kernel")
    options = (f"-mcpu={cpu}", "-mthumb", *flags, f"-DTIMER_MHZ={mhz}")
    return Target("arm-none-eabi-gcc", (*options, *linked, *places), emulator, (start,))


GCC, CLANG = Target("gcc"), Target(find_clang() or "clang")
HERE_BY_COMPILER = {"gcc": GCC, "clang": CLANG}
CORTEX_M = {
    "cortex-m3": cortex_m("cortex-m3", "mps2-an385", 25, 0, 0x20000000),
    "cortex-m4": cortex_m("cortex-m4", "mps2-an386", 25, 0, 0x20000000),
    "cortex-m7": cortex_m("cortex-m7", "mps2-an500", 25, 0, 0x20000000),
    "cortex-m33": cortex_m("cortex-m33", "mps2-an505", 20, 0x10000000, 0x38000000),
    "cortex-m55": cortex_m("cortex-m55", "mps3-an547", 32, 0, 0x31000000, "-mfloat-abi=hard"),
    "cortex-m55-plain": cortex_m("cortex-m55", "mps3-an547", 32, 0, 0x31000000, "-mfloat-abi=soft"),
}
LINUX = {
    "aarch64": Target(
        "aarch64-linux-gnu-gcc", ("-march=armv8.2-a+dotprod",), ("qemu-aarch64-static", "-cpu", "cortex-a76")
    ),
    "armv7": Target("arm-linux-gnueabihf-gcc", (), ("qemu-arm-static",)),
    "riscv64": Target("riscv64-linux-gnu-gcc", (), ("qemu-riscv64-static",)),
    "s390x": Target("s390x-linux-gnu-gcc", (), ("qemu-s390x-static",), byte_order=">"),
}
LINUX["aarch64-plain"] = Target("aarch64-linux-gnu-gcc", (), ("qemu-aarch64-static", "-cpu", "cortex-a53"))
QUICK = {"cortex-m4", "cortex-m55", "s390x"}
"""Processors of the short test run: two products at a time, vectors, and the other byte order."""


def undefined_symbols(target: Target, source: Path) -> set[str]:
    """What a C file takes from elsewhere; fails if it has writable data."""
    target.require()
    nm = shutil.which("nm") or pytest.skip("nm is not installed")
    compiled = source.with_suffix(f".{Path(target.compiler).name}.o")
    flags = ["-std=c99", "-Os", "-fno-builtin", "-fno-stack-protector", "-c"]
    done = run([target.compiler, *flags, source, "-o", compiled])
    assert done.returncode == 0, done.stderr.decode()
    symbols = [line.split()[-2:] for line in run([nm, compiled]).stdout.decode().splitlines()]
    assert {kind for kind, _ in symbols} <= {"T", "t", "r", "U"}
    return {symbol for kind, symbol in symbols if kind == "U"} - {"_GLOBAL_OFFSET_TABLE_"}


def self_check(target: Target, folder: Path, *flags: str) -> str:
    """Build and run the generated example with its test vector; returns what it prints."""
    program = build(target, folder, ["main.c", "model.c", "model_test.c"], *flags)
    done = run([*target.emulator, program])
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


def count_instructions(target: Target, folder: Path, *flags: str) -> int:
    """Instructions of one run on a Cortex-M, the comparison with the test vector included."""
    program = build(target, folder, [HERE / "cortex_m" / "count.c", "model.c", "model_test.c"], *flags)
    done = run([*target.emulator, program])
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return int(done.stdout.split()[0])
