"""Classes an artifact gives to images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.inspection.network import Network, image_batches, open_network


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


def classify(model: str | Path | Network, images: str | Path, top: int) -> Iterator[list[Prediction]]:
    """The `top` largest logits of every image, in order of the images.

    Args:
        model: written by qexport convert; its file, or opened.
        images: one image file; or npz, npy or a folder with any number of images.
        top: how many classes; more than there are gives all.

    Raises:
        ArtifactError: the model is unreadable or not one of ours; DataError: the images are unusable.
    """
    network = model if isinstance(model, Network) else open_network(model)
    for batch in image_batches(images, network.input_shape):
        for row in network.run(batch)[0]:
            yield _ranked(row, network.metadata, top)


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
