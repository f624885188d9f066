"""The reader refuses whatever breaks a rule of section 7, and says which one and where."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import packed_files
import pytest
from packed_files import PackedFile, every_operator, patch, seal
from packed_networks import GOLDEN, products

from qexport.backends.packed import format as f
from qexport.backends.packed.reader import parse_packed, read_packed
from qexport.backends.packed.writer import to_packed
from qexport.errors import ArtifactError
from qexport.ir import Graph

FILE = every_operator()


def test_a_file_made_from_the_specification_alone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.qpk"
    path.write_bytes(FILE.to_bytes())
    model = read_packed(path)
    assert model.names == [f"t{t}" for t in range(len(FILE.tensors))]
    assert isinstance(model.to_graph(), Graph)
    assert model.metadata == {"qexport.format": "qpk"}
    assert not model.sections.data.flags.owndata and not model.sections.data.flags.writeable


def op(opcode: int) -> int:
    """The first operator of an opcode."""
    return next(k for k, record in enumerate(FILE.ops) if record["opcode"] == opcode)


def result(opcode: int) -> int:
    return FILE.inputs + op(opcode)


def constant(k: int, at: int, new: bytes) -> Callable[[PackedFile], None]:
    def change(p: PackedFile) -> None:
        p.constants[k] = p.constants[k][:at] + new + p.constants[k][at + len(new) :]

    return change


def field(k: int, name: str, value: object) -> Callable[[PackedFile], None]:
    return lambda p: p.ops[k].__setitem__(name, value)


def tensor(t: int, name: str, value: object) -> Callable[[PackedFile], None]:
    return lambda p: p.tensors[t].__setitem__(name, value)


def steps(low: list[int], high: list[int]) -> Callable[[PackedFile], None]:
    """Ranges in steps for the channels of the tensor `SCALED`."""

    def change(p: PackedFile) -> None:
        p.tensors[SCALED]["rank_flags"] = 3 | f.TENSOR_STEPS
        p.ranges[SCALED] = bytes([*low, *high])

    return change


def overwrite_slot(p: PackedFile) -> None:
    """The rescale joins the group before and takes the slot that the addition behind it reads."""
    p.ops[RESCALE]["flags"] |= f.JOINS
    p.tensors[SCALED]["storage_slot"] = 2 << 4


def header(name: str, value: int) -> Callable[[PackedFile], None]:
    return lambda p: p.header.__setitem__(name, value)


CONV, BORDER, STEPS, POOL = op(f.Opcode.CONV2D), op(f.Opcode.BORDER_BIAS), op(f.Opcode.THRESHOLD), op(f.Opcode.MAX_POOL)
RESCALE, ADD, CLIP, SUM, PAD = (
    op(code) for code in (f.Opcode.RESCALE, f.Opcode.ADD, f.Opcode.CLIP, f.Opcode.SUM_POOL, f.Opcode.PAD)
)
SLICE, CONCAT, TURN = op(f.Opcode.SLICE), op(f.Opcode.CONCAT), op(f.Opcode.TRANSPOSE)
TERNARY, TABLE = CONV + 4, STEPS + 3
CODES, SCALED, CLIPPED = result(f.Opcode.THRESHOLD), result(f.Opcode.RESCALE), result(f.Opcode.CLIP)

BROKEN: dict[str, tuple[Callable[[PackedFile], object], str]] = {
    # sections
    "unknown feature": (header("features", 8 + 7), "needs a feature"),
    "feature that does not occur": (header("features", 3), "declared features"),
    "too many tensors": (header("tensor_count", 9000), "counts are out of range"),
    "counts that do not add up": (header("input_count", 2), "every tensor is an input or a result"),
    "section moved": (header("ops_offset", 80), "a section is not in its place"),
    "metadata outside": (header("metadata_offset", 1 << 30), "metadata lies outside"),
    "odd arena": (header("arena_size", 24), "arena's size is invalid"),
    "minor arena": (header("arena_size", 16), "leaves the arena"),
    "no JSON": (lambda p: setattr(p, "metadata", b"{nothing"), "metadata is no JSON"),
    "broken zlib": (lambda p: setattr(p, "metadata", b"\x78\x9cnothing"), "metadata is no JSON"),
    "no strings": (lambda p: setattr(p, "metadata", b'{"a":1}'), "no object of strings"),
    # tensors
    "no rank": (tensor(CODES, "rank_flags", 0), "rank or extents"),
    "no extent": (tensor(CODES, "extent", (4, 0, 6)), "rank or extents"),
    "reserved bit": (tensor(CODES, "storage_slot", 0x41), "unknown flags"),
    "unknown storage": (tensor(CODES, "storage_slot", 4), "does not hold the range"),
    "storage too narrow": (tensor(result(f.Opcode.CLIP), "storage_slot", 1), "does not hold the range"),
    "odd place": (tensor(CODES, "arena_offset", 8), "place in the arena"),
    "virtual tensor with a place": (tensor(SCALED, "arena_offset", 0), "place in the arena"),
    "signed input": (tensor(0, "lo", -1), "does not hold the range"),
    "narrow input": (tensor(0, "hi", 254), "not any byte"),
    "channel beyond its tensor": (
        steps([2, 3, 0, 21], [20, 15, 6, 22]),
        "leave that of their",
    ),
    "channel upside down": (steps([2, 3, 7, 4], [20, 15, 6, 7]), "leave that of their"),
    # operators
    "unknown opcode": (field(CLIP, "opcode", 15), "unknown operator"),
    "unknown version": (field(CLIP, "version", 2), "unknown operator"),
    "unknown flag": (field(CLIP, "flags", 2), "unknown flags"),
    "unused field": (field(CLIP, "groups", 1), "does not use is not zero"),
    "no stride": (field(POOL, "stride", (0, 1)), "at least 1"),
    "superfluous input": (field(CLIP, "input", (0, 0)), "more inputs"),
    "input from the future": (field(CLIP, "input", (20, f.NONE16)), "no earlier one makes"),
    "groups": (field(CONV, "groups", 3), "groups do not divide"),
    "weight bits": (field(CONV, "parameter", 33), "unknown coding"),
    "shift": (field(RESCALE, "parameter", 63), "parameters of a rescale"),
    "clip upside down": (field(CLIP, "first", 701), "bounds of a clip"),
    "sum with dilation": (field(SUM, "dilation", (2, 1)), "no dilation"),
    "axes": (field(TURN, "parameter", 0 | 1 << 2 | 1 << 4), "does not fit its input"),
    "extents of the result": (field(POOL, "stride", (1, 2)), "other extents"),
    # constants
    "constants too short": (field(CONV, "window", (4, 3)), "too short"),
    "constants too long": (lambda p: p.constants.__setitem__(PAD, p.constants[PAD] + bytes(4)), "too long"),
    "no constants": (lambda p: p.constants.pop(PAD), "too short"),
    "code without a level": (constant(TERNARY, 12, b"\xff"), "no five ternary"),
    "codebook": (constant(TERNARY, 0, packed_files.i32(5)), "codebook ascends"),
    "border class": (constant(BORDER, 144, b"\x03"), "border class has no values"),
    "thresholds descend": (constant(STEPS, 0, packed_files.i32(30000)), "thresholds must ascend"),
    "sign bits": (constant(STEPS, 48, b"\x15"), "behind the last sign"),
    "addend": (constant(RESCALE, 0, np.array([1 << 62 | 1], "<i8").tobytes()), "parameters of a rescale"),
    "multiplier": (constant(RESCALE, 32, packed_files.i32(-(1 << 31))), "parameters of a rescale"),
    "slice leaves its tensor": (constant(SLICE, 0, packed_files.i32(3)), "leaves its tensor"),
    "slice stands still": (constant(SLICE, 12, packed_files.i32(0)), "steps by at least 1"),
    "factor": (constant(SUM, 0, packed_files.i32(0)), "one positive integer"),
    # ranges and accumulators
    "range not implied": (tensor(result(f.Opcode.ADD), "hi", 12), "does not follow"),
    "channel range not implied": (steps([2, 3, 0, 4], [10, 15, 6, 7]), "does not follow"),
    # groups, slots, lifetimes, arena
    "pool joins a group": (field(POOL, "flags", 1), "cannot join"),
    "other extents join": (field(CLIP + 3, "flags", 1), "cannot join|unknown flags"),
    "first operator joins": (field(0, "flags", 1), "cannot join"),
    "slot overwritten": (overwrite_slot, "a slot was overwritten"),
    "last use too early": (tensor(CODES, "last_use", POOL), "last use"),
    "last use too late": (tensor(result(f.Opcode.MAX_POOL), "last_use", 9), "last use"),
    "virtual output": (lambda p: p.outputs.append(SCALED), "returns a virtual tensor"),
    "output that does not exist": (lambda p: p.outputs.append(99), "does not exist"),
    "shared place": (tensor(CLIPPED, "arena_offset", FILE.tensors[CLIPPED - 1]["arena_offset"]), "same place"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rules_are_refused(name: str) -> None:
    change, message = BROKEN[name]
    with pytest.raises(ArtifactError, match=message) as error:
        parse_packed(FILE.changed(change))
    assert error.value.remedy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:40], "shorter than a header"),
        (lambda data: b"", "shorter than a header"),
        (lambda data: data[:-1], "does not fit the file"),
        (lambda data: data + b" ", "does not fit the file"),
        (lambda data: data.replace(b"\r\n", b"\n", 1), "no .qpk file"),
        (lambda data: patch(data, 8, "H", 2), "version of the packed format"),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "checksum differs"),
        (lambda data: seal(data[: len(data) // 2]), "does not fit the file"),
    ],
)
def test_damaged_files_are_refused(change: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        parse_packed(change(FILE.to_bytes()))


def test_padding_is_zero() -> None:
    """Behind the list of outputs, and behind constants."""
    data = FILE.to_bytes()
    head = np.frombuffer(data, f.HEADER, 1)[0]
    behind_outputs = int(head["outputs_offset"]) + 2 * len(FILE.outputs)
    behind_constants = int(head["metadata_offset"]) - 1
    for offset in (behind_outputs, behind_constants):
        with pytest.raises(ArtifactError, match="padding that is not zero"):
            parse_packed(patch(data, offset, "B", 1))


@pytest.mark.parametrize("name", GOLDEN)
def test_any_changed_byte_is_noticed(name: str) -> None:
    """The checksum finds it; without the checksum a file is refused or still reads as a network."""
    data = to_packed(GOLDEN[name](), metadata={})
    rng = np.random.default_rng(5)
    for at in rng.choice(len(data), 120, replace=False).tolist():
        changed = data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]
        with pytest.raises(ArtifactError):
            parse_packed(changed)
        with contextlib.suppress(ArtifactError):
            parse_packed(seal(changed)).to_graph()


def test_a_minor_version_is_read() -> None:
    parse_packed(patch(FILE.to_bytes(), 10, "H", 7))


def test_names_that_do_not_fit_are_replaced() -> None:
    for names in ('["a"]', "nothing", json.dumps(["x"] * len(FILE.tensors))):
        p = every_operator()
        p.metadata = json.dumps({"qexport.tensors": names}).encode()
        assert parse_packed(p.to_bytes()).names[:2] == ["t0", "t1"]


def test_a_missing_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_packed(tmp_path / "absent.qpk")
    (tmp_path / "empty.qpk").touch()
    with pytest.raises(ArtifactError, match="cannot be read\n  got:      an empty file"):
        read_packed(tmp_path / "empty.qpk")


def test_accumulators_are_proven_again() -> None:
    data = to_packed(GOLDEN["unequal-channels"](), metadata={})
    model = parse_packed(data)
    weights = int(model.sections.ops[model.names.index("exact") - 1]["constant_offset"])
    assert data[weights : weights + 3] == bytes([50, 0, 0])
    with pytest.raises(ArtifactError, match=r"exact: an operator is invalid\n.*could leave its 32-bit accumulator"):
        parse_packed(patch(data, weights, "B", 200))


def test_messages_name_the_layer() -> None:
    data = to_packed(products(), metadata={})
    model = parse_packed(data)
    t = model.names.index("pool")
    where = int(model.sections.header["tensors_offset"]) + t * f.TENSOR.itemsize + 20
    with pytest.raises(ArtifactError, match="pool: a claimed range does not follow from the inputs"):
        parse_packed(patch(data, where, "i", int(model.sections.tensors[t]["hi"]) - 1))
