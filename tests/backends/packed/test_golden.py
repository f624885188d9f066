"""Files that must not change: the bytes of small networks with every operator, coding, storage and kind of range.

After a change of the format that is meant: PYTHONPATH=tests python tests/backends/packed/test_golden.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from packed_emulator import Emulator
from packed_networks import GOLDEN

from qexport.backends.packed.format import Opcode, Storage
from qexport.backends.packed.reader import PackedModel, parse_packed, read_packed
from qexport.backends.packed.writer import to_packed
from qexport.ops import Conv2d, Linear
from qexport.reference import interpret

FOLDER = Path(__file__).parent / "golden"


def golden_bytes(name: str) -> bytes:
    """Metadata stays uncompressed: other versions of zlib compress to other bytes."""
    return to_packed(GOLDEN[name](), metadata={"network": name}, compress=False)


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes_are_those_of_the_golden_file(name: str) -> None:
    assert golden_bytes(name) == (FOLDER / f"{name}.qpk").read_bytes()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_file_computes_its_network(name: str) -> None:
    graph, model = GOLDEN[name](), read_packed(FOLDER / f"{name}.qpk")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.integers(0, 256, (3, *graph.inputs["image"].shape)), *corners(graph)]).astype(np.uint8)
    expected = interpret(graph, {"image": x}, keep="*").tensors
    again = interpret(model.to_graph(), {"image": x}, keep="*").tensors
    for sample in range(len(x)):
        found = Emulator(model, tiles=1 + sample).run([x[sample]])
        for tensor, value in expected.items():
            assert np.array_equal(found[tensor], value[sample]), tensor
            assert np.array_equal(again[tensor], value), tensor


def corners(graph) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    shape = graph.inputs["image"].shape
    return [np.full((1, *shape), 0), np.full((1, *shape), 255)]


def test_golden_files_hold_everything() -> None:
    models = [parse_packed(golden_bytes(name)) for name in GOLDEN]
    ops = np.concatenate([m.sections.ops for m in models])
    tensors = np.concatenate([m.sections.tensors for m in models])
    assert set(ops["opcode"]) == set(Opcode)
    assert set(tensors["storage_slot"] & 15) == set(Storage)
    assert set(tensors["rank_flags"] >> 6) == {0, 1, 2} and set(tensors["rank_flags"] & 3) == {1, 2, 3}
    assert int(np.bitwise_or.reduce([int(m.sections.header["features"]) for m in models])) == 7
    assert {flags >> 1 for flags in ops["flags"][ops["opcode"] == Opcode.THRESHOLD]} == {0, 3, 4}
    assert codings(models) == {(1, 2, False), (2, 3, True), (2, 4, False), (3, 7, False), (4, 0, False), (11, 0, False),
                               (10, 0, False), (15, 0, False), (24, 0, False)}  # fmt: skip


def codings(models: list[PackedModel]) -> set[tuple[int, int, bool]]:
    """(bits, codebook entries, base 3) of every layer."""
    return {
        (int(record["parameter"]), int(record["count"]), bool(record["flags"] & 2))
        for model in models
        for record, op in zip(model.sections.ops, model.ops, strict=True)
        if isinstance(op, Conv2d | Linear)
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for golden in GOLDEN:
        (FOLDER / f"{golden}.qpk").write_bytes(golden_bytes(golden))
