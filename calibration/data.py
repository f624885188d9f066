"""Calibration images from whatever the caller has: files, arrays, tensors, loaders, readers. No labels are needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qexport.datasets import Dataset, open_dataset
from qexport.datasets.arrays import Layout
from qexport.errors import DataError, OptionError
from qexport.ir import Graph
from qexport.ops import Affine

Pixels = NDArray[np.uint8]

WHOLE = 0.05
"""How far a float may lie from a whole pixel value when its normalisation is undone; float32 leaves 1e-4."""


PORTION = 64
"""Images of an array that are converted at a time."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images for one network.

    Attributes:
        total: how many there are, or None where only reading tells.
        replayable: whether they can be read more than once.
    """

    total: int | None
    replayable: bool
    _open: Callable[[], Iterator[Pixels]]

    def __iter__(self) -> Iterator[Pixels]:
        """Every image as uint8 [1, C, H, W]; raises DataError where one does not fit the network."""
        for batch in self._open():
            for i in range(len(batch)):
                yield batch[i : i + 1]


def open_images(data: Any, graph: Graph, *, limit: int | None = None) -> Images:
    """Look at `data` as images for a captured network.

    Args:
        data: path of an image folder, npz or npy; a Dataset; an array or tensor [N, C, H, W] or [N, H, W, C]; an
            iterable of such batches or of single images, each alone, in a tuple before its label, or in a dict by the
            network's input (a torch DataLoader, a list); or a reader with get_next(), as ONNX Runtime's
            CalibrationDataReader. Pixels are uint8, other integers 0..255, or floats 0..255, 0..1 or normalised with
            the network's mean and std, which is undone.
        graph: captured real graph; its input gives the shape, its first affine the normalisation.
        limit: use at most so many images: evenly spaced ones of a folder, else the first.

    Raises:
        DataError: `data` is nothing of this kind, or a file that does not fit.
        OptionError: `limit` below 1.
    """
    if limit is not None and limit < 1:
        raise OptionError("the number of images must be positive", where="--limit", got=limit, expected="1 or more")
    (shape,) = (tensor_type.shape for tensor_type in graph.inputs.values())
    if isinstance(data, str | Path):
        data = open_dataset(data, cast(Any, shape), limit=limit)
    reader = _Reader(graph)
    if isinstance(data, Dataset):
        return Images(_at_most(len(data), limit), True, lambda: _first(map(reader.batch, data.batches()), limit))
    if hasattr(data, "get_next"):
        return Images(None, hasattr(data, "rewind"), lambda: _first(map(reader.batch, _drain(data)), limit))
    if _is_array(data):
        total = len(data) if data.ndim > len(shape) else None
        return Images(_at_most(total, limit), True, lambda: _first(map(reader.batch, reader.portions(data)), limit))
    if not isinstance(data, Iterable) or isinstance(data, Mapping | bytes):
        raise DataError(
            "this is no source of calibration images",
            got=type(data).__name__,
            expected="a path, an array or tensor, an iterable of them, a DataLoader or a CalibrationDataReader",
        )
    return Images(
        _at_most(_length(data), limit), iter(data) is not data, lambda: _first(map(reader.batch, data), limit)
    )


def _length(data: Iterable[Any]) -> int | None:
    """Images of a loader that says so; a list of batches or of images does not tell which of them it is."""
    dataset = getattr(data, "dataset", None)
    return len(dataset) if dataset is not None and hasattr(dataset, "__len__") else None


def _at_most(total: int | None, limit: int | None) -> int | None:
    return total if total is None or limit is None else min(total, limit)


def _drain(reader: Any) -> Iterator[Any]:
    """Everything a CalibrationDataReader has, from its beginning where it can return there."""
    if hasattr(reader, "rewind"):
        reader.rewind()
    return iter(reader.get_next, None)


def _first(batches: Iterator[Pixels], limit: int | None) -> Iterator[Pixels]:
    left = limit
    for batch in batches:
        yield batch if left is None else batch[:left]
        if left is not None:
            left -= len(batch)
            if left <= 0:
                return


def _is_array(item: Any) -> bool:
    return hasattr(item, "__array__") and hasattr(item, "ndim")


class _Reader:
    """Turns items of a source into uint8 [n, C, H, W] for one network."""

    def __init__(self, graph: Graph) -> None:
        ((self._input, tensor_type),) = graph.inputs.items()
        self._shape = tensor_type.shape
        c, *size = self._shape
        self._alone = {self._shape, (*size, c)} | ({tuple(size)} if c == 1 else set())
        self._count = itertools.count()
        first = next((n.op for n in graph.nodes if n.inputs == (self._input,) and isinstance(n.op, Affine)), None)
        self._normalization = first.floats() if first is not None else None

    def portions(self, array: Any) -> Iterator[Any]:
        """A large array a few images at a time: what is no uint8 is copied to be converted."""
        if array.ndim == 0 or tuple(array.shape) in self._alone:
            yield array
            return
        for start in range(0, len(array), PORTION):
            yield array[start : start + PORTION]

    def batch(self, item: Any) -> Pixels:
        where = f"calibration batch {next(self._count)}"
        array = _as_array(self._unpacked(item, where), where)
        return self._channels_first(self._as_pixels(array, where), where)

    def _unpacked(self, item: Any, where: str) -> Any:
        """The images of (images, labels) or of {input: images}."""
        if isinstance(item, Mapping):
            if self._input in item:
                return item[self._input]
            if len(item) == 1:
                return next(iter(item.values()))
            raise DataError(
                "it is unclear which entry holds the images",
                where=where,
                got=f"entries {', '.join(map(str, item))}",
                expected=f"one entry, or one named {self._input}",
            )
        if isinstance(item, tuple | list) and item and _is_array(item[0]):
            return item[0]
        return item

    def _channels_first(self, pixels: Pixels, where: str) -> Pixels:
        if pixels.shape in self._alone:
            pixels = pixels[None]
        if pixels.shape[1:] == self._shape:
            return pixels
        if len(self._shape) != 3 or pixels.ndim == 0:
            raise DataError(
                "the input does not fit the network",
                where=where,
                got=f"shape {pixels.shape}",
                expected=f"{('N', *self._shape)}",
                remedy="give it as in training, before normalisation",
            )
        self._refuse_grey(pixels, where)
        return Layout.of(pixels, cast(Any, self._shape), Path(where)).to_nchw(pixels)

    def _refuse_grey(self, pixels: Pixels, where: str) -> None:
        c, *size = self._shape
        grey = [tuple(size), (1, *size), (*size, 1)]
        if c != 1 and (pixels.shape in grey or pixels.shape[1:] in grey):
            raise DataError(
                "the images are grey, the network takes colours",
                where=where,
                got=f"shape {pixels.shape}",
                expected=f"{c} channels",
                remedy="convert them as in training, for example by repeating the channel",
            )

    def _as_pixels(self, array: NDArray, where: str) -> Pixels:
        """uint8 pixels of integers, or of floats whose scale is recognised because all come out whole."""
        if array.dtype == np.uint8 or not array.size:
            return array.astype(np.uint8, copy=False)
        values = array.astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(
                "the images hold numbers that are not finite",
                where=where,
                got=f"{int((~np.isfinite(values)).sum())} of {values.size}, such as {values[~np.isfinite(values)][0]}",
                expected="pixels",
                remedy="leave out the damaged images",
            )
        for pixels in self._scales(values, array.dtype.kind == "f"):
            whole = np.rint(pixels)
            if whole.min() >= 0 and whole.max() <= 255 and np.abs(pixels - whole).max() <= WHOLE:
                return whole.astype(np.uint8)
        raise DataError(
            "the images are no pixels, and undoing the network's normalisation does not make them pixels",
            where=where,
            got=f"{array.dtype}, {float(values.min()):.4g} to {float(values.max()):.4g}",
            expected="uint8; or floats that are whole after x * 255, or after (x * std + mean) * 255",
            remedy="give the pixels before normalisation, and the --mean and --std of the training",
        )

    def _scales(self, values: NDArray[np.float64], is_float: bool) -> Iterator[NDArray[np.float64]]:
        """`values` as pixels by each convention that may be meant. Floats up to 1 mean 0..1, not black pixels."""
        if not is_float or values.max() > 1:
            yield values
        if not is_float:
            return
        yield values * 255
        axes = [axis for axis in range(values.ndim) if values.shape[axis] == self._shape[0]]
        if self._normalization is None or not axes:
            return
        gain, bias = self._normalization
        # Channels stand at the front of [C, H, W] and second in [N, C, H, W], or last.
        for axis in sorted({values.ndim - len(self._shape), values.ndim - 1} & set(axes)):
            column = (-1, *(1,) * (values.ndim - 1 - axis))
            yield (values - bias.reshape(column)) / gain.reshape(column)


def _as_array(item: Any, where: str) -> NDArray:
    if hasattr(item, "detach"):  # a torch tensor, wherever it lives
        item = item.detach().cpu().numpy()
    if not hasattr(item, "__array__") and not hasattr(item, "__array_interface__"):  # the latter: Pillow
        raise DataError(
            "this is no image",
            where=where,
            got=type(item).__name__,
            expected="an array or tensor",
            remedy="give batches [N, C, H, W], single images, or a path",
        )
    array = np.asarray(item)
    if array.dtype.kind not in "uif":
        raise DataError("this is no image", where=where, got=f"an array of {array.dtype}", expected="uint8 or float")
    return array
