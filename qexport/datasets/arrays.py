"""Images in numpy files."""

from __future__ import annotations

import enum
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qexport.errors import DataError


class Layout(enum.Enum):
    """Where the channels of an image array stand."""

    NCHW = "channels first"
    NHWC = "channels last"
    NHW = "no channel axis"

    @classmethod
    def of(cls, images: NDArray, input_shape: tuple[int, int, int], path: Path) -> Layout:
        """Layout of uint8 images [N, ...] for a network that takes (C, H, W).

        Raises:
            DataError: no images, not uint8, or no layout fits.
        """
        _require_pixels(images, path)
        c, h, w = input_shape
        if images.shape[1:] == (h, w, c):
            return cls.NHWC
        if images.shape[1:] == (c, h, w):
            return cls.NCHW
        if images.shape[1:] == (h, w) and c == 1:
            return cls.NHW
        raise DataError(
            "images have another size than the network takes",
            where=str(path),
            got=f"array of shape {images.shape}",
            expected=f"[N, {h}, {w}, {c}] or [N, {c}, {h}, {w}]",
            remedy="resize or crop the images as in training (nothing is resized silently), or correct --input-shape",
        )

    def to_nchw(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A contiguous copy as [n, C, H, W]."""
        if self is Layout.NHW:
            images = images[:, None]
        elif self is Layout.NHWC:
            images = images.transpose(0, 3, 1, 2)
        return np.array(images, np.uint8, order="C")


NAMES = ("images", "labels", "boxes", "offsets", "difficult")
"""Arrays an .npz may hold; others are left unread. The last three describe objects: see read_objects."""


def load_npz(path: Path) -> dict[str, NDArray]:
    """`images` of an .npz and whatever else it has of NAMES; pickled objects are refused.

    Raises:
        DataError: unreadable, or no `images` in it.
    """
    try:
        # np.load would take a plain .npy under this name and return an array instead of an archive.
        with zipfile.ZipFile(path):
            pass
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive.files:
                raise DataError(
                    "the file holds no images",
                    where=str(path),
                    got=f"arrays {sorted(archive.files)}",
                    expected="an array named images, optionally one named labels",
                    remedy="np.savez(path, images=images, labels=labels)",
                )
            return {name: archive[name] for name in NAMES if name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, "np.savez(path, images=images)", error) from error


def load_npy(path: Path) -> NDArray:
    """Images of an .npy, mapped rather than read, so that any size opens at once.

    Raises:
        DataError: unreadable.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, "np.save(path, images)", error) from error


def single_image(array: NDArray, input_shape: tuple[int, int, int], path: Path) -> NDArray[np.uint8]:
    """The one image of an array with or without a batch axis, uint8 [C, H, W].

    Raises:
        DataError: several images, wrong size, not uint8.
    """
    c, h, w = input_shape
    alone = {(h, w, c), (c, h, w)} | ({(h, w)} if c == 1 else set())
    images = array[None] if array.shape in alone else array
    layout = Layout.of(images, input_shape, path)
    if len(images) != 1:
        raise DataError(
            "the file holds several images",
            where=str(path),
            got=f"{len(images)} images",
            expected="one",
            remedy="save one of them: np.save(path, images[0])",
        )
    return layout.to_nchw(images)[0]


def _require_pixels(images: NDArray, path: Path) -> None:
    if images.ndim == 0 or len(images) == 0:
        raise DataError(
            "there are no images", where=str(path), got=f"array of shape {images.shape}", expected="1 or more"
        )
    if images.dtype == np.uint8:
        return
    got, remedy = str(images.dtype), "save the pixels as they were read, images.astype(np.uint8)"
    if images.dtype.kind == "f":
        got += ", with NaN" if np.isnan(images).any() else f", {float(images.min()):.4g} to {float(images.max()):.4g}"
        remedy = (
            "save the pixels before normalisation: np.rint(x * 255).astype(np.uint8) where x is 0..1; "
            "--mean and --std are folded into the network"
        )
    raise DataError("images must be uint8 pixels", where=str(path), got=got, expected="uint8, 0..255", remedy=remedy)


def _unreadable(path: Path, how: str, error: Exception) -> DataError:
    return DataError(
        "the file cannot be read",
        where=str(path),
        got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
        expected="plain numpy arrays, without pickled objects",
        remedy=f"write it with {how}",
    )
