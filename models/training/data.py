"""Images to train on, with some held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from qexport.datasets.arrays import load_npz
from qexport.datasets.folder import list_folder, load_image
from qexport.datasets.labels import check_shape
from qexport.datasets.objects import Objects, read_objects
from qexport.errors import DataError
from qexport.models.detection.digit_scenes import make_scenes
from qexport.models.digits_data import CLASS_NAMES, HELD_OUT_SHARE, SPLIT_SEED, Split, held_out_mask, load_digits_split

TRAINING_SCENES = 3000
HELD_OUT_SCENES = 500


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels, and their classes or what there is to find in them.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], or None.
        objects: one entry an image, or None; either these or the labels.
    """

    images: Tensor
    labels: Tensor | None
    objects: tuple[Objects, ...] | None = None


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

    def fingerprint(self) -> str:
        """A hash of the training samples."""
        digest = hashlib.sha256(self.train.images.numpy().tobytes())
        if self.train.labels is not None:
            digest.update(self.train.labels.numpy().tobytes())
        for image in self.train.objects or ():
            digest.update(image.boxes.tobytes() + image.labels.tobytes() + b".")
        return digest.hexdigest()


def open_data(name: str) -> TrainingData:
    """Training data by name: "digits", "scenes", an .npz, or a folder of images.

    Raises:
        DataError: see the functions below.
    """
    if name == "digits":
        return digits()
    if name == "scenes":
        return scenes()
    return from_folder(Path(name)) if Path(name).is_dir() else from_npz(Path(name))


def digits() -> TrainingData:
    """The handwritten digits of scikit-learn, 8x8, one channel.

    Raises:
        DataError: scikit-learn is not installed.
    """
    return _training_data(_samples(*load_digits_split("train")), _samples(*load_digits_split("test")), CLASS_NAMES)


def scenes(n_train: int = TRAINING_SCENES, n_held_out: int = HELD_OUT_SCENES) -> TrainingData:
    """Digits on textured canvases, 64x64, one channel, with their boxes; the held-out digits are never trained on.

    Raises:
        DataError: scikit-learn is not installed.
    """
    return _training_data(_scenes("train", n_train), _scenes("test", n_held_out), CLASS_NAMES)


def _scenes(split: Split, count: int) -> Samples:
    made = make_scenes(count, split=split)
    objects = read_objects(vars(made), count, made.images.shape[1:3], "scenes")
    return _samples(made.images, None, objects)


def from_npz(path: Path) -> TrainingData:
    """An .npz with images (uint8 [N, H, W, C]) and labels (integers [N], from 0), or objects, see `read_objects`.

    A fifth is held out: of each class, or of all images where they hold objects.

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
    names = tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))
    if "offsets" in arrays:
        objects = read_objects(arrays, len(images), images.shape[1:3], where)
        return _split(images, None, objects, names, where)
    return _split(images, check_shape(labels, len(images), where), None, names, where)


def from_folder(path: Path) -> TrainingData:
    """One folder of images per class, all of the size of the first; a fifth of each class is held out.

    Raises:
        DataError: no class folders, an unreadable image, one of another size, or too few to hold some out.
    """
    folder = list_folder(path)
    if folder.labels is None or folder.class_names is None:
        raise DataError("there are no classes to train on", where=str(path), expected="one folder of images per class")
    try:
        with Image.open(folder.files[0]) as first:
            channels = 1 if first.mode in ("1", "L") else 3
            shape = (channels, first.height, first.width)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError("the image cannot be read", where=str(folder.files[0]), got=error) from error
    images = np.stack([load_image(file, shape) for file in folder.files]).transpose(0, 2, 3, 1)
    return _split(images, folder.labels, None, folder.class_names, str(path))


def _split(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    objects: tuple[Objects, ...] | None,
    names: tuple[str, ...],
    where: str,
) -> TrainingData:
    """Hold a fifth out."""
    held_out = held_out_mask(np.zeros(len(images), np.int64) if labels is None else labels, HELD_OUT_SHARE, SPLIT_SEED)
    if not held_out.any() or held_out.all():
        raise DataError(
            "too few images to hold some out", where=where, got=f"{len(images)} images", expected="3 or more of a class"
        )
    train, test = (
        _samples(
            images[mask],
            None if labels is None else labels[mask],
            None if objects is None else tuple(objects[i] for i in np.flatnonzero(mask)),
        )
        for mask in (~held_out, held_out)
    )
    return _training_data(train, test, names)


def _samples(
    images: NDArray[np.uint8], labels: NDArray[np.int64] | None, objects: tuple[Objects, ...] | None = None
) -> Samples:
    """Channels last to channels first."""
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    return Samples(pixels, None if labels is None else torch.from_numpy(labels), objects)


def _training_data(train: Samples, held_out: Samples, class_names: tuple[str, ...]) -> TrainingData:
    pixels = train.images.double() / 255
    # Four decimals: a preprocessing that people can copy. A constant channel must not divide by zero.
    mean = tuple(round(v, 4) for v in pixels.mean(dim=(0, 2, 3)).tolist())
    std = tuple(round(v, 4) or 1.0 for v in pixels.std(dim=(0, 2, 3)).tolist())
    return TrainingData(train, held_out, class_names, mean, std)
