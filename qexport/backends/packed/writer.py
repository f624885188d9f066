"""An integer graph as the bytes of a .qpk file (docs/packed-format.md)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed import format as f
from qexport.backends.packed.claims import BYTE, Claims, Detail, claim_ranges
from qexport.backends.packed.encode import Encoded, encode
from qexport.backends.packed.groups import Network, Schedule, arrange
from qexport.backends.packed.lifetimes import blocks_of
from qexport.backends.packed.plan import Plan, plan_arena
from qexport.backends.packed.ranges import range_steps
from qexport.backends.packed.schedule import find_schedule
from qexport.errors import GraphError
from qexport.ir import Graph, verify
from qexport.packed_metadata import TENSORS_KEY

FORMAT_KEY = "qexport.format"

RANGE_FLAGS = {Detail.WHOLE: 0, Detail.STEPS: f.TENSOR_STEPS, Detail.EXACT: f.TENSOR_EXACT}


@dataclass(frozen=True)
class Layout:
    """What is decided before anything is written.

    Attributes:
        graph: nodes in the order of the file.
        net, schedule: the same with operators numbered as in the file.
        claims: ranges.
        plan: arena.
        encoded: one per node.
    """

    graph: Graph
    net: Network
    schedule: Schedule
    claims: Claims
    plan: Plan
    encoded: list[Encoded]


def to_packed(graph: Graph, *, metadata: Mapping[str, str], compress: bool = True) -> bytes:
    """Write an integer graph as a .qpk file that computes the same integers.

    Args:
        graph: verified integer graph whose inputs are bytes.
        metadata: strings; the keys of this module are added.
        compress: zlib for the metadata where that makes it smaller.

    Returns:
        the file; equal inputs give equal bytes (with one version of zlib).

    Raises:
        GraphError: the graph is not a valid integer graph, or has what the format has not.
        AccumulatorError: an accumulator cannot be proven to stay in 32 bits by the rules of the format.
    """
    layout = lay_out(graph)
    names = [*layout.graph.inputs, *(node.name for node in layout.graph.nodes)]
    props = {**metadata, FORMAT_KEY: "qpk", TENSORS_KEY: json.dumps(names, separators=(",", ":"))}
    text = json.dumps(props, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    packed = zlib.compress(text, 9) if compress else text
    return _assemble(layout, packed if len(packed) < len(text) else text)


def lay_out(graph: Graph) -> Layout:
    """Order, groups, ranges and places of a graph; raises as `to_packed` does."""
    verify(graph, require_integer=True)
    _check_graph(graph)
    encoded = {node.name: encode(node) for node in graph.nodes}
    found = find_schedule(Network(graph))
    nodes = [graph.nodes[op] for op in found.order]
    ordered = Graph(dict(graph.inputs), nodes, list(graph.outputs), dict(graph.types))
    net = Network(ordered)
    schedule = arrange(net, range(net.ops), frozenset(found.position[op] for op in found.breaks))
    stored = frozenset(name for name, is_stored in zip(net.names, schedule.stored, strict=True) if is_stored)
    claims = claim_ranges(ordered, stored)
    plan = plan_arena(blocks_of(net, schedule), schedule.groups)
    return Layout(ordered, net, schedule, claims, plan, [encoded[node.name] for node in nodes])


def _check_graph(graph: Graph) -> None:
    """Refuse what no record can state."""
    if not graph.nodes or len(graph.types) > f.MAX_TENSORS:
        raise GraphError("the packed format holds 2 to 8191 tensors", got=len(graph.types))
    for name, tensor_type in graph.types.items():
        if len(tensor_type.shape) > 3:
            raise GraphError("the packed format has tensors of 1 to 3 axes", where=name, got=tensor_type.shape)
        if name in graph.inputs and (tensor_type.lo.min() < BYTE[0] or tensor_type.hi.max() > BYTE[1]):
            raise GraphError("inputs of the packed format are bytes", where=name, got=str(tensor_type))


def _assemble(layout: Layout, metadata: bytes) -> bytes:
    net, graph = layout.net, layout.graph
    tensors, ops = np.zeros(len(net.names), f.TENSOR), np.zeros(net.ops, f.OPERATOR)
    outputs = np.array([net.names.index(name) for name in graph.outputs], "<u2")
    tensors_offset = f.HEADER_SIZE
    ops_offset = f.aligned(tensors_offset + tensors.nbytes)
    outputs_offset = f.aligned(ops_offset + ops.nbytes)
    constants = Constants(f.aligned(outputs_offset + outputs.nbytes))
    for t in range(len(tensors)):
        tensors[t] = _tensor_record(layout, t, constants)
    for op in range(len(ops)):
        _fill_operator(ops[op], layout, op, constants)
    header = np.zeros((), f.HEADER)
    for name, value in {
        "magic": f.MAGIC,
        "major": f.MAJOR,
        "minor": f.MINOR,
        "header_size": f.HEADER_SIZE,
        "file_size": constants.end + len(metadata),
        "features": int(np.bitwise_or.reduce([int(e.features) for e in layout.encoded])),
        "tensor_count": len(tensors),
        "op_count": len(ops),
        "input_count": net.inputs,
        "output_count": len(outputs),
        "tensors_offset": tensors_offset,
        "ops_offset": ops_offset,
        "outputs_offset": outputs_offset,
        "constants_offset": constants.start,
        "metadata_offset": constants.end,
        "arena_size": layout.plan.size,
    }.items():
        header[name] = value
    records = b"".join(_padded(part.tobytes()) for part in (header, tensors, ops, outputs))
    return _sealed(records + bytes(constants.data) + metadata)


class Constants:
    """The section of constants as it grows; every part starts at a multiple of the alignment."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def append(self, part: bytes) -> int:
        """Offset of the part in the file; 0 where it is empty."""
        offset = self.end
        self.data += _padded(part)
        return offset if part else 0


