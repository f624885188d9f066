"""What is said about an ONNX file is what the integer graph and the report hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexport.backends.onnx.describe import check_integer, describe_onnx
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.threshold import SEARCH_FROM
from qexport.conversion import Artifact
from qexport.errors import ArtifactError
from qexport.ir import Graph
from qexport.ir.types import integer
from qexport.ops import Add, Threshold


def test_layers_are_those_of_the_report(artifact: Artifact) -> None:
    found = describe_onnx(artifact.files["onnx"])
    assert found["layers"] == artifact.report["layers"]
    assert found["bytes"] == artifact.files["onnx"].stat().st_size
    assert found["metadata"]["qexport.outputs"][0]["scale"] == artifact.report["outputs"][0]["scale"]
    assert found["metadata"]["qexport.bounds"]["image"] == [0, 255]
    assert found["float_tensors"] == []
    assert sum(found["operators"].values()) == len(onnx.load(artifact.files["onnx"]).graph.node)


def test_thresholds_are_those_of_the_graph(artifact: Artifact) -> None:
    """Also of layers that compare bytes; but for sums, which a file may compare in other units."""
    described = describe_onnx(artifact.files["onnx"])
    found = {row["name"]: row for row in described["thresholds"]}
    assert {"Greater", "GreaterOrEqual"} <= set(described["operators"])
    compared = 0
    graph = artifact.built.graph
    for node in graph.nodes:
        if not isinstance(node.op, Threshold) or np.any(node.op.sign < 0):
            continue
        if isinstance(graph.node(node.inputs[0]).op, Add):
            continue
        row, x = found[node.name], graph.types[node.inputs[0]]
        columns = [(t, t[(t > x.lo) & (t <= x.hi)]) for t in node.op.thresholds.T]
        # Steps no channel reaches are not stored; windows have no place for those a channel never or always takes.
        columns = [(all_, some) for all_, some in columns if np.any(all_ <= x.hi)]
        for (lo, hi), whole, some in zip(row["thresholds"], *zip(*columns, strict=True), strict=True):
            assert (lo, hi) in ((whole.min(), whole.max()), (some.min(), some.max()))
        compared += 1
    assert compared


def test_thresholds_of_a_binary_search(tmp_path: Path) -> None:
    """Many steps are stored as one table, filled up to a power of two."""
    bars = np.arange(2 * SEARCH_FROM, dtype=np.int64).reshape(1, -1) * 3
    levels = np.arange(2 * SEARCH_FROM + 1, dtype=np.int32)
    graph = Graph()
    graph.add_input("x", integer((2, 4), -1000, 1000))
    graph.outputs = [graph.add("q", Threshold(bars, np.ones(1, np.int8), levels), "x")]
    model = to_onnx(graph, metadata={"qexport.bounds": '{"q": [0, 200]}'})
    onnx.save(model, tmp_path / "search.onnx")
    (row,) = describe_onnx(tmp_path / "search.onnx")["thresholds"]
    assert row == {"name": "q", "steps": 2 * SEARCH_FROM, "thresholds": [[0, 3 * (2 * SEARCH_FROM - 1)]]}


def foreign_model() -> onnx.ModelProto:
    """y = x + 1 in floats, its constant not stored as raw data."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy")
    one = helper.make_tensor("one", TensorProto.FLOAT, [3], [1.0, 1.0, 1.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "add", [x], [y], [one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_a_foreign_file(tmp_path: Path) -> None:
    onnx.save(foreign_model(), tmp_path / "a.onnx")
    found = describe_onnx(tmp_path / "a.onnx")
    assert found["format"] is None and found["layers"] == [] and found["thresholds"] == []
    assert found["initializer_bytes"] == 12 and found["operators"] == {"Add": 1}
    assert found["inputs"] == [{"name": "x", "type": "float", "shape": ["N", 3]}]
    assert sorted(found["float_tensors"]) == ["one", "x", "y"]
    with pytest.raises(ArtifactError, match=r"a\.onnx: 3 values have a float or unknown type[\s\S]*y \(Add\)"):
        check_integer(tmp_path / "a.onnx")


def test_a_file_whose_types_cannot_be_inferred(tmp_path: Path) -> None:
    model = foreign_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(3, np.int32), "one"))
    onnx.save(model, tmp_path / "a.onnx")
    assert describe_onnx(tmp_path / "a.onnx")["float_tensors"] is None
    with pytest.raises(ArtifactError, match="types of the model cannot be inferred"):
        check_integer(tmp_path / "a.onnx")


def test_damaged_metadata(artifact: Artifact, tmp_path: Path) -> None:
    model = onnx.load(artifact.files["onnx"])
    for prop in model.metadata_props:
        if prop.key == "qexport.layers":
            prop.value = prop.value[:-1]
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match=r"a\.onnx: qexport\.layers: the metadata is damaged"):
        describe_onnx(tmp_path / "a.onnx")
