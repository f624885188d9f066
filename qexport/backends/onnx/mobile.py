"""The format of ONNX Runtime for phones (.ort), made and checked by ONNX Runtime itself.

Its optimizations are baked in, so that a runtime built without them loads the file: constants are folded, which unpacks
weights of few bits to bytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from qexport.backends.onnx.session import open_session
from qexport.backends.onnx.writer import write_onnx
from qexport.errors import ArtifactError

CONFIG_NAME = "required_operators.config"
"""Operators that a reduced build of ONNX Runtime needs (build.py --include_ops_by_config)."""

_TOOL = "onnxruntime.tools.convert_onnx_models_to_ort"
_LEVEL = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"
_BATCH = 2


def write_mobile(models: Mapping[str, onnx.ModelProto], folder: Path) -> list[str]:
    """Write NAME.ort of every model, and the operators they need together.

    Args:
        models: by name.
        folder: where the files go; nothing is left in it when something fails.

    Returns:
        names of the files, the configuration last.

    Raises:
        ArtifactError: ONNX Runtime refuses a model, or its file computes something else.
        OutputError: a file cannot be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        given, made = Path(temporary, "onnx"), Path(temporary, "ort")
        given.mkdir()
        for name, model in models.items():
            write_onnx(model, given / f"{name}.onnx")
        _convert(given, made)
        for name, model in models.items():
            _check(model, (made / f"{name}.ort").read_bytes(), f"{name}.ort")
        lines = (made / CONFIG_NAME).read_text(encoding="utf-8").splitlines()
        # The comments at its top name files of the temporary folder.
        operators = [line for line in lines if not line.startswith("#")]
        names = [*(f"{name}.ort" for name in models), CONFIG_NAME]
        (made / CONFIG_NAME).write_text("\n".join([f"# {', '.join(names[:-1])}", *operators, ""]), encoding="utf-8")
        for file in names:
            (folder / file).write_bytes((made / file).read_bytes())
    return names


def _convert(given: Path, made: Path) -> None:
    """Run the tool as a program: as a module it prints, and sets up logging for the whole process."""
    # One set of optimizations for every processor: what is made for this one may not run on a phone.
    options = ["--optimization_style", "Fixed", "--target_platform", "arm", "--output_dir", str(made)]
    kept = {key: value for key, value in os.environ.items() if key != _LEVEL}
    done = subprocess.run(
        [sys.executable, "-m", _TOOL, *options, str(given)], env=kept, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ArtifactError(
            "ONNX Runtime cannot write its mobile format",
            got=last[0] if last else f"exit status {done.returncode}",
            remedy="upgrade onnxruntime, or leave out --format ort",
        )


def _check(model: onnx.ModelProto, data: bytes, name: str) -> None:
    """Both give the same outputs for random integers."""
    ours = open_session(model, name=name)
    feeds = {x.name: _random(x) for x in ours.get_inputs()}
    expected = ours.run(None, feeds)
    found = open_session(data, name=name).run(None, feeds)
    if not all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True)):
        raise ArtifactError(
            "the mobile file computes something else than the ONNX file",
            where=name,
            remedy="please report this, with the version of onnxruntime",
        )


def _random(x: onnxruntime.NodeArg) -> np.ndarray:
    shape = [extent if isinstance(extent, int) else _BATCH for extent in x.shape]
    kind = np.uint8 if x.type == "tensor(uint8)" else np.int32
    return np.random.default_rng(0).integers(0, 256, shape).astype(kind)
