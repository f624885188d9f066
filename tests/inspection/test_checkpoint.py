"""What is said about a checkpoint is what it freezes to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from qexport.conversion import Artifact
from qexport.errors import OptionError
from qexport.inspection.checkpoint import describe_checkpoint


def test_layers_are_those_of_the_conversion(checkpoint: Path, artifact: Artifact) -> None:
    found = describe_checkpoint(checkpoint, bits=2)
    for ours, converted in zip(found["layers"], artifact.report["layers"], strict=True):
        assert ours["shape"] == converted["shape"] and ours["macs"] == converted["macs"]
        assert ours["levels"] == converted["levels"]
        assert ours["weight_bits"] is None if converted["edge"] else ours["weight_bits"] == converted["weight_bits"]
    assert found["sizes"] == {k: artifact.report["sizes"][k] for k in ("weights", "float32_bytes", "macs")}
    assert found["sha256"] == artifact.report["checkpoint"]["sha256"]


def test_quantizers_are_the_frozen_ones(checkpoint: Path, artifact: Artifact) -> None:
    found = {row["name"]: row for row in describe_checkpoint(checkpoint)["quantizers"]}
    activations = artifact.built.frozen.activations
    assert set(found) == set(activations)
    for name, step in activations.items():
        assert found[name]["thresholds"] == step.thresholds.tolist() and found[name]["levels"] == step.levels.tolist()


def test_the_size_of_an_image_must_be_known(tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    torch.save(nn.Linear(4, 2).state_dict(), path)
    with pytest.raises(OptionError, match=r"plain\.pt: .*size of its images[\s\S]*--input-shape C,H,W"):
        describe_checkpoint(path, model=lambda: nn.Linear(4, 2))
    found = describe_checkpoint(path, model=lambda: nn.Linear(4, 2), input_shape=(1, 3, 4))
    assert [(row["name"], row["macs"], row["weight_bits"]) for row in found["layers"]] == [("", 8 * 3, None)]
