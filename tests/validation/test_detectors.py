"""A detector from checkpoint to boxes: convert writes post.onnx, validate judges every level by its mAP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from torch import nn

from qexport.backends.onnx.session import open_session, run_session
from qexport.checkpoints import load_checkpoint, save_native
from qexport.cli.main import main
from qexport.conversion import Artifact, convert
from qexport.detection import Detector, post_process
from qexport.errors import CheckpointError, DataError
from qexport.models.quantizers import set_soft
from qexport.models.registry import build
from qexport.validation import Report, validate
from qexport.validation.html import html_report

SIZE, N_IMAGES = 32, 24
LEVELS = ["float", "frozen", "edge-quantized", "integer", "model.onnx", "model.qpk", "post.onnx"]
ARGUMENTS = {"image_size": SIZE, "num_classes": 3, "weight_levels": [-1, 0, 1], "act_levels": [0, 1, 2, 3]}


def save_detector(path: Path, detector: Detector | None = None) -> Path:
    """An untrained small SSD whose weights reach all levels and whose scores are far apart."""
    torch.manual_seed(0)
    model = build("qn-ssd_small", **ARGUMENTS)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.uniform_(module.running_var, 4.0, 16.0)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.7)
    for head in model.heads:
        nn.init.normal_(head.location.weight, std=0.02)
        nn.init.normal_(head.score.weight, std=0.05)
    save_native(
        path,
        model,
        arch="qn-ssd_small",
        arguments=ARGUMENTS,
        input_shape=(1, SIZE, SIZE),
        mean=(0.4,),
        std=(0.3,),
        temperature=40,
        class_names=("a", "b", "c"),
        detector=detector or model.detector,
    )
    return path


def save_scenes(path: Path, checkpoint: Path) -> Path:
    """Noise, in which three boxes of the soft network are declared right: it finds them, and much beside."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (N_IMAGES, SIZE, SIZE, 1)).astype(np.uint8)
    loaded = load_checkpoint(checkpoint)
    assert loaded.detector is not None
    x = (torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255 - 0.4) / 0.3
    set_soft(loaded.model, True)
    with torch.no_grad():
        locations, scores = loaded.model(x)
    boxes, labels, offsets = [], [], [0]
    for found in post_process(locations.numpy(), scores.numpy(), loaded.detector):
        large = np.flatnonzero((found.boxes[:, 2:] - found.boxes[:, :2]).min(axis=1) > 0.05)[:6:2]
        boxes += (found.boxes[large] * SIZE).tolist()
        labels += found.labels[large].tolist()
        offsets.append(len(labels))
    np.savez(path, images=images, boxes=np.array(boxes), labels=labels, offsets=offsets)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(tmp_path_factory.mktemp("checkpoint") / "ssd.pt")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    return save_scenes(tmp_path_factory.mktemp("data") / "scenes.npz", checkpoint)


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return convert(checkpoint, tmp_path_factory.mktemp("out"), bits=2, formats=("onnx", "qpk"))


def test_model_and_post_together_are_the_detector(artifact: Artifact, scenes: Path) -> None:
    """uint8 pixels in, boxes out, equal to the numpy post-process of the integer heads times their scales."""
    images = np.load(scenes)["images"].transpose(0, 3, 1, 2)
    network, post = (open_session(onnx.load(artifact.files[name])) for name in ("onnx", "post"))
    heads = run_session(network, {network.get_inputs()[0].name: images})
    found = run_session(post, heads)
    units = artifact.built.lowered.outputs
    detector = artifact.built.checkpoint.detector
    assert detector is not None and [u.tensor for u in units] == list(heads)
    expected = post_process(*(heads[u.tensor] * float(u.scale) for u in units), detector)
    assert found["counts"].tolist() == [len(e) for e in expected] and found["counts"].max() > 3
    for image, want in enumerate(expected):
        n = len(want)
        assert np.array_equal(found["labels"][image, :n], want.labels)
        assert np.allclose(found["scores"][image, :n], want.scores, rtol=1e-5)
        assert np.allclose(found["boxes"][image, :n], want.boxes, atol=1e-5)


def test_files_say_which_detector_they_belong_to(artifact: Artifact) -> None:
    assert set(artifact.files) == {"onnx", "qpk", "post"} and "post.onnx" in artifact.report["files"]
    for name in ("onnx", "post"):
        properties = {p.key: p.value for p in onnx.load(artifact.files[name]).metadata_props}
        assert Detector.from_dict(json.loads(properties["qexport.detector"])) == artifact.built.checkpoint.detector
        assert properties["qexport.source_sha256"] == artifact.built.checkpoint.sha256
    assert properties["qexport.format"] == "onnx-post-process"


@pytest.fixture(scope="module")
def report(artifact: Artifact, checkpoint: Path, scenes: Path) -> Report:
    files = [artifact.files[name] for name in ("onnx", "qpk", "post")]
    return validate(files, checkpoint=checkpoint, data=scenes)


