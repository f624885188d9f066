"""Rules for labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qexport.errors import DataError


def check_shape(labels: NDArray, n_images: int, where: str) -> NDArray[np.int64]:
    """Labels as int64 [n_images].

    Raises:
        DataError: not integers, not one per image, or negative.
    """
    if labels.dtype.kind not in "iu":
        raise DataError(
            "labels must be integers",
            where=where,
            got=str(labels.dtype),
            expected="integer class indices, one per image",
            remedy="save the index of each class, not its name or its one-hot code",
        )
    if labels.shape != (n_images,):
        raise DataError(
            "labels do not fit the images",
            where=where,
            got=f"labels of shape {labels.shape}",
            expected=f"({n_images},), one label per image",
            remedy="save images and labels of the same samples",
        )
    if labels.min() < 0:
        raise DataError(
            "a label is negative",
            where=where,
            got=f"{int(labels.min())} at image {int(labels.argmin())}",
            expected="class indices from 0",
            remedy="leave out images without a label",
        )
    return labels.astype(np.int64)


def check_labels(labels: NDArray[np.int64], n_classes: int, where: str) -> None:
    """Refuse labels that a network with `n_classes` outputs cannot give.

    Raises:
        DataError: with the largest label and its image.
    """
    if labels.size and labels.max() >= n_classes:
        raise DataError(
            "a label lies outside the network's classes",
            where=where,
            got=f"label {int(labels.max())} at image {int(labels.argmax())}",
            expected=f"0 to {n_classes - 1}: the network has {n_classes} outputs",
            remedy="check that data set and checkpoint belong together; labels count from 0",
        )
