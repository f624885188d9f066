"""The C runtime's sources, which directories with the interpreter hold."""

from __future__ import annotations

from pathlib import Path

from qexport.errors import OutputError

_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "runtime", _HERE.parents[1] / "runtime")
"""In an installed package; in a clone."""

PORTABLE = ("src/*.[ch]", "src/scalar/*.[ch]")
WHOLE = (
    "CMakeLists.txt", "cmake/*.cmake", "include/*.h",
    "src/*.[ch]", "src/scalar/*.[ch]", "src/vector/*.[ch]", "src/arm/*.[ch]", "src/x86/*.[ch]",
)  # fmt: skip


def portable_sources() -> dict[str, str]:
    """The interpreter with its portable kernels: path below one include folder, that of qxr.h -> contents."""
    root = _root()
    files = {"qxr.h": root / "include" / "qxr.h"}
    files |= {p.relative_to(root / "src").as_posix(): p for pattern in PORTABLE for p in sorted(root.glob(pattern))}
    return _contents(files)


def whole_runtime() -> dict[str, str]:
    """The runtime with the kernels of every processor, and its CMake project, which chooses among them."""
    root = _root()
    return _contents({p.relative_to(root).as_posix(): p for pattern in WHOLE for p in sorted(root.glob(pattern))})


def _contents(files: dict[str, Path]) -> dict[str, str]:
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def _root() -> Path:
    for place in _PLACES:
        if (place / "include" / "qxr.h").is_file():
            return place
    raise OutputError(
        "the sources of the C runtime are missing",
        where=str(_PLACES[0]),
        got="no such folder",
        expected="the folder that the wheel of qexport holds, or a clone",
        remedy="install qexport again",
    )
