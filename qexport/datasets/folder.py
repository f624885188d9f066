"""Folders of image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qexport.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_WIDE_MODES = ("I", "F")
"""First letters of modes with more than 8 bits a channel, which Pillow would clip, not scale."""


@dataclass(frozen=True, eq=False)
class Folder:
    """Image files in their final order, with labels where class folders give them.

    Attributes:
        files: sorted by class, then by path.
        labels: int64 [N], or None for a flat folder.
        class_names: name of each label, or None.
    """

    files: tuple[Path, ...]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None


def list_folder(path: Path, class_names: Sequence[str] | None = None) -> Folder:
    """Find the images of a folder; other files and hidden ones are ignored.

    Raises:
        DataError: no images, images beside class folders, or class folders of which only some are in `class_names`.
    """
    entries = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    flat = [p for p in entries if _is_image(p)]
    below = {p.name: sorted(f for f in p.rglob("*") if _is_image(f)) for p in entries if p.is_dir()}
    if flat and any(below.values()):
        raise DataError(
            "images lie beside class folders",
            where=str(path),
            got=f"{len(flat)} images such as {flat[0].name}, and folders {_some(below)}",
            expected="one folder per class, or images only",
            remedy="move the images into class folders",
        )
    if flat:
        return Folder(tuple(flat), None, None if class_names is None else tuple(class_names))
    if not any(below.values()):
        raise DataError(
            "there are no images",
            where=str(path),
            got=f"{len(entries)} entries",
            expected=f"image files ({' '.join(sorted(IMAGE_SUFFIXES))}), or one folder per class",
            remedy="check the path",
        )
    names = _label_names(path, sorted(below), class_names)
    files = [(file, label) for label, name in enumerate(names) for file in below.get(name, ())]
    labels = np.array([label for _, label in files], np.int64)
    return Folder(tuple(file for file, _ in files), labels, names)


def load_image(path: Path, input_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode one file to uint8 [C, H, W]; colours are converted as torchvision's folder loader does, size never.

    Raises:
        DataError: unreadable, of another size, more than 8 bits a channel, or a network that takes neither 1, 3 nor 4
            channels.
    """
    channels, height, width = input_shape
    mode = _MODES.get(channels)
    if mode is None:
        raise DataError(
            "image files have 1, 3 or 4 channels, the network takes another number",
            where=str(path),
            expected=f"{channels} channels",
            remedy="give the images as .npz or .npy",
        )
    try:
        with Image.open(path) as image:
            # The size is known before decoding, so an image bomb is refused without unpacking it.
            if image.size != (width, height):
                raise DataError(
                    "the image has another size than the network takes",
                    where=str(path),
                    got=f"{image.size[0]}x{image.size[1]}",
                    expected=f"{width}x{height} (width x height)",
                    remedy="resize or crop the images as in training (nothing is resized silently), "
                    "or correct --input-shape",
                )
            if image.mode.startswith(_WIDE_MODES):
                raise DataError(
                    "the image has more than 8 bits a channel",
                    where=str(path),
                    got=f"mode {image.mode}",
                    expected="8 bits a channel",
                    remedy="convert it to 8 bits as in training",
                )
            pixels = np.asarray(image.convert(mode), np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            "the image cannot be read",
            where=str(path),
            got=str(error) or type(error).__name__,
            remedy="remove or replace the file",
        ) from error
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _label_names(path: Path, folders: list[str], class_names: Sequence[str] | None) -> tuple[str, ...]:
    """What each label is called: the network's names where the folders carry them, else the sorted folders."""
    if class_names is None:
        return tuple(folders)
    strangers = [name for name in folders if name not in class_names]
    if not strangers:
        return tuple(class_names)
    if len(strangers) == len(folders) == len(class_names):
        return tuple(folders)  # other names for the same classes, such as WordNet ids
    raise DataError(
        "class folders do not fit the network's classes",
        where=str(path),
        got=f"unknown folders {_some(strangers)}",
        expected=f"some of {_some(class_names)}",
        remedy="rename the folders to the class names of the checkpoint, or remove those that are no classes",
    )


def _some(names: Sequence[str] | dict[str, list[Path]]) -> str:
    shown = list(names)
    return ", ".join(shown[:8]) + (f" ... ({len(shown)} in all)" if len(shown) > 8 else "")
