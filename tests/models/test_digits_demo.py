"""The digits, the trainer and the committed demo network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from qexport.checkpoints import load_checkpoint
from qexport.errors import DataError
from qexport.models.quantizers import set_soft
from qexport.models.train import main

pytest.importorskip("sklearn", reason="the handwritten digits come with scikit-learn (extra 'demo')")

from qexport.models.digits_data import load_digits_split
from qexport.models.digits_data import main as write_digits
from qexport.models.training import DAQScheme, QNScheme, Settings, accuracy, digits, from_npz, train
from qexport.models.training.data import Samples

DEMO = Path(__file__).resolve().parents[2] / "models" / "checkpoints" / "digits_w2a2.pt"


def test_split_is_disjoint_and_complete() -> None:
    train, test = (load_digits_split(side) for side in ("train", "test"))
    assert len(train[1]) + len(test[1]) == 1797 and len(test[1]) == 359
    assert train[0].dtype == np.uint8 and train[0].shape[1:] == (8, 8, 1)
    assert set(np.bincount(test[1])) <= {35, 36, 37}, "a fifth of every class"
    again = load_digits_split("test")
    assert np.array_equal(test[0], again[0]) and np.array_equal(test[1], again[1])


@pytest.mark.parametrize("soft", [False, True])
def test_demo_network_reads_held_out_digits(soft: bool) -> None:
    checkpoint = load_checkpoint(DEMO)
    assert checkpoint.family == "native" and checkpoint.temperature is not None
    assert checkpoint.class_names == tuple("0123456789")
    samples = digits()
    assert (samples.mean, samples.std) == (checkpoint.mean, checkpoint.std)
    assert accuracy(checkpoint.model, samples, samples.held_out, soft=soft) >= 0.97


@pytest.mark.parametrize(
    "options",
    [("--scheme", "qn", "--weight-levels=-1,0,1", "--act-bits", "2"), ("--scheme", "qn")],
    ids=["qn-w2a2", "float"],
)
def test_a_short_run_learns_and_loads_again(options: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    arguments = ["--arch", "digits", "--epochs", "8", "--temperature-step", "10", *options, "-o", str(file)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(file)
    samples = digits()
    set_soft(checkpoint.model, False)
    torch.manual_seed(0)
    assert accuracy(checkpoint.model, samples, samples.held_out) > 0.6


def test_options_of_the_other_scheme_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--scheme", "qn", "--weight-bits", "2", "-o", str(tmp_path / "net.pt")])
    assert result.exit_code == 1 and "--weight-levels" in result.output
    assert not list(tmp_path.iterdir())


def test_a_missing_directory_is_refused_before_training(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["-o", str(tmp_path / "absent" / "net.pt")])
    assert result.exit_code == 1 and "no such directory" in result.output


def test_same_seed_same_weights_whatever_the_threads_of_the_process() -> None:
    """And the caller's threads and random numbers stay as they were."""
    samples = digits()
    few = replace(samples, train=Samples(samples.train.images[:128], samples.train.labels[:128]))
    threads = torch.get_num_threads()
    runs = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            before = torch.random.get_rng_state()
            scheme = QNScheme((-1, 0, 1), (0, 1, 2, 3), temperature_step=5)
            runs.append(train("digits", scheme, few, Settings(epochs=3), lambda *_: None).model.state_dict())
            assert torch.get_num_threads() == n
            assert torch.equal(torch.random.get_rng_state(), before)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())


def test_daq_learns() -> None:
    samples = digits()
    trained = train("resnet20", DAQScheme(2, 2), samples, Settings(epochs=4), lambda *_: None)
    assert accuracy(trained.model, samples, samples.held_out) > 0.6


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((10, 8, 8, 1), np.uint8)}, "no labels to train on"),
        ({"images": np.zeros((10, 8, 8, 1), np.float32), "labels": np.zeros(10, int)}, "no images to train on"),
        ({"images": np.zeros((2, 8, 8, 1), np.uint8), "labels": np.arange(2)}, "too few images to hold some out"),
        ({"images": np.zeros((30, 8, 8, 1), np.uint8), "labels": np.zeros(30, int)}, "another number of classes"),
        ({"images": np.zeros((30, 8, 8, 3), np.uint8), "labels": np.zeros(30, int)}, "does not take these images"),
    ],
    ids=["unlabelled", "floats", "few", "classes", "channels"],
)
def test_unusable_data_is_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    file = npz(tmp_path / "data.npz", **arrays)
    result = CliRunner().invoke(main, ["--data", str(file), "-o", str(tmp_path / "net.pt")])
    assert result.exit_code == 1 and message in result.output
    assert not (tmp_path / "net.pt").exists()


def test_written_digits_are_read_again(tmp_path: Path) -> None:
    """The data command's file is what the trainer takes, and nothing else is left beside it."""
    file = tmp_path / "test.npz"
    result = CliRunner().invoke(write_digits, [str(file), "--split", "test"])
    assert result.exit_code == 0 and [p.name for p in tmp_path.iterdir()] == ["test.npz"]
    data = from_npz(file)
    assert len(data.train.labels) + len(data.held_out.labels) == 359
    assert data.input_shape == (1, 8, 8) and data.class_names == tuple("0123456789")


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="scikit-learn, which is not installed"):
        load_digits_split("test")


def test_unwritable_npz(tmp_path: Path) -> None:
    result = CliRunner().invoke(write_digits, [str(tmp_path / "absent" / "x.npz")])
    assert result.exit_code == 1 and "cannot be written" in result.output
