"""Every network of the matrix: ONNX Runtime gives the reference's integers for every layer, `==`, optimized or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lowering import lowered_case
from networks import CASES

from qexport.backends.onnx.inspection import assert_integer
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import absorbed_tensors, run_all_tensors
from qexport.ops import Add, Conv2d, Rescale
from qexport.passes.prove import prove
from qexport.reference import interpret

torch.set_num_threads(1)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_equals_the_reference(name: str) -> None:
    low, x = lowered_case(name)
    model = to_onnx(low.graph, metadata={})
    assert_integer(model)
    expected = interpret(low.graph, {"image": x}, keep="*").tensors
    for optimized in (False, True):
        found = run_all_tensors(model, {"image": x}, optimized)
        for node in low.graph.nodes:
            if node.name in absorbed_tensors(model):
                assert isinstance(node.op, Conv2d | Rescale | Add)
                assert node.name not in {*found, *low.graph.outputs}
                continue
            assert np.array_equal(found[node.name], expected[node.name]), f"{node.name}, optimized={optimized}"


@pytest.mark.parametrize("name", CASES)
def test_every_quantizer_is_proven(name: str) -> None:
    low, _ = lowered_case(name)
    proofs = prove(low.graph, low.folds)
    assert {p.name for p in proofs} == set(low.folds) & set(low.graph.types)
    assert all(p.ties == 0 or low.folds[p.name].coded for p in proofs)
