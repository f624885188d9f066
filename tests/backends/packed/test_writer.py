"""The writer: equal inputs give equal bytes, metadata comes last, and what has no form in the format is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from packed_networks import GOLDEN, codes, fixed, pixels, products

from qexport.backends.packed import encode
from qexport.backends.packed.file import weight_bytes, write_packed
from qexport.backends.packed.format import HEADER, HEADER_SIZE
from qexport.backends.packed.reader import parse_packed, read_packed
from qexport.backends.packed.writer import to_packed
from qexport.errors import ArtifactError, GraphError, OutputError
from qexport.ir import Graph, integer, real
from qexport.ops import REGISTRY, Add, BorderBias, Clip, Conv2d, Rescale, Threshold, Weight


@pytest.mark.parametrize("name", GOLDEN)
def test_equal_inputs_give_equal_bytes(name: str) -> None:
    files = {to_packed(GOLDEN[name](), metadata={"b": "2", "a": "1"}) for _ in range(3)}
    files.add(to_packed(GOLDEN[name](), metadata={"a": "1", "b": "2"}))
    assert len(files) == 1


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_read_is_written_again(name: str) -> None:
    data = to_packed(GOLDEN[name](), metadata={"a": "1"})
    model = parse_packed(data)
    assert to_packed(model.to_graph(), metadata=model.metadata) == data


def test_metadata() -> None:
    plain = to_packed(products(), metadata={"class": "naïve"}, compress=False)
    packed = to_packed(products(), metadata={"class": "naïve"})
    header = np.frombuffer(plain, HEADER, 1)[0]
    text = plain[int(header["metadata_offset"]) :]
    assert zlib.decompress(packed[int(header["metadata_offset"]) :]) == text
    found = json.loads(text.decode())
    assert list(found) == sorted(found) == ["class", "qexport.format", "qexport.tensors"]
    assert found["class"] == "naïve" and found["qexport.format"] == "qpk"
    assert len(packed) < len(plain)
    names = json.loads(found["qexport.tensors"])
    assert set(names) == set(products().types) and names[0] == "image"
    assert parse_packed(packed).metadata == parse_packed(plain).metadata == found


def test_every_integer_op_has_a_form() -> None:
    integers = {kind for kind, op in REGISTRY.items() if op.domain != "real"}
    assert integers - set(encode._ENCODERS) == set()


def test_header_counts() -> None:
    data = to_packed(products(), metadata={})
    header = np.frombuffer(data, HEADER, 1)[0]
    assert header["file_size"] == len(data) and header["tensors_offset"] == HEADER_SIZE
    assert (header["input_count"], header["output_count"]) == (1, 2)
    assert header["tensor_count"] == header["op_count"] + 1 == len(products().types)
    assert header["arena_size"] % 16 == 0


def test_parameters_equal_in_all_channels_are_stored_once() -> None:
    def size(thresholds: np.ndarray) -> int:
        g = pixels(40, 1, 1)
        g.add("code", Threshold(thresholds, np.ones(len(thresholds), np.int8), np.arange(4, dtype=np.int32)), "image")
        g.outputs = ["code"]
        return int(parse_packed(to_packed(g, metadata={})).sections.ops[0]["constant_size"])

    same = np.tile([[10, 20, 30]], (40, 1))
    assert size(same) == size(same[:1]) == 12
    same[7, 1] += 1
    assert size(same) == 480


def _one(op: object, shape: tuple[int, ...] = (1, 1, 1), lo: int = 0, hi: int = 255) -> Graph:
    g = Graph()
    g.add_input("image", integer(shape, lo, hi))
    g.add("node", op, "image")  # type: ignore[arg-type]
    g.outputs = ["node"]
    return g


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: _one(Clip(0, 1), lo=-1), "image: inputs of the packed format are bytes"),
        (lambda: _one(Clip(0, 1), hi=256), "image: inputs of the packed format are bytes"),
        (lambda: _one(Clip(0, 1), (1, 1, 1, 2)), "image: the packed format has tensors of 1 to 3 axes"),
        (lambda: _one(Conv2d(Weight(np.ones((1, 1, 1, 1), np.int32)), stride=(70000, 1))), "node: a parameter is too"),
        (lambda: _one(BorderBias(np.zeros((1, 1, 300), int), np.zeros(1, int), np.zeros(1, int))), "of more than 256"),
        (lambda: _one(BorderBias(np.full((1, 1, 1), -(1 << 31)), np.zeros(1, int), np.zeros(1, int))), None),
    ],
)
def test_what_has_no_form_is_refused(graph, message: str | None) -> None:  # type: ignore[no-untyped-def]
    if message is None:  # the smallest i32 still has one
        parse_packed(to_packed(graph(), metadata={}))
        return
    with pytest.raises(GraphError, match=message):
        to_packed(graph(), metadata={})


def test_an_addend_beyond_the_limit_is_refused() -> None:
    g = _one(fixed([1], [-(1 << 31) + 1], 0))
    g.add("next", Rescale(np.array([(1 << 31) - 1]), np.array([(1 << 62) + 5]), 40), "node")
    g.outputs = ["next"]
    with pytest.raises(GraphError, match="addend beyond"):
        to_packed(g, metadata={})


def test_real_and_unfinished_graphs_are_refused() -> None:
    g = Graph()
    g.add_input("image", real((1,), 0, 1))
    g.add("sum", Add(), "image", "image")
    g.outputs = ["sum"]
    with pytest.raises(GraphError):
        to_packed(g, metadata={})
    empty = pixels(1)
    empty.outputs = ["image"]
    with pytest.raises(GraphError, match="2 to 8191 tensors"):
        to_packed(empty, metadata={})


def test_an_unknown_op_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(encode._ENCODERS, "threshold")
    with pytest.raises(GraphError, match="code: the packed format has no threshold"):
        to_packed(_named("code"), metadata={})


def _named(name: str) -> Graph:
    g = pixels(1)
    g.add(name, codes(3), "image")
    g.outputs = [name]
    return g


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    data = to_packed(products(), metadata={})
    target = tmp_path / "model.qpk"
    model = write_packed(data, target)
    assert target.read_bytes() == data and read_packed(target).names == model.names
    with pytest.raises(ArtifactError):
        write_packed(data[:-1], target)
    with pytest.raises(OutputError):
        write_packed(data, tmp_path / "absent" / "model.qpk")
    assert [p.name for p in tmp_path.iterdir()] == ["model.qpk"] and target.read_bytes() == data


def test_weight_bytes() -> None:
    found = weight_bytes(parse_packed(to_packed(products(), metadata={})))
    assert found["ternary"] == 12 + 6 * -(-36 // 5) and found["grouped"] == 8 + 6 * 1
    assert set(found) == {node.name for node in products().find(Conv2d)}
