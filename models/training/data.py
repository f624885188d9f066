"""Images to train on, with some held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qexport.datasets.arrays import load_npz
from qexport.datasets.labels import check_shape
from qexport.errors import DataError
from qexport.models.digits_data import CLASS_NAMES, HELD_OUT_SHARE, SPLIT_SEED, held_out_mask, load_digits_split


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels and classes.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a network is trained and judged on.

    Attributes:
        train: N >= 2 samples.
        held_out: N >= 1 samples, never trained on.
        class_names: one per class.
        mean: per channel, of the training pixels / 255.
        std: per channel, of the training pixels / 255.
    """

    train: Samples
    held_out: Samples
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, c, h, w = self.train.images.shape
        return c, h, w

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> float32 [N, C, H, W], (pixels / 255 - mean) / std."""
        mean = torch.tensor(self.mean)[:, None, None]
        std = torch.tensor(self.std)[:, None, None]
        return (images.float() / 255 - mean) / std


def digits() -> TrainingData:
    """The handwritten digits of scikit-learn, 8x8, one channel.

    Raises:
        DataError: scikit-learn is not installed.
    """
    return _training_data(_samples(*load_digits_split("train")), _samples(*load_digits_split("test")), CLASS_NAMES)


def from_npz(path: Path) -> TrainingData:
    """An .npz with images (uint8 [N, H, W, C]) and labels (integers [N], from 0); a fifth of each class is held out.

    Raises:
        DataError: unreadable, of another type or shape, without labels, or with too few images to hold some out.
    """
    where = str(path)
    arrays = load_npz(path)
    images, labels = arrays["images"], arrays.get("labels")
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise DataError(
            "these are no images to train on", where=where, got=f"{images.dtype} {images.shape}", expected="uint8 NHWC"
        )
    if labels is None:
        raise DataError("there are no labels to train on", where=where, expected="an array named labels, int64 [N]")
    labels = check_shape(labels, len(images), where)
    held_out = held_out_mask(labels, HELD_OUT_SHARE, SPLIT_SEED)
    if not held_out.any():
        raise DataError(
            "too few images to hold some out", where=where, got=f"{len(images)} images", expected="3 or more of a class"
        )
    names = tuple(str(label) for label in range(int(labels.max()) + 1))
    return _training_data(
        _samples(images[~held_out], labels[~held_out]), _samples(images[held_out], labels[held_out]), names
    )


def _samples(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Samples:
    """Channels last to channels first."""
    return Samples(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels))


def _training_data(train: Samples, held_out: Samples, class_names: tuple[str, ...]) -> TrainingData:
    pixels = train.images.double() / 255
    # Four decimals: a preprocessing that people can copy. A constant channel must not divide by zero.
    mean = tuple(round(v, 4) for v in pixels.mean(dim=(0, 2, 3)).tolist())
    std = tuple(round(v, 4) or 1.0 for v in pixels.std(dim=(0, 2, 3)).tolist())
    return TrainingData(train, held_out, class_names, mean, std)
