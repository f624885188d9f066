"""Classes an artifact gives to images, by ONNX Runtime or by our own runtime: no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.metadata import decode_metadata
from qexport.datasets import open_dataset, read_image
from qexport.datasets.folder import IMAGE_SUFFIXES
from qexport.errors import ArtifactError, DataError
from qexport.session import MAX_THREADS, InferenceSession, is_packed


@dataclass(frozen=True)
class Prediction:
    """One class of one image.

    Attributes:
        index: of the class.
        name: of the class, or None where the model knows no names.
        integer: the integer logit, None where the model's output is real.
        value: the real logit: integer * scale.
    """

    index: int
    name: str | None
    integer: int | None
    value: float

    @property
    def label(self) -> str:
        """What to call the class."""
        return self.name if self.name is not None else f"class {self.index}"


def classify(model: str | Path, images: str | Path, top: int) -> Iterator[list[Prediction]]:
    """The `top` largest logits of every image, in order of the images.

    Args:
        model: written by qexport convert.
        images: one image file; or npz, npy or a folder with any number of images.
        top: how many classes; more than there are gives all.

    Raises:
        ArtifactError: the model is unreadable or not one of ours; DataError: the images are unusable.
    """
    metadata, run = _open_packed(model) if is_packed(model) else _open_onnx(model)
    for batch in _batches(Path(images), tuple(metadata["qexport.input_shape"])):
        for row in run(batch):
            yield _ranked(row, metadata, top)


Run = Callable[[NDArray[np.uint8]], NDArray]
"""Images to the first output."""


def _open_onnx(model: str | Path) -> tuple[dict[str, Any], Run]:
    """Metadata, and what runs the model; onnx is imported here, since a .qpk file does without it."""
    from qexport.backends.onnx.reader import read_onnx
    from qexport.backends.onnx.session import open_session, run_session

    proto, properties = read_onnx(model)
    metadata = _metadata(properties, model)
    session = open_session(proto, name=str(model))
    (feed,) = (declared.name for declared in session.get_inputs())
    return metadata, lambda batch: next(iter(run_session(session, {feed: batch}).values()))


def _open_packed(model: str | Path) -> tuple[dict[str, Any], Run]:
    session = InferenceSession(model, threads=min(os.cpu_count() or 1, MAX_THREADS))
    metadata = _metadata(session.get_modelmeta().custom_metadata_map, model)
    (feed,) = (declared.name for declared in session.get_inputs())
    return metadata, lambda batch: session.run(None, {feed: batch})[0]


def _metadata(properties: dict[str, str], model: str | Path) -> dict[str, Any]:
    """What convert wrote about the model, decoded."""
    metadata = decode_metadata(properties, model)
    missing = [key for key in ("qexport.input_shape", "qexport.outputs") if key not in metadata]
    if missing:
        raise ArtifactError(
            "the model was not written by qexport",
            where=str(model),
            got=f"no metadata {', '.join(missing)}",
            expected="a file of qexport convert, which says how to feed it and what its outputs mean",
        )
    return metadata


def _batches(path: Path, shape: tuple[int, int, int]) -> Iterator[NDArray[np.uint8]]:
    """uint8 [n, C, H, W], one image or all of a data set."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        yield read_image(path, shape)[None]
        return
    try:
        dataset = open_dataset(path, shape)
    except DataError:
        if not path.is_file():
            raise
        yield read_image(path, shape)[None]  # an array of one image, without a batch axis; or it says what is wrong
        return
    yield from dataset.batches()


def _ranked(row: NDArray, metadata: dict[str, Any], top: int) -> list[Prediction]:
    """Largest logits first, equal ones by class index."""
    names = metadata.get("qexport.class_names")
    is_integer = row.dtype.kind in "iu"
    scale = metadata["qexport.outputs"][0]["scale"] if is_integer else 1.0
    order = np.argsort(-row.astype(np.float64), kind="stable")[:top]
    return [
        Prediction(
            int(index),
            names[index] if names else None,
            int(row[index]) if is_integer else None,
            float(row[index]) * scale,
        )
        for index in order
    ]
