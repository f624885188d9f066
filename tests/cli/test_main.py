"""The command as a whole: start, help, version, interrupts, bugs, pipes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import qexport as package
from qexport.checkpoints import families
from qexport.cli.options import MAX_BITS
from qexport.conversion.convert import DEFAULT_OPSET, FILE_NAMES
from qexport.conversion.settings import DEFAULT_EDGE_BITS
from qexport.conversion.settings import MAX_BITS as LARGEST_BITS

Run = Callable[..., Result]
COMMANDS = ("convert", "validate", "inspect", "run")


def test_help_is_fast_and_needs_no_heavy_library() -> None:
    program = (
        "import sys; from qexport.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'rich'} & set(sys.modules)))"
    )
    times = []
    for _ in range(3):  # the fastest of three: other processes may be at work
        start = time.perf_counter()
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        times.append(time.perf_counter() - start)
    assert found.endswith("[]\n")
    assert min(times) < 0.5


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "qexport", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"qexport, version {package.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(qexport: Run, command: str) -> None:
    shown = qexport(command, "--help").stdout
    options = re.split(r"\n  (?=-)", shown.partition("Options:\n")[2])
    assert len(options) > 2
    assert all(re.search(r"  \w", option.strip()) for option in options), shown


def test_help_states_what_the_library_does(qexport: Run) -> None:
    """Help must not import torch, so it repeats what the library knows; here they are held together."""
    shown = " ".join(qexport("convert", "--help").stdout.split())
    edge_bits = "max" if DEFAULT_EDGE_BITS is None else DEFAULT_EDGE_BITS
    assert f"accumulators allow. [default: {edge_bits}]" in shown
    assert f"18 to 25. [default: {DEFAULT_OPSET}]" in shown
    assert all(name in shown for name in (*FILE_NAMES, *FILE_NAMES.values(), *families()))
    assert (MAX_BITS.min, MAX_BITS.max) == (1, LARGEST_BITS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert",), "Missing argument 'CKPT'"),
        (("convert", "x.pt"), "Missing option '-o'"),
        (("convert", "x.pt", "--bits", "two", "-o", "out"), "'two' is not a valid integer"),
        (("convert", "x.pt", "--bits", "0", "-o", "out"), "0 is not in the range 1<=x<=8"),
        (
            ("convert", "x.pt", "--mean", "a,b", "-o", "out"),
            "'a,b' is no list of numbers separated by commas, such as 0.485",
        ),
        (("convert", "x.pt", "--input-shape", "3,32.5,32", "-o", "out"), "no list of whole numbers"),
        (("convert", "x.pt", "--edge-bits", "most", "-o", "out"), "'most' is neither a number of bits nor 'max'"),
        (("convert", "x.pt", "--format", ",", "-o", "out"), "the list is empty"),
        (("validate", "--checkpoint", "x.pt", "--data", "d"), "Missing argument 'ARTIFACT...'"),
        (("validate", "a.onnx", "--checkpoint", "x.pt", "--data", "d", "--limit", "0"), "0 is not in the range x>=1"),
        (("inspect", "a.onnx", "--bits", "2"), "--bits is for checkpoints"),
        (("inspect", "a.json", "--bits", "2"), "--bits is for checkpoints"),
        (("inspect", "a.json", "--assert-integer"), "--assert-integer is for artifacts"),
        (("inspect", "a.pt", "--assert-integer"), "--assert-integer is for artifacts"),
        (("run", "a.onnx"), "Missing option '--input'"),
        (("convret",), "No such command 'convret'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_status_2(qexport: Run, arguments: tuple[str, ...], message: str) -> None:
    result = qexport(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split()) and not result.stdout


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.fixture
def broken_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make every conversion fail while the output directory is already there."""
    # The package's attribute `convert` is the function, so the module is taken from sys.modules.
    module = sys.modules["qexport.conversion.convert"]
    return lambda error: monkeypatch.setattr(module, "build", failing(error))


def test_ctrl_c_is_status_130_and_leaves_nothing(
    qexport: Run, checkpoint: Path, tmp_path: Path, broken_build: Callable[[BaseException], None]
) -> None:
    broken_build(KeyboardInterrupt())
    result = qexport("convert", checkpoint, "--bits", 2, "-o", tmp_path / "a" / "b")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr and not result.stdout
    assert not list(tmp_path.iterdir())


def test_an_interrupted_import_is_an_interrupt(
    qexport: Run, checkpoint: Path, tmp_path: Path, broken_build: Callable[[BaseException], None]
) -> None:
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    broken_build(error)
    result = qexport("convert", checkpoint, "--bits", 2, "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr and "internal error" not in result.stderr


def test_a_bug_is_called_a_bug(
    qexport: Run,
    checkpoint: Path,
    tmp_path: Path,
    broken_build: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken_build(IndexError("list index out of range"))
    result = qexport("convert", checkpoint, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "Error: internal error, IndexError: list index out of range\n" in result.stderr
    assert "bug of qexport" in result.stderr and "QEXPORT_DEBUG=1" in result.stderr
    monkeypatch.setenv("QEXPORT_DEBUG", "1")
    assert isinstance(qexport("convert", checkpoint, "-o", tmp_path / "out").exception, IndexError)


def test_a_full_disk_is_no_bug(
    qexport: Run, checkpoint: Path, tmp_path: Path, broken_build: Callable[[BaseException], None]
) -> None:
    broken_build(OSError(28, "No space left on device", "model.onnx"))
    result = qexport("convert", checkpoint, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"Error: {tmp_path / 'out'}: the disk is full\n" in result.stderr and "remedy:   free some" in result.stderr
    assert "internal error" not in result.stderr and not (tmp_path / "out").exists()
