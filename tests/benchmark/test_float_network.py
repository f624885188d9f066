"""The float network of every network of the table: shapes, work, and what the engines make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from lowering import lowered_case
from networks import CASES
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from qexport.benchmark.float_network import float_onnx
from qexport.benchmark.quantized_network import float_images, quantize
from qexport.benchmark.torch_network import TorchNetwork
from qexport.ir import Graph
from qexport.ops import Conv2d, Linear

BATCH = 2


def images(graph: Graph) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(1)
    return {name: float_images(random, BATCH, list(t.shape)) for name, t in graph.inputs.items()}


def run(model: onnx.ModelProto | Path, feeds: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    data = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # the peer's wide weights may saturate
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def macs(model: onnx.ModelProto) -> int:
    """Of one image, from the shapes ONNX itself infers."""
    inferred = shape_inference.infer_shapes(model).graph
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in inferred.value_info}
    weights = {i.name: numpy_helper.to_array(i) for i in inferred.initializer}
    found = 0
    for node in inferred.node:
        if node.op_type in ("Conv", "Gemm"):
            found += weights[node.input[1]].size * int(np.prod(shapes[node.output[0]][2:], dtype=np.int64))
    return found


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_network_has_its_shapes_and_its_work(name: str, tmp_path: Path) -> None:
    graph = lowered_case(name)[0].graph
    model = float_onnx(graph)
    feeds = images(graph)
    found = run(model, feeds)
    assert [array.shape for array in found] == [(BATCH, *graph.types[output].shape) for output in graph.outputs]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in found)
    layers = [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]
    expected = sum(n.op.weight.array.size * int(np.prod(graph.types[n.name].shape[1:], dtype=int)) for n in layers)
    assert macs(model) == expected

    onnx.save(model, tmp_path / "float.onnx")
    for ours, theirs in zip(TorchNetwork(str(tmp_path / "float.onnx"), 1).on(feeds)(), found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_the_int8_network_says_what_the_float_one_says(tmp_path: Path) -> None:
    graph = lowered_case("shared-module")[0].graph
    onnx.save(float_onnx(graph), tmp_path / "float.onnx")
    quantize(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    feeds = images(graph)
    (real,), (rough,) = run(tmp_path / "float.onnx", feeds), run(tmp_path / "int8.onnx", feeds)
    assert np.corrcoef(real.ravel(), rough.ravel())[0, 1] > 0.98
    model = onnx.load(tmp_path / "int8.onnx")
    kinds = {numpy_helper.to_array(i).dtype for i in model.graph.initializer if i.name.endswith("_weight_quantized")}
    assert kinds == {np.dtype(np.int8)}
    scales = [i for i in model.graph.initializer if i.name.endswith("_weight_scale")]
    assert any(numpy_helper.to_array(scale).size > 1 for scale in scales), "one scale a channel"


def test_the_same_seed_gives_the_same_network() -> None:
    graph = lowered_case("shared-module")[0].graph
    assert float_onnx(graph).SerializeToString() == float_onnx(graph).SerializeToString()
    assert float_onnx(graph).SerializeToString() != float_onnx(graph, seed=1).SerializeToString()


@pytest.mark.parametrize("name", ["pool-max-before", "pool-max-two-readers"])
def test_relu_stands_before_a_pool_whose_quantizers_stand_on_either_side(name: str) -> None:
    """So that engines fuse it with the convolution, as in float networks."""
    graph = lowered_case(name)[0].graph
    kinds = [node.op.kind for node in graph.nodes]
    assert (kinds[kinds.index("max_pool") + 1] == "threshold") == (name == "pool-max-two-readers")
    order = [node.op_type for node in float_onnx(graph).graph.node]
    assert order[order.index("MaxPool") - 1] == "Relu"
    assert order[order.index("MaxPool") + 1] != "Relu"
