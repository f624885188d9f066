"""Every network of the matrix: ONNX Runtime gives the reference's integers for every layer, `==`, optimized or not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from lowering import lowered_case
from networks import CASES
from numpy.typing import NDArray

from qexport.backends.onnx import integer as onnx_integer
from qexport.backends.onnx.inspection import assert_integer
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import absorbed_tensors, run_all_tensors
from qexport.ir import Graph
from qexport.ops import Add, Conv2d, Rescale
from qexport.passes.prove import prove
from qexport.reference import interpret

torch.set_num_threads(1)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_equals_the_reference(name: str) -> None:
    low, x = lowered_case(name)
    model = to_onnx(low.graph, metadata={})
    absorbed = absorbed_tensors(model)
    nodes = {node.name: node.op for node in low.graph.nodes}
    assert all(isinstance(nodes[tensor], Conv2d | Rescale | Add) for tensor in absorbed)
    assert not set(absorbed) & set(low.graph.outputs)
    check_equal(low.graph, model, x, set(nodes) - set(absorbed))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("never_unfolded")
def test_every_layer_by_itself_equals_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One operator or more for each layer, as where the forms that join layers do not apply."""
    monkeypatch.setattr(onnx_integer, "plain_sums", lambda graph: graph)
    monkeypatch.setattr(onnx_integer, "find_windows", lambda graph: {})
    low, x = lowered_case(name)
    model = to_onnx(low.graph, metadata={})
    check_equal(low.graph, model, x, {node.name for node in low.graph.nodes})


def check_equal(graph: Graph, model: onnx.ModelProto, x: NDArray[np.uint8], carried: set[str]) -> None:
    assert_integer(model)
    expected = interpret(graph, {"image": x}, keep="*").tensors
    for optimized in (False, True):
        found = run_all_tensors(model, {"image": x}, optimized)
        assert set(found) == carried
        for name, value in found.items():
            assert np.array_equal(value, expected[name]), f"{name}, optimized={optimized}"


@pytest.mark.parametrize("name", CASES)
def test_every_quantizer_is_proven(name: str) -> None:
    low, _ = lowered_case(name)
    proofs = prove(low.graph, low.folds)
    assert {p.name for p in proofs} == set(low.folds) & set(low.graph.types)
    assert all(p.ties == 0 or low.folds[p.name].coded for p in proofs)
