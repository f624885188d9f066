"""Objects in images: boxes and classes, a different number in every image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qexport.errors import DataError


@dataclass(frozen=True, eq=False)
class Objects:
    """What there is to find in one image.

    Attributes:
        boxes: float32 [n, 4], corners (x0, y0, x1, y1) as fractions of the image.
        labels: int64 [n], classes from 0, no background among them.
        difficult: bool [n]; finding such an object counts neither for nor against a detector.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)


def read_objects(
    arrays: Mapping[str, NDArray], n_images: int, image_size: tuple[int, int], where: str
) -> tuple[Objects, ...]:
    """Objects of every image from the flat arrays of an .npz.

    Args:
        arrays: boxes (numbers [M, 4], corners in pixels), labels (integers [M]), offsets (integers [n_images + 1]: the
            objects of image i are offsets[i] to offsets[i + 1] - 1), optionally difficult (bool [M]).
        n_images: images in the file.
        image_size: (height, width) in pixels.
        where: the file.

    Raises:
        DataError: an array is missing, of another type or shape, or a box is empty or outside the image.
    """
    missing = sorted({"boxes", "labels", "offsets"} - set(arrays))
    if missing:
        raise DataError(
            "the file has offsets, but not all that describes objects",
            where=where,
            got=f"no {' and no '.join(missing)}",
            expected="boxes [M, 4], labels [M], offsets [N + 1]",
        )
    boxes, labels, offsets = (np.asarray(arrays[name]) for name in ("boxes", "labels", "offsets"))
    difficult = np.asarray(arrays.get("difficult", np.zeros(len(labels), np.bool_)))
    _check_arrays(boxes, labels, difficult, where)
    _check_offsets(offsets, n_images, len(labels), where)
    height, width = image_size
    low, high = boxes[:, :2], boxes[:, 2:]
    bad = ~((low >= 0).all(1) & (high <= (width, height)).all(1) & (low < high).all(1))
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            "a box is empty or leaves its image",
            where=where,
            got=f"box {first}: {boxes[first].tolist()}",
            expected=f"0 <= x0 < x1 <= {width}, 0 <= y0 < y1 <= {height}",
        )
    fractions = (boxes / np.array([width, height, width, height])).astype(np.float32)
    parts = [slice(a, b) for a, b in pairwise(offsets.tolist())]
    return tuple(Objects(fractions[p], labels[p].astype(np.int64), difficult[p].astype(np.bool_)) for p in parts)


def _check_arrays(boxes: NDArray, labels: NDArray, difficult: NDArray, where: str) -> None:
    shapes_fit = labels.ndim == 1 and boxes.shape == (labels.size, 4) and difficult.shape == labels.shape
    if not (shapes_fit and labels.dtype.kind in "iu" and boxes.dtype.kind in "iuf" and difficult.dtype.kind in "biu"):
        raise DataError(
            "boxes and labels do not fit each other",
            where=where,
            got=f"boxes {boxes.dtype} {boxes.shape}, labels {labels.dtype} {labels.shape}, "
            f"difficult {difficult.dtype} {difficult.shape}",
            expected="numbers [M, 4], integers [M], bools [M]",
        )
    if labels.size and labels.min() < 0:
        raise DataError("a label is negative", where=where, got=int(labels.min()), expected="class indices from 0")


def _check_offsets(offsets: NDArray, n_images: int, n_objects: int, where: str) -> None:
    fits = offsets.dtype.kind in "iu" and offsets.shape == (n_images + 1,)
    if not fits or offsets[0] != 0 or offsets[-1] != n_objects or (offsets[1:] < offsets[:-1]).any():
        raise DataError(
            "offsets do not divide the objects among the images",
            where=where,
            got=f"{offsets.dtype} {offsets.shape}, {n_images} images, {n_objects} objects",
            expected=f"integers [{n_images + 1}] rising from 0 to {n_objects}",
        )
