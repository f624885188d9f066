"""validate passes what convert wrote, and fails whatever was changed since."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qexport.backends.onnx.session import absorbed_tensors
from qexport.conversion import Artifact, convert
from qexport.conversion.build import Built
from qexport.errors import ArtifactError, DataError, OptionError, ProofError
from qexport.ir import Graph, Node
from qexport.ops import Threshold
from qexport.passes.prove import prove
from qexport.reference import interpret
from qexport.validation import validate
from qexport.validation.explain import Explainer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIMIT = 48


@pytest.fixture(scope="module")
def checkpoint(data_dir: Path) -> Path:
    return data_dir / "checkpoints" / "qn" / "resnet20_w2t_a2.pth"


@pytest.fixture(scope="module")
def images(data_dir: Path) -> Path:
    return data_dir / "cifar10" / "test.npz"


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return convert(checkpoint, tmp_path_factory.mktemp("out"), bits=2, mean=MEAN, std=STD)


def test_what_convert_wrote_passes(artifact: Artifact, checkpoint: Path, images: Path) -> None:
    report = validate([artifact.files["onnx"]], checkpoint=checkpoint, data=images, limit=LIMIT, max_drop=5.0)
    assert report.passed and report.unexplained == 0
    assert report.images == LIMIT
    assert [level.name for level in report.levels] == ["float", "frozen", "edge-quantized", "integer", "model.onnx"]
    (checked,) = report.artifacts
    absorbed = absorbed_tensors(onnx.load(artifact.files["onnx"]))
    assert (
        checked.exact and checked.images == LIMIT and checked.tensors + len(absorbed) == len(artifact.built.graph.nodes)
    )
    assert len(report.layers) == len(artifact.built.lowered.folds)
    assert all(r.differing == r.ties + r.propagated + r.unexplained for r in report.layers)
    assert all(r.largest_error <= r.bound for r in report.fixed_points)


def _with_changed_threshold(path: Path, target: Path) -> None:
    """Move the thresholds of one comparison in the middle of the model by a few accumulator steps."""
    model = onnx.load(path)
    compared = [node.input[1] for node in model.graph.node if node.op_type == "Greater"]
    chosen = next(i for i in model.graph.initializer if i.name == compared[len(compared) // 2])
    bars = numpy_helper.to_array(chosen)
    assert bars.dtype == np.uint8
    chosen.CopyFrom(numpy_helper.from_array(np.where(bars < 250, bars + 3, bars), chosen.name))
    onnx.save(model, target)


def test_a_wrong_threshold_in_the_file_fails(
    artifact: Artifact, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "model.onnx"
    _with_changed_threshold(artifact.files["onnx"], changed)
    report = validate([changed], checkpoint=checkpoint, data=images, limit=LIMIT)
    assert not report.passed
    assert "differ from the reference" in report.failures[0]


def _mutated(built: Built) -> tuple[Graph, str]:
    """The integer graph with one threshold of one layer moved by one accumulator step where values live."""
    graph = built.graph
    # Behind a low-bit layer: its accumulators are so few that some sit on every threshold.
    name = next(n.name for n in graph.find(Threshold) if n.name.endswith("quan1"))
    nodes = []
    for node in graph.nodes:
        if node.name == name:
            assert isinstance(node.op, Threshold)
            thresholds = node.op.thresholds.copy()
            thresholds[:, 0] -= np.minimum(1, thresholds[:, 0] - thresholds.min() + 1)
            node = Node(name, replace(node.op, thresholds=thresholds), node.inputs, node.source)
        nodes.append(node)
    mutated = Graph(dict(graph.inputs), nodes, list(graph.outputs))
    mutated.types = dict(graph.types)
    return mutated, name


def test_a_wrong_threshold_in_the_graph_is_refused_by_the_proof(artifact: Artifact) -> None:
    graph, name = _mutated(artifact.built)
    with pytest.raises(ProofError, match="another code than the exact real chain") as caught:
        prove(graph, {name: artifact.built.lowered.folds[name]})
    assert name in str(caught.value)


def test_a_wrong_threshold_in_the_graph_is_unexplained_on_data(artifact: Artifact, images: Path) -> None:
    graph, name = _mutated(artifact.built)
    batch = np.ascontiguousarray(np.load(images)["images"][:16].transpose(0, 3, 1, 2))
    explainer = Explainer(replace(artifact.built.lowered, graph=graph), artifact.built.captured.graph)
    feeds = {"image": batch}
    integers = interpret(graph, feeds, keep="*").tensors
    explainer.add(feeds, integers, explainer.run_free(feeds), explainer.run_frozen(feeds))
    layers, _ = explainer.results()
    wrong = {r.name: r.unexplained for r in layers if r.unexplained}
    assert set(wrong) == {name}, "only the changed layer is at fault; what follows is propagated"


def test_another_checkpoint_is_refused(artifact: Artifact, data_dir: Path, images: Path) -> None:
    other = data_dir / "checkpoints" / "qn" / "resnet20_w2t.pth"
    with pytest.raises(ArtifactError, match="made from another checkpoint"):
        validate([artifact.files["onnx"]], checkpoint=other, data=images, limit=4)


@pytest.mark.parametrize("kind", ["onnx", "qpk"])
def test_an_artifact_of_another_version_is_refused_with_the_cause(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("qexport.passes.edge_weights.ACCUMULATOR_SHARE", 0.7)  # what an older release might have had
        patch.setattr(sys.modules["qexport.conversion.convert"], "__version__", "0.0.7")
        older = convert(checkpoint, tmp_path, bits=2, mean=MEAN, std=STD, formats=[kind])
    with pytest.raises(ArtifactError, match="no longer converts") as caught:
        validate([older.files[kind]], checkpoint=checkpoint, data=images, limit=4)
    assert "written by qexport 0.0.7" in str(caught.value) and "convert again" in str(caught.value)


def test_max_drop_needs_labels(artifact: Artifact, checkpoint: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(OptionError, match="--max-drop needs labels"):
        validate([artifact.files["onnx"]], checkpoint=checkpoint, data=tmp_path / "x.npy", max_drop=1.0)
    report = validate([artifact.files["onnx"]], checkpoint=checkpoint, data=tmp_path / "x.npy")
    assert report.passed and report.levels[0].top1 is None


def test_labels_beyond_the_classes_are_refused(artifact: Artifact, checkpoint: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.array([0, 10]))
    with pytest.raises(DataError):
        validate([artifact.files["onnx"]], checkpoint=checkpoint, data=tmp_path / "x.npz")


def test_a_drop_beyond_the_limit_fails(artifact: Artifact, checkpoint: Path, images: Path) -> None:
    report = validate([artifact.files["onnx"]], checkpoint=checkpoint, data=images, limit=LIMIT, max_drop=-100.0)
    assert not report.passed and "top-1 falls by" in report.failures[-1]


def test_no_model_and_foreign_models_are_refused(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="not an ONNX model"):
        validate([tmp_path / "junk.onnx"], checkpoint=checkpoint, data=images)
    with pytest.raises(ArtifactError, match="no such file"):
        validate([tmp_path / "absent.onnx"], checkpoint=checkpoint, data=images)
