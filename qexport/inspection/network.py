"""An artifact as a function from images to its outputs, by ONNX Runtime or by our own runtime: no torch."""

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

FORMAT_KEY, POST_PROCESS_FORMAT = "qexport.format", "onnx-post-process"

Run = Callable[[NDArray[np.uint8]], list[NDArray]]
"""Images uint8 [n, C, H, W] to every output, [n, ...]."""


@dataclass(frozen=True)
class Network:
    """An artifact that can be run.

    Attributes:
        metadata: what convert wrote about it, decoded.
        run: runs it.
    """

    metadata: dict[str, Any]
    run: Run

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.metadata["qexport.input_shape"]
        return c, h, w


def open_network(model: str | Path) -> Network:
    """Load an artifact, a .qpk file or an ONNX one.

    Raises:
        ArtifactError: it is unreadable or not one of ours.
    """
    network = _open_packed(model) if is_packed(model) else _open_onnx(model)
    if network.metadata.get(FORMAT_KEY) == POST_PROCESS_FORMAT:
        raise ArtifactError(
            "a post-process takes heads, not images",
            where=str(model),
            remedy="give model.onnx or model.qpk, which hold the network and know its post-process",
        )
    return network


def _open_onnx(model: str | Path) -> Network:
    """Metadata, and what runs the model; onnx is imported here, since a .qpk file does without it."""
    from qexport.backends.onnx.reader import read_onnx
    from qexport.backends.onnx.session import open_session, run_session

    proto, properties = read_onnx(model)
    metadata = _metadata(properties, model)
    session = open_session(proto, name=str(model))
    feed = session.get_inputs()[0].name
    return Network(metadata, lambda batch: list(run_session(session, {feed: batch}).values()))


def _open_packed(model: str | Path) -> Network:
    session = InferenceSession(model, threads=min(os.cpu_count() or 1, MAX_THREADS))
    metadata = _metadata(session.get_modelmeta().custom_metadata_map, model)
    feed = session.get_inputs()[0].name
    return Network(metadata, lambda batch: list(session.run(None, {feed: batch})))


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


def image_batches(images: str | Path, shape: tuple[int, int, int]) -> Iterator[NDArray[np.uint8]]:
    """uint8 [n, C, H, W], one image or all of a data set."""
    path = Path(images)
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
