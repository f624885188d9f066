"""Every network of the matrix as QDQ: ONNX Runtime loads it, optimized or not, and nearly all its codes are those of
the quantized real graph; with every sum rounded to bytes most of them are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lowering import lowered_case
from networks import CASES

from qexport.backends.onnx.qdq import to_qdq
from qexport.backends.onnx.session import run_all_tensors
from qexport.ops import Step
from qexport.reference import interpret

torch.set_num_threads(1)


@pytest.mark.parametrize("name", CASES)
def test_codes(name: str) -> None:
    low, x = lowered_case(name)
    want = interpret(low.real, {"image": x}, keep=["*"]).tensors
    scales = {node.name: float(node.op.function.scale) for node in low.real.nodes if isinstance(node.op, Step)}
    for fuse_all, share in ((False, 0.03), (True, 0.1)):
        model = to_qdq(low.real, metadata={}, fuse_all=fuse_all)
        for optimized in (True, False):
            got = run_all_tensors(model, {"image": x}, optimized)
            assert set(low.real.outputs) <= set(got)
            for tensor in scales.keys() & got.keys():
                differing = np.abs(got[tensor] - want[tensor]) > scales[tensor] / 2
                assert differing.mean() <= share, (tensor, fuse_all, optimized)