def _tensor_record(layout: Layout, t: int, constants: Constants) -> NDArray[np.void]:
    net, schedule, name = layout.net, layout.schedule, layout.net.names[t]
    shape, claim = net.shapes[t], layout.claims.ranges[name]
    lo, hi = int(claim.lo.min()), int(claim.hi.max())
    detail = layout.claims.details.get(name, Detail.WHOLE)
    storage = f.Storage.holding(lo, hi) if schedule.stored[t] else f.Storage.VIRTUAL
    slot = 0 if t < net.inputs else schedule.slot[t - net.inputs]
    record = np.zeros((), f.TENSOR)
    record["storage_slot"] = storage | slot << 4
    record["rank_flags"] = len(shape) | RANGE_FLAGS[detail]
    record["last_use"] = net.ops if t in net.outputs else max(net.readers[t], default=max(0, t - net.inputs))
    record["extent"] = (*shape, 1, 1)[:3]
    record["lo"], record["hi"] = lo, hi
    record["arena_offset"] = layout.plan.offsets.get(t, f.NONE32)
    if detail == Detail.STEPS:
        record["range_offset"] = constants.append(np.stack(range_steps(claim)).astype("u1").tobytes())
    elif detail == Detail.EXACT:
        record["range_offset"] = constants.append(np.stack([claim.lo, claim.hi]).astype("<i4").tobytes())
    return record


def _fill_operator(record: Any, layout: Layout, op: int, constants: Constants) -> None:
    encoded, schedule = layout.encoded[op], layout.schedule
    data, reads = encoded.constants, layout.net.reads[op]
    inputs = [*reads, f.NONE16][:2]
    if encoded.listed:
        data, inputs = np.array(reads, "<u2").tobytes() + data, [f.NONE16] * 2
    for name, value in encoded.fields.items():
        record[name] = value
    joins = op > 0 and schedule.group[op] == schedule.group[op - 1]
    record["opcode"], record["version"] = encoded.opcode, f.OPCODE_VERSION
    record["flags"] |= f.JOINS if joins else 0
    record["input"] = inputs
    record["constant_offset"], record["constant_size"] = constants.append(data), len(data)


def _padded(part: bytes) -> bytes:
    return part + bytes(f.aligned(len(part)) - len(part))


def _sealed(data: bytes) -> bytes:
    """The file with its checksum, which counts as zero while it is computed.

    Raises:
        GraphError: the file is too large for the format.
    """
    if len(data) > f.MAX_FILE_SIZE:
        raise GraphError("the network is too large for the packed format", got=len(data), expected=f.MAX_FILE_SIZE)
    crc = zlib.crc32(data).to_bytes(4, "little")
    return data[: f.CRC_OFFSET] + crc + data[f.CRC_OFFSET + 4 :]
