"""The package as a whole: which layer may import what, what starts without torch, what the wheel holds."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import qexport

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(qexport.__file__).parent

# Upper layers first; a layer imports those above it and itself. A new package or module of qexport gets its place here.
LAYERS = (
    "errors",
    "packed_metadata",
    "session",
    "stepfunction",
    "levels",
    "ir",
    "ops",
    "detection",
    "datasets",
    "models",
    "checkpoints",
    "freeze",
    "capture",
    "passes",
    "reference",
    "calibration",
    "backends",
    "conversion",
    "embed",
    "inspection",
    "validation",
    "benchmark",
    "cli",
    "__main__",
)
RANK = {layer: rank for rank, layer in enumerate(LAYERS)}

# Heavy or replaceable libraries and the only layers that may import them.
RESTRICTED = {
    # conversion, inspection and validation only make inputs and run networks with it; no command starts with them.
    "torch": {"models", "checkpoints", "freeze", "capture", "calibration", "conversion", "inspection", "validation"}
    | {"benchmark"},
    "safetensors": {"models", "checkpoints"},
    "onnx": {"backends", "benchmark"},
    "onnxruntime": {"backends", "validation", "benchmark"},
    "openvino": {"benchmark"},
    "rich": {"cli"},
    "matplotlib": {"validation"},
    "jinja2": {"embed", "validation"},
    "sklearn": {"models"},
}


COMMANDS = {"models/train.py"}
"""Modules run with `python -m`: they stand beside the CLI, whatever folder they live in, and nothing imports them."""


def layer_of(file: Path) -> str:
    if file.relative_to(PACKAGE).as_posix() in COMMANDS:
        return "cli"
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def run_time_imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import below node, except those only the type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: relative import; write the module's full name"
            # `from qexport import ops` names the layer after the import, `from qexport.ops import Add` before it.
            names = [alias.name for alias in child.names] if child.module == "qexport" else [""]
            yield from ((child.lineno, f"{child.module}.{name}".rstrip(".")) for name in names)
        else:
            yield from run_time_imports(child)


def sources() -> list[Path]:
    # Not PACKAGE.rglob: it does not descend into the links to cli, calibration and models.
    return sorted([*PACKAGE.glob("*.py"), *(file for entry in PACKAGE.iterdir() for file in entry.rglob("*.py"))])


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_follow_the_layers(file: Path) -> None:
    """qexport/__init__.py may name any layer; modules that have no layer yet fail in the next test."""
    layer = layer_of(file)
    wrong = []
    for line, module in run_time_imports(ast.parse(file.read_text())):
        top, _, rest = module.partition(".")
        below = rest.partition(".")[0]
        if layer not in RESTRICTED.get(top, {layer}):
            wrong.append(f"{file}:{line}: {layer} imports {top}; only {sorted(RESTRICTED[top])} may")
        if top == "qexport" and RANK.get(below, 0) > RANK.get(layer, len(RANK)):
            wrong.append(f"{file}:{line}: {layer} imports {below}, a layer below it")
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_layer() -> None:
    found = {layer_of(file) for file in sources()} - {"__init__"}
    assert found <= set(LAYERS), "give the new layer its place in LAYERS"
    assert {"cli", "calibration", "models"} <= found, "the links to the top-level folders are missing"


@pytest.mark.parametrize("program", ["import qexport", "from qexport.cli.main import main; main(['--help'])"])
def test_starts_without_torch(program: str) -> None:
    command = [sys.executable, "-X", "importtime", "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.splitlines()}
    assert "qexport" in imported
    assert not imported & {"torch", "onnx", "onnxruntime"}


def build(kind: str, source: Path, output: Path) -> Path:
    program = f"import sys, scikit_build_core.build as backend; backend.build_{kind}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(output)], cwd=source, check=True, capture_output=True)
    (built,) = output.iterdir()
    return built


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the wheel is built from a clean clone, and this is no clone")
def test_wheel_and_sdist_hold_every_module(tmp_path: Path) -> None:
    """Both wheels, built from a clone and from the sdist, hold what git tracks, and the extension."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    tracked = subprocess.run(["git", "ls-files"], cwd=clone, check=True, capture_output=True, text=True).stdout.split()
    links = {"cli", "calibration", "models"}
    kinds = (".py", ".pyi", "/py.typed", ".j2", ".js", ".ts", ".css", ".wasm")
    expected = {
        f"qexport/{name}" if name.partition("/")[0] in links else name
        for name in tracked
        if name.partition("/")[0] in {"qexport", *links} and name.endswith(kinds)
    }
    expected.add("qexport/_runtime.abi3.so")
    kept = ("runtime/CMakeLists.txt", "runtime/cmake/", "runtime/include/", "runtime/src/")
    expected |= {f"qexport/embed/{name}" for name in tracked if name.startswith(kept) and "/wasm/" not in name}

    sdist = build("sdist", clone, tmp_path / "sdist")
    shutil.unpack_archive(sdist, tmp_path)
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert not [file for file in unpacked.rglob("*") if file.is_symlink()]
    for source in (clone, unpacked):
        built = build("wheel", source, tmp_path / f"wheel-{source.name}")
        assert "-cp311-abi3-" in built.name, "one wheel for every Python from 3.11 on"
        with zipfile.ZipFile(built) as wheel:
            held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert held == expected
