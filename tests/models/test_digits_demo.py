"""The digits, the trainer and the committed demo network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from qexport.checkpoints import load_checkpoint
from qexport.models.quantizers import set_soft
from qexport.models.train import main

pytest.importorskip("sklearn", reason="the handwritten digits come with scikit-learn (extra 'demo')")

from qexport.models.digits_data import load_digits_split
from qexport.models.training import accuracy, digits

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
