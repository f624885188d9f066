"""The trainer: resume, detectors, folders, batch-norm statistics, devices; learning itself is test_digits_demo's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from qexport.checkpoints import load_checkpoint
from qexport.errors import CheckpointError, OptionError
from qexport.models.quantizers import QNQuantizer
from qexport.models.train import main
from qexport.models.training import DAQScheme, QNScheme, Settings, TrainingData, from_folder, from_npz, train
from qexport.models.training.data import Samples
from qexport.models.training.loop import measure_norms


def random_data(n: int = 40, classes: int = 3, size: int = 8) -> TrainingData:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, size, size), generator=random, dtype=torch.uint8)
    samples = Samples(images, torch.arange(n) % classes)
    return TrainingData(samples, samples, tuple("abc"[:classes]), (0.5,), (0.29,))


class StopError(Exception):
    """Thrown to interrupt a training."""


def stop_after(phase: str, epoch: int) -> Callable[[str, int, float], None]:
    def report(now: str, at: int, loss: float) -> None:
        if (now, at) == (phase, epoch):
            raise StopError

    return report


def ignore(*_: object) -> None:
    pass


SETTINGS = Settings(epochs=6, batch_size=16, max_shift=1, device="cpu")
QN = QNScheme((-1, 0, 1), (0, 1, 2, 3), temperature_step=5)


@pytest.mark.parametrize(
    ("scheme", "arch", "phase", "epoch"),
    [
        (QN, "digits", "float", 1),
        (QN, "digits", "+ weights", 2),
        (QN, "digits", "+ acts", 3),
        (DAQScheme(2, 2), "digits", "quantized", 2),
    ],
    ids=["in the first phase", "at the end of a phase", "at the very end", "daq"],
)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_interrupted_training_ends_with_the_same_bits(
    scheme: QNScheme | DAQScheme, arch: str, phase: str, epoch: int, optimizer: str, tmp_path: Path
) -> None:
    data = replace(random_data(classes=3), class_names=tuple("0123456789"))
    settings = replace(SETTINGS, optimizer=optimizer)
    expected = train(arch, scheme, data, settings, ignore).model.state_dict()
    state = tmp_path / "state"
    with pytest.raises(StopError):
        train(arch, scheme, data, settings, stop_after(phase, epoch), state)
    seen: list[tuple[str, int]] = []
    resumed = train(arch, scheme, data, settings, lambda p, e, _: seen.append((p, e)), state)
    assert (phase, epoch) not in seen and len(seen) < 6
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.model.state_dict().items())
    temperatures = {m.temperature for m in resumed.model.modules() if isinstance(m, QNQuantizer)}
    assert temperatures <= {resumed.temperature}
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    data = replace(random_data(), class_names=tuple("0123456789"))
    state = tmp_path / "state"
    with pytest.raises(StopError):
        train("digits", QN, data, SETTINGS, stop_after("float", 1), state)
    with pytest.raises(OptionError, match=r"another training(.|\n)*got: +seed 0\n +expected: seed 7"):
        train("digits", QN, data, replace(SETTINGS, seed=7), ignore, state)
    other = replace(data, train=Samples(data.train.images.flip(0), data.train.labels))
    with pytest.raises(OptionError, match=r"another training(.|\n)*got: +data "):
        train("digits", QN, other, SETTINGS, ignore, state)
    state.write_bytes(b"no state at all")
    with pytest.raises(CheckpointError, match="not a training state"):
        train("digits", QN, data, SETTINGS, ignore, state)


def test_norms_are_measured_with_hard_quantizers() -> None:
    """The statistics of a layer behind a quantizer are those of its hard values, exactly."""
    data = random_data()
    quantizer = QNQuantizer((0, 1, 2))
    quantizer.temperature = 0.1
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(quantizer, norm)
    measure_norms(model, data)
    with torch.no_grad():
        hard = quantizer.hard(data.normalised(data.train.images))
    assert torch.allclose(norm.running_mean, hard.mean(), atol=1e-6)
    assert torch.allclose(norm.running_var, hard.var(), atol=1e-6)
    assert norm.momentum == 0.1 and not model.training


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Settings(epochs=1).torch_device.type == "cpu"
    with pytest.raises(OptionError, match="torch finds no GPU"):
        _ = Settings(epochs=1, device="cuda").torch_device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_trains() -> None:
    trained = train("digits", QN, random_data(), replace(SETTINGS, device="cuda"), ignore)
    assert {p.device.type for p in trained.model.parameters()} == {"cpu"}


def save_classes(root: Path, size: int = 8, count: int = 6) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (size, size, 3)).astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_a_folder_of_images_is_trained_on(tmp_path: Path) -> None:
    folder = save_classes(tmp_path / "images", size=16)
    data = from_folder(folder)
    assert data.input_shape == (3, 16, 16) and data.class_names == ("cat", "dog")
    assert (len(data.train.images), len(data.held_out.images)) == (10, 2)
    file = tmp_path / "net.pt"
    options = ("--scheme", "daq", "--weight-bits", 2, "--act-bits", 2, "--epochs", 2)
    result = run("--arch", "resnet20", "--data", folder, *options, "-o", file)
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(file)
    assert checkpoint.class_names == ("cat", "dog") and checkpoint.input_shape == (3, 16, 16)
    assert checkpoint.detector is None


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    folder = save_classes(tmp_path / "images")
    result = run("--data", folder / "cat", "-o", tmp_path / "net.pt")
    assert result.exit_code == 1 and "one folder of images per class" in result.output


def save_scenes(path: Path, count: int = 20, size: int = 32) -> Path:
    """Bright squares of two sizes, one or two an image, on noise."""
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (count, size, size, 1)).astype(np.uint8)
    boxes, labels, offsets = [], [], [0]
    for i in range(count):
        for _ in range(1 + i % 2):
            label = int(random.integers(2))
            side = (6, 12)[label]
            x, y = random.integers(0, size - side, 2)
            images[i, y : y + side, x : x + side] = 250
            boxes.append([x, y, x + side, y + side])
            labels.append(label)
        offsets.append(len(labels))
    np.savez(path, images=images, boxes=np.array(boxes, np.float32), labels=labels, offsets=offsets)
    return path


@pytest.mark.parametrize(
    "options",
    [("--scheme", "qn", "--weight-levels=-1,0,1", "--act-bits", 2), ("--scheme", "daq", "--weight-bits", 2)],
    ids=["qn", "daq"],
)
def test_a_detector_is_trained_and_describes_itself(options: tuple[object, ...], tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    data = save_scenes(tmp_path / "scenes.npz")
    result = run("--arch", "ssd_small", "--data", data, "--epochs", 3, *options, "-o", file)
    assert result.exit_code == 0, result.output
    assert "held-out mAP@0.5: soft" in result.output
    checkpoint = load_checkpoint(file)
    assert checkpoint.detector is not None and checkpoint.detector == checkpoint.model.detector
    assert checkpoint.detector.n_classes == 3 and checkpoint.class_names == ("0", "1")
    assert checkpoint.detector.n_priors == (8 * 8 + 4 * 4) * 2
    locations, scores = checkpoint.model(torch.zeros(1, 1, 32, 32))
    assert locations.shape == (1, 160, 4) and scores.shape == (1, 160, 3)


def test_data_of_the_other_task_are_refused(tmp_path: Path) -> None:
    scenes = save_scenes(tmp_path / "scenes.npz")
    assert from_npz(scenes).train.labels is None
    result = run("--arch", "digits", "--data", scenes, "-o", tmp_path / "net.pt")
    assert result.exit_code == 1 and "the architecture is no detector" in result.output
    classes = tmp_path / "classes.npz"
    np.savez(classes, images=np.zeros((20, 32, 32, 1), np.uint8), labels=np.arange(20) % 2)
    result = run("--arch", "ssd_small", "--data", classes, "-o", tmp_path / "net.pt")
    assert result.exit_code == 1 and "the architecture is no classifier" in result.output
    assert not (tmp_path / "net.pt").exists()
