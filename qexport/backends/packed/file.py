"""Writing a .qpk file: whole or not at all, and only if the reader proves it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from qexport.backends.packed.reader import PackedModel, parse_packed
from qexport.errors import OutputError
from qexport.ops import Conv2d, Linear


def write_packed(data: bytes, path: str | os.PathLike[str]) -> PackedModel:
    """Check the bytes of a file as any reader does, and write them in one step.

    Nothing is left behind when something fails, and an existing file is replaced only by a complete one.

    Returns:
        what a reader finds in the file.

    Raises:
        ArtifactError: the bytes break a rule of the format.
        OutputError: the file cannot be written.
    """
    model, target = parse_packed(data), Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            complete = Path(folder, target.name)
            complete.write_bytes(data)
            os.replace(complete, target)
    except OSError as error:
        raise OutputError(
            "the model cannot be written",
            where=str(target),
            got=error.strerror or error,
            remedy="name a directory that exists, is writable and has room",
        ) from error
    return model


def weight_bytes(model: PackedModel) -> dict[str, int]:
    """Bytes stored for the weights of each convolution and linear layer, codebooks included, in file order."""
    results = model.names[model.sections.inputs :]
    sizes = model.sections.ops["constant_size"].tolist()
    return {
        name: size for name, op, size in zip(results, model.ops, sizes, strict=True) if isinstance(op, Conv2d | Linear)
    }
