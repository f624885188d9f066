"""Every architecture of the papers at every bit pair: converted, and equal to the reference in both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from qexport.backends.onnx.inspection import assert_integer
from qexport.backends.onnx.session import absorbed_tensors, run_all_tensors
from qexport.checkpoints import save_native
from qexport.conversion import convert
from qexport.models.papers import PAIRS, SMALL_INPUTS
from qexport.models.registry import architecture
from qexport.models.seeded import random_images, seeded
from qexport.reference import interpret
from qexport.session import InferenceSession

torch.set_num_threads(1)

QUICK = {("alexnet", "qn-w1a2"), ("ssd_small", "daq-w2a2"), ("ssd_small", "qn-w3a32-4"), ("resnet20", "daq-w1a1")}
"""Rows that `make test` runs; the others are slow together."""

ROWS = [
    pytest.param(name, pair, marks=[] if (name, pair) in QUICK else [pytest.mark.slow], id=f"{name}-{pair}")
    for name in SMALL_INPUTS
    for pair in PAIRS
]


@pytest.mark.parametrize(("name", "pair"), ROWS)
def test_every_tensor_equals_the_reference(name: str, pair: str, tmp_path: Path) -> None:
    chosen, small = PAIRS[pair], SMALL_INPUTS[name]
    arch, shape = f"{chosen.scheme}-{name}", small.input_shape
    data = architecture(arch).preprocessing
    arguments = {**small.arguments, **chosen.arguments}
    checkpoint = tmp_path / "seeded.pt"
    model = seeded(arch, input_shape=shape, **arguments)
    save_native(checkpoint, model, arch=arch, arguments=arguments, input_shape=shape, mean=data.mean, std=data.std)
    images = random_images(shape, 4).numpy()
    artifact = convert(checkpoint, tmp_path / "out", formats=("onnx", "qpk"), calibration_data=images)
    graph = artifact.built.graph
    loaded = onnx.load(artifact.files["onnx"])
    assert_integer(loaded)
    expected = interpret(graph, {"image": images}, keep="*").tensors
    runs = [
        run_all_tensors(loaded, {"image": images}),
        InferenceSession(artifact.files["qpk"]).run_all({"image": images}),
    ]
    absorbed = set(absorbed_tensors(loaded))
    for found, missing in zip(runs, (absorbed, set[str]()), strict=True):
        assert {node.name for node in graph.nodes} == set(found) | missing
        for tensor, value in found.items():
            assert np.array_equal(value, expected[tensor]), tensor
    assert len(graph.outputs) == (2 if "ssd" in name else 1)
    assert all(expected[output].any() for output in graph.outputs)