def test_every_level_is_judged_by_its_boxes(artifact: Artifact, report: Report) -> None:
    assert report.passed and report.detects and report.labelled
    levels = {level.name: level for level in report.levels}
    assert list(levels) == LEVELS
    assert all(level.mean_ap is not None and level.top1 is None for level in report.levels)
    frozen, integer = levels["frozen"].mean_ap, levels["integer"].mean_ap
    assert frozen is not None and integer is not None
    assert 20 < frozen.voc < 99.9 and abs(integer.voc - frozen.voc) < 2
    for name in ("model.onnx", "model.qpk", "post.onnx"):
        assert levels[name].mean_ap == integer and levels[name].agreement == 100
    assert levels["float"].mean_ap != frozen, "the soft network is another one"
    outputs = {(o.output, o.level): o for o in report.outputs}
    names = artifact.built.graph.outputs
    assert len(names) == 2 and set(outputs) == {(n, level) for n in names for level in LEVELS[:-1] if level != "frozen"}
    for name in names:
        assert outputs[name, "integer"] == type(outputs[name, "integer"])(
            name, "integer", outputs[name, "model.onnx"].largest, outputs[name, "model.onnx"].sqnr_db
        )
        assert outputs[name, "float"].largest > 10 * outputs[name, "integer"].largest > 0
    assert "mAP@0.5" in html_report(report)


def test_a_damaged_score_head_is_found(artifact: Artifact, checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    """The second output is compared as the first is."""
    model = onnx.load(artifact.files["onnx"])
    name = artifact.built.graph.outputs[1]
    node = next(n for n in model.graph.node if name in n.output)
    node.output[list(node.output).index(name)] = f"{name}/before"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int32), "one"))
    model.graph.node.append(onnx.helper.make_node("Add", [f"{name}/before", "one"], [name]))
    onnx.save(model, tmp_path / "model.onnx")
    report = validate([tmp_path / "model.onnx"], checkpoint=checkpoint, data=scenes, limit=4)
    assert not report.passed and f"{name} (optimized)" in report.artifacts[0].differing
    assert all(key.startswith(name) for key in report.artifacts[0].differing)


def test_the_command_prints_map_and_max_drop_is_about_it(
    artifact: Artifact, report: Report, checkpoint: Path, scenes: Path
) -> None:
    before, after = (level.mean_ap.voc for level in report.levels if level.name in ("float", "integer"))
    assert before > after + 1, "what is right was taken from the soft network"
    arguments = ["validate", artifact.files["onnx"], "--checkpoint", checkpoint, "--data", scenes]
    arguments += ["--max-drop", (before - after) / 2]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 1 and f"mAP@0.5 falls by {before - after:.2f} points" in result.output
    assert "COCO mAP" in result.output and "top-1" not in result.output


def test_images_alone_give_agreement_only(artifact: Artifact, checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.load(scenes)["images"][:4])
    report = validate([artifact.files["post"]], checkpoint=checkpoint, data=tmp_path / "images.npy")
    assert report.passed and not report.labelled
    assert [level.mean_ap for level in report.levels] == [None] * 5
    assert report.levels[-1].agreement == 100


def test_data_of_the_other_task_are_refused(artifact: Artifact, checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    images = np.load(scenes)["images"]
    np.savez(tmp_path / "classes.npz", images=images, labels=np.zeros(len(images), int))
    with pytest.raises(DataError, match="one label each, but the network detects objects"):
        validate([artifact.files["onnx"]], checkpoint=checkpoint, data=tmp_path / "classes.npz")
    arrays = dict(np.load(scenes))
    arrays["labels"] = arrays["labels"] + 3
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(DataError, match="a label lies outside the network's classes"):
        validate([artifact.files["onnx"]], checkpoint=checkpoint, data=tmp_path / "other.npz")


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    file = save_detector(tmp_path / "ssd.pt")
    content = torch.load(file, weights_only=True)
    for damaged in ({**content["detector"], "n_classes": 0}, {"grids": 3}, "none"):
        torch.save({**content, "detector": damaged}, file)
        with pytest.raises(CheckpointError, match="detector"):
            load_checkpoint(file)


def test_a_checkpoint_without_description_has_its_networks_own(tmp_path: Path) -> None:
    file = save_detector(tmp_path / "ssd.pt")
    content = torch.load(file, weights_only=True)
    del content["detector"]
    torch.save(content, file)
    checkpoint = load_checkpoint(file)
    assert checkpoint.detector == checkpoint.model.detector


@pytest.mark.parametrize("name", ["onnx", "qpk"])
def test_run_shows_objects(name: str, artifact: Artifact, scenes: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner(env={"COLUMNS": "120"}).invoke(main, ["run", *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    found = json.loads(run(artifact.files[name], "--input", scenes, "--top", 3, "--json"))
    assert len(found) == N_IMAGES and max(map(len, found)) == 3
    best = found[0][0]
    assert best["name"] == "abc"[best["index"]] and 0 < best["score"] <= 1
    assert all(0 <= corner <= SIZE for corner in best["box"])
    assert best["score"] == max(one["score"] for one in found[0])
    lines = run(artifact.files[name], "--input", scenes, "--top", 1).splitlines()
    assert len(lines) == N_IMAGES and f"{best['name']} {best['score']:.2f} at {best['box'][0]:.1f}," in lines[0]
    np.save(tmp_path / "one.npy", np.load(scenes)["images"][0])
    assert "probability" in run(artifact.files[name], "--input", tmp_path / "one.npy")


def test_run_wants_the_network_not_its_post_process(artifact: Artifact, scenes: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(artifact.files["post"]), "--input", str(scenes)])
    assert result.exit_code == 1 and "takes heads, not images" in result.output
