"""The sections of a .qpk file: identity, records, constants in their order (docs/packed-format.md, sections 1 to 3)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qexport.backends.packed import format as f
from qexport.errors import ArtifactError

REMEDY = "copy the file again in binary mode, or convert the checkpoint again"


def refused(what: str, *, where: str | None = None, got: object = None, expected: object = None) -> ArtifactError:
    """The error of every broken rule of the format."""
    return ArtifactError(what, where=where, got=got, expected=expected, remedy=REMEDY)


@dataclass(frozen=True, eq=False)
class Sections:
    """The records of a file, not yet checked against each other.

    Attributes:
        data: the whole file, uint8.
        header: `format.HEADER` record.
        tensors, ops: arrays of `format.TENSOR` and `format.OPERATOR`.
        outputs: uint16, tensors the network returns.
    """

    data: NDArray[np.uint8]
    header: np.void
    tensors: NDArray[np.void]
    ops: NDArray[np.void]
    outputs: NDArray[np.uint16]

    @property
    def inputs(self) -> int:
        return int(self.header["input_count"])

    @property
    def metadata(self) -> NDArray[np.uint8]:
        return self.data[int(self.header["metadata_offset"]) :]


def split(data: NDArray[np.uint8]) -> Sections:
    """Check the header and find the records.

    Raises:
        ArtifactError: not an undamaged .qpk file of this version, or its sections are not where they must be.
    """
    header = _identify(data)
    if header["features"] & ~np.uint32(f.ALL_FEATURES):
        raise refused("the file needs a feature this version does not have", got=bin(int(header["features"])))
    counts = {name: int(header[name]) for name in ("tensor_count", "op_count", "input_count", "output_count")}
    if not 2 <= counts["tensor_count"] <= f.MAX_TENSORS or min(counts.values()) < 1:
        raise refused("the header's counts are out of range", got=counts)
    if counts["tensor_count"] != counts["input_count"] + counts["op_count"]:
        raise refused("every tensor is an input or a result", got=counts)
    if header["arena_size"] % f.ALIGN or header["arena_size"] > f.MAX_FILE_SIZE:
        raise refused("the arena's size is invalid", got=int(header["arena_size"]))
    offset, found = f.HEADER_SIZE, []
    parts = (("tensors", f.TENSOR, "tensor_count"), ("ops", f.OPERATOR, "op_count"), ("outputs", "<u2", "output_count"))
    for name, dtype, count in parts:
        expect_offset(header, name, offset)
        end = offset + np.dtype(dtype).itemsize * counts[count]
        if f.aligned(end) > len(data):
            raise refused("the file ends within its records", where=name, got=len(data), expected=f.aligned(end))
        found.append(data[offset:end].view(dtype))
        require_zeros(data[end : f.aligned(end)], name)
        offset = f.aligned(end)
    expect_offset(header, "constants", offset)
    if not offset <= header["metadata_offset"] < len(data):
        raise refused("the metadata lies outside the file", got=int(header["metadata_offset"]), expected=len(data))
    return Sections(data, header, *found)


def _identify(data: NDArray[np.uint8]) -> np.void:
    if len(data) < f.HEADER_SIZE:
        raise refused("the file is shorter than a header", got=len(data), expected=f.HEADER_SIZE)
    header = data[: f.HEADER_SIZE].view(f.HEADER)[0]
    if header["magic"] != f.MAGIC:
        raise refused("this is no .qpk file", got=data[:8].tobytes(), expected=f.MAGIC)
    if header["major"] != f.MAJOR:
        raise refused("a version of the packed format that is not read", got=int(header["major"]), expected=f.MAJOR)
    for name, expected in (("header_size", f.HEADER_SIZE), ("file_size", len(data))):
        if header[name] != expected:
            raise refused("the header does not fit the file", where=name, got=int(header[name]), expected=expected)
    view = memoryview(data)  # type: ignore[arg-type]
    crc = zlib.crc32(view[f.CRC_OFFSET + 4 :], zlib.crc32(bytes(4), zlib.crc32(view[: f.CRC_OFFSET])))
    if header["crc"] != crc:
        raise refused("the file is damaged: its checksum differs", got=hex(header["crc"]), expected=hex(crc))
    return header


def expect_offset(record: np.void, name: str, expected: int) -> None:
    """Refuse an offset that is not the one place there is."""
    if record[f"{name}_offset"] != expected:
        raise refused("a section is not in its place", where=name, got=int(record[f"{name}_offset"]), expected=expected)


def require_zeros(padding: NDArray[np.uint8], where: str) -> None:
    if padding.any():
        raise refused("padding that is not zero", where=where, got=padding.tobytes())


class Walk:
    """Goes through the constants once, in their order."""

    def __init__(self, sections: Sections) -> None:
        self._data = sections.data
        self._at = int(sections.header["constants_offset"])
        self._end = int(sections.header["metadata_offset"])

    def take(self, offset: int, size: int, where: str) -> NDArray[np.uint8]:
        """The next constant, which must be at `offset` (0 where its size is 0)."""
        if offset != (self._at if size else 0):
            raise refused("a constant is not in its place", where=where, got=offset, expected=self._at if size else 0)
        end = self._at + size
        if f.aligned(end) > self._end and size:
            raise refused("a constant leaves its section", where=where, got=end, expected=self._end)
        part = self._data[self._at : end]
        if size:
            require_zeros(self._data[end : f.aligned(end)], where)
            self._at = f.aligned(end)
        return part

    def finish(self) -> None:
        """Nothing lies between the last constant and the metadata."""
        if self._at != self._end:
            raise refused("the metadata does not follow the constants", got=self._end, expected=self._at)


class Blob:
    """The constants of one operator, read from front to end."""

    def __init__(self, data: NDArray[np.uint8], where: str) -> None:
        self._data, self._at, self.where = data, 0, where

    def take(self, dtype: DTypeLike, *shape: int) -> NDArray[Any]:
        """The next array, row-major; raises ArtifactError where the constants end before."""
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if size > len(self._data) - self._at:
            raise refused("constants are too short", where=self.where, got=len(self._data), expected=self._at + size)
        part = self._data[self._at : self._at + size]
        self._at += size
        return part.view(dtype).reshape(shape)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise refused("constants are too long", where=self.where, got=len(self._data), expected=self._at)
