"""Reading .qpk files: everything is checked before anything is used (docs/packed-format.md, section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed import format as f
from qexport.backends.packed.claims import BYTE
from qexport.backends.packed.decode import check_record, decode
from qexport.backends.packed.format import Feature, Opcode, Storage
from qexport.backends.packed.memory import Usage, check_memory
from qexport.backends.packed.ranges import contains, hull, result_range, stated
from qexport.backends.packed.sections import Blob, Sections, Walk, refused, split
from qexport.errors import AccumulatorError, ArtifactError, GraphError
from qexport.ir import Graph, TensorType, integer, verify
from qexport.ops import Op
from qexport.packed_metadata import read_metadata, tensor_names


@dataclass(frozen=True, eq=False)
class PackedModel:
    """A checked .qpk file.

    Attributes:
        sections: its records, views of the file.
        names: of the tensors, from the metadata, else t0, t1 ...
        claims: proven range of every tensor.
        ops: one op of the IR per operator record.
        reads: tensors each operator reads.
        metadata: as written.
    """

    sections: Sections
    names: list[str]
    claims: list[TensorType]
    ops: list[Op]
    reads: list[list[int]]
    metadata: dict[str, str]

    def to_graph(self) -> Graph:
        """An integer graph of equal semantics, its nodes in the order of the file.

        Raises:
            ArtifactError: a file that is valid but has sums the reference does not compute.
        """
        graph = Graph()
        for t in range(self.sections.inputs):
            graph.add_input(self.names[t], self.claims[t])
        try:
            for k, op in enumerate(self.ops):
                graph.add(self.names[self.sections.inputs + k], op, *(self.names[t] for t in self.reads[k]))
            graph.outputs = [self.names[t] for t in self.sections.outputs]
            verify(graph, require_integer=True)
        except (GraphError, AccumulatorError) as error:
            raise refused("the reference cannot compute this network", where=error.where, got=error.what) from error
        return graph


def read_packed(path: str | Path) -> PackedModel:
    """Map a file and check it completely.

    Raises:
        ArtifactError: it cannot be read, is damaged, or breaks a rule of the format.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
    except FileNotFoundError as error:
        raise ArtifactError(
            "no such file", where=str(path), remedy="qexport convert --format qpk writes model.qpk"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: an empty file
        got = error.strerror if isinstance(error, OSError) else "an empty file"
        raise ArtifactError("the file cannot be read", where=str(path), got=got) from error
    try:
        return parse_packed(data)
    except ArtifactError as error:
        where = str(path) if error.where is None else f"{path}: {error.where}"
        raise ArtifactError(
            error.what, where=where, got=error.got, expected=error.expected, remedy=error.remedy
        ) from error


def parse_packed(data: bytes | NDArray[np.uint8]) -> PackedModel:
    """The same for bytes in memory."""
    sections = split(np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.view(np.ndarray))
    metadata = read_metadata(sections.metadata.tobytes())
    reader = _Reader(sections, tensor_names(metadata, len(sections.tensors)))
    reader.read_tensors()
    for k in range(len(sections.ops)):
        reader.read_operator(k)
    reader.walk.finish()
    if int(sections.header["features"]) != reader.features:
        raise refused("the declared features are not those that occur", got=int(sections.header["features"]))
    check_memory(Usage(sections, reader.reads, reader.names))
    return PackedModel(sections, reader.names, reader.claims, reader.ops, reader.reads, metadata)


class _Reader:
    """The one pass over tensors and operators."""

    def __init__(self, sections: Sections, names: list[str]) -> None:
        self.sections, self.names = sections, names
        self.walk = Walk(sections)
        self.claims: list[TensorType] = []
        self.ops: list[Op] = []
        self.reads: list[list[int]] = []
        self.features = Feature(0)

    def read_tensors(self) -> None:
        """Records and ranges, in order."""
        channels = int(self.sections.tensors["extent"][:, 0].astype(np.int64).sum())
        if channels > f.MAX_EFFORT:
            raise refused("the tensors have too many channels", got=channels, expected=f.MAX_EFFORT)
        for t, record in enumerate(self.sections.tensors):
            _check_tensor(record, self.names[t])
            self.claims.append(self._claim(record, self.names[t]))
            if t < self.sections.inputs:
                _check_input(record, self.names[t])

    def _claim(self, record: np.void, name: str) -> TensorType:
        shape = tuple(record["extent"][: record["rank_flags"] & 3].tolist())
        lo, hi, channels = int(record["lo"]), int(record["hi"]), shape[0]
        flags, offset = record["rank_flags"] & (f.TENSOR_EXACT | f.TENSOR_STEPS), int(record["range_offset"])
        if flags == f.TENSOR_STEPS:
            low, high = self.walk.take(offset, 2 * channels, name).reshape(2, channels)
            claim, ordered = stated(shape, lo, hi, low, high), bool(np.all(low <= high))
        elif flags == f.TENSOR_EXACT:
            ends = self.walk.take(offset, 8 * channels, name).view("<i4").reshape(2, channels).astype(np.int64)
            claim, ordered = integer(shape, *ends), True
        else:
            self.walk.take(offset, 0, name)
            return integer(shape, lo, hi)
        if not ordered or np.any(claim.lo > claim.hi) or not contains(integer(shape, lo, hi), claim):
            raise refused("ranges of channels leave that of their tensor", where=name, expected=f"within [{lo}, {hi}]")
        return claim

    def read_operator(self, k: int) -> None:
        """One record, its constants, and the range of its result."""
        record, result = self.sections.ops[k], self.sections.inputs + k
        name = self.names[result]
        check_record(record, name)
        data = self.walk.take(int(record["constant_offset"]), int(record["constant_size"]), name)
        blob = Blob(data, name)
        if record["opcode"] == Opcode.CONCAT:
            tensors = blob.take("<u2", int(record["count"])).tolist()
        else:
            tensors = [t for t in record["input"].tolist() if t != f.NONE16]
        if not tensors or max(tensors) >= result or (record["opcode"] == Opcode.ADD and len(tensors) != 2):
            raise refused("an operator reads a tensor that no earlier one makes", where=name, got=tensors)
        inputs = [self.claims[t] for t in tensors]
        try:
            op = decode(record, blob, [claim.shape for claim in inputs], self.claims[result].shape)
            found = result_range(op, inputs)
        except (GraphError, AccumulatorError, OverflowError) as error:
            raise refused("an operator is invalid", where=name, got=str(error)) from error
        self._check_result(name, found, self.claims[result])
        self.features |= _features(record)
        self.ops.append(op)
        self.reads.append(tensors)

    def _check_result(self, name: str, found: TensorType, claim: TensorType) -> None:
        if found.shape != claim.shape:
            raise refused("a result has other extents than claimed", where=name, got=claim.shape, expected=found.shape)
        if not contains(claim, found):
            raise refused(
                "a claimed range does not follow from the inputs", where=name, got=claim, expected=hull(found)
            )


def _check_tensor(record: np.void, name: str) -> None:
    rank, extent = int(record["rank_flags"]) & 3, record["extent"].astype(np.int64)
    both = f.TENSOR_EXACT | f.TENSOR_STEPS
    if rank == 0 or extent.min() < 1 or np.any(extent[rank:] != 1) or np.prod(extent, dtype=object) > f.MAX_ELEMENTS:
        raise refused("rank or extents are invalid", where=name, got=(rank, extent.tolist()))
    if record["storage_slot"] & 0xC0 or record["rank_flags"] & 0x3C or record["rank_flags"] & both == both:
        raise refused("unknown flags of a tensor", where=name, got=record)
    storage, lo, hi = int(record["storage_slot"]) & 15, int(record["lo"]), int(record["hi"])
    if storage > Storage.I32 or lo > hi or (storage and Storage.holding(lo, hi) > storage):
        raise refused("the storage does not hold the range", where=name, got=f"storage {storage}", expected=(lo, hi))
    offset = int(record["arena_offset"])
    if offset % f.ALIGN if storage else offset != f.NONE32:
        raise refused("the place in the arena is invalid", where=name, got=offset)


def _check_input(record: np.void, name: str) -> None:
    whole = (int(record["lo"]), int(record["hi"])) == BYTE and not record["range_offset"]
    if record["storage_slot"] != Storage.U8 or not whole:
        raise refused("an input is not any byte", where=name, got=record, expected=BYTE)


def _features(record: np.void) -> Feature:
    opcode, flags = record["opcode"], record["flags"]
    if opcode == Opcode.CONV2D and flags & f.CONV_BASE3:
        return Feature.BASE3
    if opcode == Opcode.CONV2D and not record["count"] and record["parameter"] > 8:
        return Feature.WIDE
    return Feature.LEVEL_TABLE if opcode == Opcode.THRESHOLD and flags & f.LEVEL_TABLE else Feature(0)
