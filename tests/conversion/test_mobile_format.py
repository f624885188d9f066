"""--format ort: what ONNX Runtime makes for phones gives the outputs of model.onnx, and nothing partial stays."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from digits_checkpoint import save_digits

from qexport import convert
from qexport.backends.onnx import mobile
from qexport.backends.onnx.mobile import CONFIG_NAME
from qexport.checkpoints import save_native
from qexport.cli.main import main
from qexport.conversion import Artifact
from qexport.errors import ArtifactError
from qexport.models.papers import PAIRS, SMALL_INPUTS
from qexport.models.registry import architecture
from qexport.models.seeded import random_images, seeded


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_digits(tmp_path_factory.mktemp("digits") / "digits.pt")


def run(path: Path, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})


def operators_of(config: Path) -> set[str]:
    """Names in a reduced-operator configuration."""
    lines = [line for line in config.read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[a-z.]+;\d+;\w+(,\w+)*", line) for line in lines), lines
    return {name for line in lines for name in line.split(";")[2].split(",")}


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return convert(checkpoint, tmp_path_factory.mktemp("ort"), bits=2, formats=("onnx", "ort"))


def test_outputs_are_those_of_the_onnx_file(artifact: Artifact) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 1, 8, 8), np.uint8)
    expected, found = (run(artifact.files[name], images) for name in ("onnx", "ort"))
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True)) and expected[0].any()
    (one,) = run(artifact.files["ort"], images[:1])
    assert np.array_equal(one, expected[0][:1]), "the batch stays open"


def test_what_is_written(artifact: Artifact) -> None:
    """The model names no folder of the machine that made it, and the configuration is always the same."""
    config = artifact.files["ort-config"]
    assert config.name == CONFIG_NAME and {"ConvInteger", "MatMulInteger"} <= operators_of(config)
    assert config.read_text().splitlines()[0] == "# model.ort"
    assert str(Path(tempfile.gettempdir())).encode() not in artifact.files["ort"].read_bytes()
    assert set(artifact.report["files"]) == {"model.onnx", "model.ort", CONFIG_NAME}
    assert any("unpacks" in note for note in artifact.report["notes"])


def test_nothing_stays_where_the_tool_fails(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobile, "_TOOL", "onnxruntime.tools.no_such_tool")
    with pytest.raises(ArtifactError, match="No module named") as error:
        convert(checkpoint, tmp_path / "out", bits=2, formats=("onnx", "ort"))
    assert "leave out --format ort" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another network in its place."""
    other = save_digits(tmp_path / "other.pt", weight_only=True)
    convert(other, tmp_path / "other", weight_bits=2, formats=("ort",))
    convert_really = mobile._convert

    def exchange(given: Path, made: Path) -> None:
        convert_really(given, made)
        (made / "model.ort").write_bytes((tmp_path / "other" / "model.ort").read_bytes())

    monkeypatch.setattr(mobile, "_convert", exchange)
    with pytest.raises(ArtifactError, match="computes something else"):
        convert(checkpoint, tmp_path / "out", bits=2, formats=("ort",))
    assert not (tmp_path / "out").exists()


def test_command(checkpoint: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["convert", str(checkpoint), "--bits", "2", "--format", "ort", "-o", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "model.ort" in done.output and CONFIG_NAME in done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["model.ort", "report.json", CONFIG_NAME]


@pytest.mark.slow
def test_a_detector_brings_its_post_process(tmp_path: Path) -> None:
    chosen, small = PAIRS["daq-w2a2"], SMALL_INPUTS["ssd_small"]
    arch, arguments = f"{chosen.scheme}-ssd_small", {**small.arguments, **chosen.arguments}
    model, data = seeded(arch, input_shape=small.input_shape, **arguments), architecture(arch).preprocessing
    path = tmp_path / "ssd.pt"
    save_native(
        path, model, arch=arch, arguments=arguments, input_shape=small.input_shape, mean=data.mean, std=data.std
    )
    images = random_images(small.input_shape, 4).numpy()
    artifact = convert(path, tmp_path / "out", formats=("onnx", "ort"), calibration_data=images)
    heads = [run(artifact.files[name], images.astype(np.uint8)) for name in ("onnx", "ort")]
    found = []
    for name, outputs in zip(("post", "ort-post"), heads, strict=True):
        session = onnxruntime.InferenceSession(artifact.files[name], providers=["CPUExecutionProvider"])
        found.append(session.run(None, dict(zip([x.name for x in session.get_inputs()], outputs, strict=True))))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    assert {"ConvInteger", "NonMaxSuppression"} <= operators_of(artifact.files["ort-config"])
