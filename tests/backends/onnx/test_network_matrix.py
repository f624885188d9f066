"""Every network of the matrix: ONNX Runtime gives the reference's integers for every layer, `==`, optimized or not."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from agreement import images
from networks import CASES

from qexport.backends.onnx.inspection import assert_integer
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import run_all_tensors
from qexport.capture import capture
from qexport.passes.layers import LayerOptions, needs_range, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.passes.prove import prove
from qexport.reference import interpret

torch.set_num_threads(1)


def _lowered(name: str) -> tuple[Lowered, np.ndarray]:
    case = CASES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    found = capture(case.build(rng).eval(), case.shape, case.mean, case.std)
    x = images(case.shape, rng)
    wanted = needs_range(found.graph) if case.calibrate else {}
    run = interpret(found.graph, {"image": x}, keep=wanted)
    ranges = {t: (float(run.tensors[t].min()), float(run.tensors[t].max())) for t in wanted}
    return lower(quantize_layers(found.graph, LayerOptions(edge_bits=case.edge_bits, ranges=ranges))), x


@pytest.mark.parametrize("name", CASES)
def test_every_layer_equals_the_reference(name: str) -> None:
    low, x = _lowered(name)
    model = to_onnx(low.graph, metadata={})
    assert_integer(model)
    expected = interpret(low.graph, {"image": x}, keep="*").tensors
    for optimized in (False, True):
        found = run_all_tensors(model, {"image": x.astype(np.uint8)}, optimized)
        for node in low.graph.nodes:
            assert np.array_equal(found[node.name], expected[node.name]), f"{node.name}, optimized={optimized}"


@pytest.mark.parametrize("name", CASES)
def test_every_quantizer_is_proven(name: str) -> None:
    low, _ = _lowered(name)
    proofs = prove(low.graph, low.folds)
    assert {p.name for p in proofs} == set(low.folds) & set(low.graph.types)
    assert all(p.ties == 0 or low.folds[p.name].coded for p in proofs)
