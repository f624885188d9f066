"""Writing a model file: whole or not at all, and only if ONNX Runtime loads it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx

from qexport.backends.onnx.session import open_session
from qexport.errors import ArtifactError, OutputError

MAX_BYTES = 2**31 - 1
"""A protobuf message holds less than 2 GB."""


def write_onnx(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Check a model, load it in ONNX Runtime at default optimization, and write it in one step.

    Nothing is left behind when something fails, and an existing file is replaced only by a complete one.

    Raises:
        ArtifactError: onnx.checker or ONNX Runtime refuses the model, or it is larger than 2 GB.
        OutputError: the file cannot be written.
    """
    target = Path(path)
    if model.ByteSize() > MAX_BYTES:
        raise ArtifactError("the model is larger than 2 GB", where=str(target), got=f"{model.ByteSize()} bytes")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # checker and shape inference raise unrelated classes
        raise ArtifactError("onnx.checker refuses the model", where=str(target), got=error) from error
    data = model.SerializeToString(deterministic=True)
    open_session(data, name=str(target))
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = file.name
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(
            "the model cannot be written",
            where=str(target),
            got=error.strerror or error,
            remedy="name a directory that exists, is writable and has room",
        ) from error


def _umask() -> int:
    """The process's file mode mask; temporary files are private, the finished file is an ordinary one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
