"""One view of every source of images: uint8 [n, C, H, W] slices, optional labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qexport.datasets.arrays import Layout, load_npy, load_npz, single_image
from qexport.datasets.folder import IMAGE_SUFFIXES, list_folder, load_image
from qexport.datasets.labels import check_shape
from qexport.datasets.objects import Objects, read_objects
from qexport.errors import DataError, OptionError

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one size, with labels where the source has them.

    Attributes:
        path: where the images come from.
        input_shape: (C, H, W) of every image.
        labels: int64 [N], or None.
        class_names: name of each label, or None where the source has none.
        objects: what there is to find in each image, where the source says so; there are no `labels` then.
    """

    path: Path
    input_shape: Shape
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    _size: int
    _read: Callable[[int, int], NDArray[np.uint8]]
    objects: tuple[Objects, ...] | None = None

    def __len__(self) -> int:
        return self._size

    def images(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Images start .. stop-1 as uint8 [n, C, H, W]; clipped to the data set. Folders are read here, not before.

        Raises:
            DataError: an image file is unreadable or has another size than the network takes.
        """
        start, stop, _ = slice(start, stop).indices(self._size)
        return self._read(start, max(start, stop))

    def batches(self, size: int = 64) -> Iterator[NDArray[np.uint8]]:
        """All images in order, uint8 [size, C, H, W] at a time; the last batch may be smaller."""
        for start in range(0, self._size, size):
            yield self.images(start, start + size)


def open_dataset(
    path: str | Path, input_shape: Shape, *, class_names: Sequence[str] | None = None, limit: int | None = None
) -> Dataset:
    """Open images for calibration or validation; nothing is resized or normalised.

    Sources:
        folder: one subfolder per class (files are searched below it), or images only and no labels. Labels follow
            `class_names` where the folders carry those names, else the sorted folder names. Files are decoded by
            Pillow; grey, palette and RGBA images become the network's channel count, as torchvision does it.
        .npz: `images`, and optionally `labels` (integers [N]), or objects: `boxes`, `labels` and `offsets`, see
            qexport.datasets.objects.read_objects.
        .npy: images.

    Arrays are uint8 [N, H, W, C] or [N, C, H, W] ([N, H, W] for one channel); `input_shape` decides, and where both
    fit (3x3x3) the channels are last.

    Args:
        path: folder or file.
        input_shape: (C, H, W) of the network.
        class_names: names of the network's classes, in order of its outputs.
        limit: use at most so many images: the first of an array, evenly spaced ones of a folder (sorted by class).

    Raises:
        DataError: missing path, unknown format, no images, wrong size or type, labels that do not fit.
        OptionError: `limit` below 1.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise OptionError("the number of images must be positive", where="--limit", got=limit, expected="1 or more")
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), remedy="check the path")
    if path.is_dir():
        return _open_folder(path, input_shape, class_names, limit)
    if path.suffix.lower() == ".npz":
        arrays = load_npz(path)
    elif path.suffix.lower() == ".npy":
        arrays = {"images": load_npy(path)}
    else:
        raise _unknown_format(path, "an image folder, .npz or .npy")
    images = arrays["images"]
    layout = Layout.of(images, input_shape, path)
    size = len(images) if limit is None else min(limit, len(images))
    labels = objects = None
    if "offsets" in arrays:
        objects = read_objects(arrays, len(images), input_shape[1:], str(path))[:size]
    elif "labels" in arrays:
        labels = check_shape(arrays["labels"], len(images), str(path))[:size]
    names = tuple(class_names) if class_names is not None else None

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        return layout.to_nchw(images[start:stop])

    return Dataset(path, input_shape, labels, names, size, read, objects)


def read_image(path: str | Path, input_shape: Shape) -> NDArray[np.uint8]:
    """One image, uint8 [C, H, W], from an image file, or from an .npz (`images`) or .npy that holds just one.

    Raises:
        DataError: missing, unreadable, of the wrong size or type, or more than one image.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file", where=str(path), remedy="give one image, .npz or .npy file")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return load_image(path, input_shape)
    if suffix not in (".npz", ".npy"):
        raise _unknown_format(path, f".npz, .npy or an image ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return single_image(load_npz(path)["images"] if suffix == ".npz" else load_npy(path), input_shape, path)


def _open_folder(path: Path, input_shape: Shape, class_names: Sequence[str] | None, limit: int | None) -> Dataset:
    folder = list_folder(path, class_names)
    n_files = len(folder.files)
    size = n_files if limit is None else min(limit, n_files)
    chosen = [i * n_files // size for i in range(size)]
    labels = None if folder.labels is None else folder.labels[chosen]

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        images = [load_image(folder.files[i], input_shape) for i in chosen[start:stop]]
        return np.stack(images) if images else np.empty((0, *input_shape), np.uint8)

    return Dataset(path, input_shape, labels, folder.class_names, size, read)


def _unknown_format(path: Path, expected: str) -> DataError:
    return DataError(
        "not a format images are read from",
        where=str(path),
        got=path.suffix or "no file suffix",
        expected=expected,
        remedy="save the images with numpy: np.savez(path, images=images)",
    )
