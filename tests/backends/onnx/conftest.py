"""The equality every integer model is held to, and small builders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from qexport.backends.onnx import unfolded
from qexport.backends.onnx.inspection import assert_integer
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.session import absorbed_tensors, open_session, run_all_tensors, run_session
from qexport.ir import Graph, integer
from qexport.reference import interpret

Check = Callable[..., onnx.ModelProto]


def _check_equal(graph: Graph, feeds: dict[str, np.ndarray], opset: int = 25) -> onnx.ModelProto:
    model = to_onnx(graph, metadata={"source": "test"}, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    assert_integer(model)
    want = interpret(graph, feeds, keep=["*"])
    for optimized in (True, False):
        got = run_all_tensors(model, feeds, optimized)
        assert set(got) == {node.name for node in graph.nodes} - set(absorbed_tensors(model))
        for name, value in got.items():
            np.testing.assert_array_equal(value, want.tensors[name], err_msg=f"{name}, optimized={optimized}")
        outputs = run_session(open_session(model, optimized=optimized), feeds)
        for name, value in outputs.items():
            assert value.dtype == np.int32
            np.testing.assert_array_equal(value, want.outputs[name], err_msg=f"{name}, optimized={optimized}")
    return model


@pytest.fixture
def check_equal() -> Check:
    """Convert, check, and compare every tensor with the interpreter, optimizations on and off; returns the model."""
    return _check_equal


@pytest.fixture
def never_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of the small images of tests as ConvInteger, as larger images have them."""
    for limit in ("FEW_POSITIONS", "SMALL_IMAGE"):
        monkeypatch.setattr(unfolded, limit, 0)


@pytest.fixture
def optimized_operators(tmp_path: Path) -> Callable[[onnx.ModelProto], list[str]]:
    """Operator types of a model after ONNX Runtime's default optimizations."""

    def optimize(model: onnx.ModelProto) -> list[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]

    return optimize


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture
def one_op() -> Callable[..., Graph]:
    """Graph of one node `y` on one input `x` of a given shape and range."""

    def build(op: object, shape: tuple[int, ...], lo: int, hi: int) -> Graph:
        graph = Graph()
        graph.add_input("x", integer(shape, lo, hi))
        graph.add("y", op, "x")
        graph.outputs = ["y"]
        return graph

    return build
