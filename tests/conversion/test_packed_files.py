"""convert --format qpk with the real third-party checkpoints: size, arena, equal bytes from run to run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from packed_emulator import Emulator

from qexport.backends.packed.file import weight_bytes
from qexport.backends.packed.reader import PackedModel, read_packed
from qexport.backends.packed.writer import lay_out
from qexport.conversion import Artifact, convert
from qexport.ops import Conv2d, Linear, Rescale, Threshold
from qexport.reference import interpret

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Case:
    """One conversion."""

    file: str
    bits: int

    def __str__(self) -> str:
        return Path(self.file).stem


DAQ = Case("daq/cifar10_W1A1.pth", 1)
TERNARY = Case("qn/resnet20_w2t_a2.pth", 2)


def converted(case: Case, data_dir: Path, output: Path) -> Artifact:
    source = data_dir / "checkpoints" / case.file
    return convert(source, output, bits=case.bits, formats=("qpk",), mean=MEAN, std=STD)


def budget(model: PackedModel) -> int:
    """1.6 bits a ternary weight, edge layers, thresholds and fixed-point parameters as they stand, and 10 KB."""
    total = 10 * 1024.0
    for record, op in zip(model.sections.ops, model.ops, strict=True):
        if isinstance(op, Conv2d | Linear) and op.weight.level_set == (-1, 0, 1):
            total += 1.6 * op.weight.array.size / 8
        elif isinstance(op, Conv2d | Linear | Threshold | Rescale):
            total += int(record["constant_size"])
    return int(total)


def test_daq_network_fits_52_kilobytes(data_dir: Path, tmp_path: Path) -> None:
    artifact = converted(DAQ, data_dir, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.qpk", "report.json"]
    data = artifact.files["qpk"].read_bytes()
    assert len(data) <= 52 * 1024
    again = converted(DAQ, data_dir, tmp_path / "again")
    assert again.files["qpk"].read_bytes() == data
    model = read_packed(artifact.files["qpk"])
    layers = {row["name"]: row["stored_bytes"] for row in artifact.report["layers"]}
    assert layers == weight_bytes(model)
    assert artifact.report["files"] == {"model.qpk": len(data)}
    assert json.loads(model.metadata["qexport.settings"])["weight_bits"] == 1
    assert not {"qexport.bounds", "qexport.layers"} & set(model.metadata)


def test_ternary_network_takes_1_6_bits_a_weight(data_dir: Path, tmp_path: Path) -> None:
    artifact = converted(TERNARY, data_dir, tmp_path)
    model = read_packed(artifact.files["qpk"])
    assert artifact.files["qpk"].stat().st_size <= budget(model)


@pytest.mark.parametrize("case", [DAQ, TERNARY], ids=str)
def test_real_networks_compute_the_reference_in_a_tight_arena(case: Case, data_dir: Path, tmp_path: Path) -> None:
    artifact = converted(case, data_dir, tmp_path)
    graph, model = artifact.built.graph, read_packed(artifact.files["qpk"])
    plan = lay_out(graph).plan
    assert plan.size == model.sections.header["arena_size"] <= 1.1 * plan.lower_bound
    x = np.load(data_dir / "cifar10" / "test.npz")["images"][:1].transpose(0, 3, 1, 2)
    (name,) = graph.inputs
    expected = interpret(graph, {name: x}, keep="*").tensors
    found = Emulator(model, tiles=3).run([x[0]])
    assert set(found) == set(expected)
    for tensor, value in expected.items():
        assert np.array_equal(found[tensor], value[0]), tensor
