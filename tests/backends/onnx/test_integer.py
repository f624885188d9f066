"""The model as a whole: table, names, types, metadata, batch axis, determinism, refusals."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from qexport.backends.onnx.inspection import assert_integer, find_float_tensors, weight_bytes
from qexport.backends.onnx.integer import LOWERINGS, MAX_OPSET, MIN_OPSET, TENSORS_KEY, to_onnx
from qexport.backends.onnx.session import ir_tensors, open_session, run_all_tensors, run_session
from qexport.backends.onnx.writer import write_onnx
from qexport.errors import ArtifactError, DataError, GraphError, OptionError, OutputError
from qexport.ir import Graph, integer, real
from qexport.ops import REGISTRY, Add, Clip, Conv2d, Linear, MaxPool, Rescale, Reshape, SumPool, Threshold, Weight


def small_network() -> Graph:
    """Stem, a residual block and a classifier."""
    rng = np.random.default_rng(3)
    graph = Graph()
    x = graph.add_input("image", integer((3, 8, 8), 0, 255))
    stem = graph.add("stem", Conv2d(Weight(rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int32))), x)
    steps = np.sort(rng.integers(-9000, 9000, (4, 3)), axis=1)
    act = graph.add("act", Threshold(steps, np.array([1, -1, 1, 1], np.int8), np.arange(4, dtype=np.int32)), stem)
    ternary = Weight(rng.integers(-1, 2, (4, 4, 3, 3)).astype(np.int32), level_set=(-1, 0, 1))
    conv = graph.add("conv", Conv2d(ternary, pads=((1, 1), (1, 1))), act)
    m, r = np.array([2**20, -(2**19), 2**20, 2**18]), np.full(4, 2**9)
    scaled = graph.add("scaled", Rescale(m, r, 10), conv)
    shortcut = graph.add("shortcut", Rescale(np.array([1000]), np.array([0]), 0), act)
    total = graph.add("total", Add(), scaled, shortcut)
    relu = graph.add("relu", Clip(0, None), total)
    pooled = graph.add("pooled", MaxPool((2, 2), (2, 2)), relu)
    summed = graph.add("summed", SumPool((3, 3), (3, 3)), pooled)
    flat = graph.add("flat", Reshape((4, 1, 1), (4,)), summed)
    head = Weight(rng.integers(-7, 8, (10, 4)).astype(np.int32))
    graph.outputs = [graph.add("logits", Linear(head), flat)]
    return graph


def image(batch: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(4).integers(0, 256, (batch, 3, 8, 8))}


def test_table_covers_the_registry():
    """A new op cannot be forgotten here."""
    assert set(LOWERINGS) == {kind for kind, op in REGISTRY.items() if op.domain in ("integer", "any")}


@pytest.mark.parametrize("batch", [1, 3])
def test_network_equals_the_interpreter(check_equal, batch):
    check_equal(small_network(), image(batch))


def test_batch_axis_is_dynamic():
    model = to_onnx(small_network(), metadata={})
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for info in [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]:
        if info.name in ir_tensors(model):
            assert info.type.tensor_type.shape.dim[0].dim_param == "N", info.name


def test_types_and_metadata():
    model = to_onnx(small_network(), metadata={"classes": "a,b", "source_sha256": "00"})
    props = {p.key: p.value for p in model.metadata_props}
    assert props["classes"] == "a,b" and props["source_sha256"] == "00" and props["qexport.format"] == "onnx"
    assert json.loads(props[TENSORS_KEY])[0] == "image"
    assert model.producer_name == "qexport" and model.producer_version
    assert list(props) == sorted(props)
    values = run_all_tensors(model, image(1))
    assert values["act"].dtype == np.uint8 and values["stem"].dtype == np.int32 and values["logits"].dtype == np.int32


@pytest.mark.parametrize("opset", [MIN_OPSET, MAX_OPSET])
def test_equal_bytes_from_run_to_run(opset):
    first, second = (to_onnx(small_network(), metadata={"a": "b"}, opset=opset) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_weight_bytes_by_layer():
    sizes = weight_bytes(to_onnx(small_network(), metadata={}))
    assert sizes == {"stem": 108, "conv": 36, "logits": 20}


@pytest.mark.parametrize("opset", [MIN_OPSET - 1, MAX_OPSET + 1])
def test_unsupported_opset(opset):
    with pytest.raises(OptionError, match=f"unsupported ONNX opset\n  got:      {opset}\n  expected: 18 to 25"):
        to_onnx(small_network(), metadata={}, opset=opset)


def test_real_graph_is_refused():
    graph = Graph()
    graph.add_input("x", real((3,), 0, 1))
    graph.outputs = [graph.add("y", Clip(0, None), "x")]
    with pytest.raises(GraphError, match="real tensor in an integer graph"):
        to_onnx(graph, metadata={})


def test_names_that_look_like_helpers(check_equal):
    """An IR tensor may carry a name the backend would have given to a helper value."""
    graph = Graph()
    graph.add_input("y/moved", integer((3,), 0, 255))
    graph.add("y/acc", Clip(0, 200), "y/moved")
    graph.add("y", Linear(Weight(np.full((2, 3), 100, np.int32))), "y/acc")
    graph.outputs = ["y"]
    check_equal(graph, {"y/moved": np.array([[1, 2, 255]])})


class TestInspection:
    def test_integer_model_has_no_float(self):
        assert find_float_tensors(to_onnx(small_network(), metadata={})) == []

    def test_float_nodes_are_named(self):
        model = to_onnx(small_network(), metadata={})
        cast = onnx.helper.make_node("Cast", ["logits"], ["probabilities"], to=onnx.TensorProto.FLOAT)
        model.graph.node.append(cast)
        with pytest.raises(ArtifactError, match=r"1 values .*\n  got:      probabilities \(Cast\)"):
            assert_integer(model)

    def test_float_initializers_and_constants_are_found(self):
        model = to_onnx(small_network(), metadata={})
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(2, np.float16), "scale"))
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value_float=1.0))
        assert find_float_tensors(model) == ["scale", "c"]

    def test_floats_inside_a_local_function_are_found(self):
        body = [
            onnx.helper.make_node("Cast", ["a"], ["f"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Cast", ["f"], ["b"], to=onnx.TensorProto.INT32),
        ]
        function = onnx.helper.make_function("local", "Hidden", ["a"], ["b"], body, [onnx.helper.make_opsetid("", 25)])
        model = to_onnx(small_network(), metadata={})
        model.functions.append(function)
        model.opset_import.append(onnx.helper.make_opsetid("local", 1))
        model.graph.node.append(onnx.helper.make_node("Hidden", ["logits"], ["out"], domain="local"))
        assert len(find_float_tensors(model)) == 1

    def test_unknown_types_count_as_floats(self):
        model = to_onnx(small_network(), metadata={})
        model.opset_import.append(onnx.helper.make_opsetid("vendor", 1))
        model.graph.node.append(onnx.helper.make_node("Mystery", ["logits"], ["out"], domain="vendor"))
        assert find_float_tensors(model) == ["out"]

    def test_tensors_of_a_foreign_model(self):
        with pytest.raises(ArtifactError, match="does not name its IR tensors"):
            ir_tensors(onnx.ModelProto())


class TestSession:
    def test_feed_that_does_not_fit(self):
        session = open_session(to_onnx(small_network(), metadata={}))
        with pytest.raises(DataError, match="does not fit its element type"):
            run_session(session, {"image": np.full((1, 3, 8, 8), 256)})
        with pytest.raises(DataError, match="an input is missing"):
            run_session(session, {})

    def test_model_that_does_not_load(self):
        with pytest.raises(ArtifactError, match="ONNX Runtime cannot load the model"):
            open_session(b"no model", name="x.onnx")


class TestWriter:
    def test_written_file_loads(self, tmp_path):
        path = tmp_path / "model.onnx"
        path.write_bytes(b"old")
        model = to_onnx(small_network(), metadata={})
        write_onnx(model, path)
        assert path.read_bytes() == model.SerializeToString(deterministic=True)
        assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]

    def test_missing_directory(self, tmp_path):
        with pytest.raises(OutputError, match="the model cannot be written"):
            write_onnx(to_onnx(small_network(), metadata={}), tmp_path / "no" / "model.onnx")

    def test_target_that_cannot_be_replaced(self, tmp_path):
        (tmp_path / "model.onnx").mkdir()
        with pytest.raises(OutputError):
            write_onnx(to_onnx(small_network(), metadata={}), tmp_path / "model.onnx")
        assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]

    def test_invalid_model_leaves_nothing(self, tmp_path):
        model = to_onnx(small_network(), metadata={})
        model.graph.node[0].input[0] = "nothing"
        with pytest.raises(ArtifactError, match=r"onnx\.checker refuses"):
            write_onnx(model, tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())

    def test_model_the_runtime_cannot_run(self, tmp_path):
        """Valid ONNX, but ONNX Runtime has no int16 maximum pooling."""
        model = to_onnx(small_network(), metadata={})
        model.graph.node.append(onnx.helper.make_node("Cast", ["pooled"], ["p16"], to=onnx.TensorProto.INT16))
        model.graph.node.append(onnx.helper.make_node("Max", ["p16", "p16"], ["m16"]))
        with pytest.raises(ArtifactError, match="ONNX Runtime cannot load"):
            write_onnx(model, tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())
