"""Real checkpoints freeze without a changed bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from qexport.checkpoints import load_checkpoint
from qexport.freeze.model import freeze

CHECKPOINTS = Path(os.environ.get("QEXPORT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "checkpoints"


@pytest.mark.parametrize(
    ("file", "options", "level_set", "near"),
    [
        ("daq/cifar10_W1A1.pth", {"weight_bits": 1, "act_bits": 1}, (-1, 1), 356),
        ("daq/cifar10_W1A32.pth", {"weight_bits": 1}, (-1, 1), 391),
        ("qn/resnet20_w2t_a2.pth", {}, (-1, 0, 1), 3),
        ("qn/resnet20_w3.pth", {"weight_levels": [-4, -2, -1, 0, 1, 2, 4]}, (-4, -2, -1, 0, 1, 2, 4), 1),
    ],
)
def test_real_checkpoints(file: str, options: dict, level_set: tuple[int, ...], near: int) -> None:
    if not (CHECKPOINTS / file).exists():
        pytest.skip(f"needs {file}; set QEXPORT_TEST_DATA to the data directory")
    model = load_checkpoint(CHECKPOINTS / file, **options).model
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    frozen = freeze(model, images[:1])
    with torch.no_grad():
        assert torch.equal(model(images), frozen.module(images))
    assert len(frozen.weights) == 18
    assert {weight.level_set for weight in frozen.weights.values()} == {level_set}
    assert not any(weight.is_fitted for weight in frozen.weights.values())
    assert sum(frozen.near_thresholds.values()) == near
