"""The real checkpoints of other people reproduce the logits that the original code gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qexport.checkpoints import Checkpoint, load_checkpoint
from qexport.errors import OptionError
from qexport.models.quantizers import DAQWeightQuantizer, QuantConv2d, set_soft

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
W3_LEVELS = (-4, -2, -1, 0, 1, 2, 4)

# file, arguments, logits, accuracy of the original in percent
FILES: list[tuple[str, dict[str, Any], str, float]] = [
    ("daq/cifar10_W1A1.pth", {"weight_bits": 1, "act_bits": 1}, "daq/cifar10_W1A1", 88.02),
    ("daq/cifar10_W1A32.pth", {"weight_bits": 1, "act_bits": 1}, "daq/cifar10_W1A32", 92.34),
    ("qn/resnet20_w2t.pth", {}, "qn/resnet20_w2t", 89.00),
    ("qn/resnet20_w2t_legacy.pth", {}, "qn/resnet20_w2t", 89.00),
    ("qn/resnet20_w2t_a2.pth", {}, "qn/resnet20_w2t_a2", 76.82),
    ("qn/resnet20_w3.pth", {"weight_levels": W3_LEVELS}, "qn/resnet20_w3", 89.78),
]


@pytest.fixture(scope="module")
def images(data_dir: Path) -> torch.Tensor:
    """float32 [509, 3, 32, 32], normalised."""
    pixels = torch.from_numpy(np.load(data_dir / "cifar10" / "test.npz")["images"]).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels.contiguous().float() / 255 - mean) / std


@pytest.fixture(scope="module")
def labels(data_dir: Path) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.load(data_dir / "cifar10" / "test.npz")["labels"]
    return found


def load(data_dir: Path, file: str, **arguments: Any) -> Checkpoint:
    return load_checkpoint(data_dir / "checkpoints" / file, mean=MEAN, std=STD, **arguments)


def logits(checkpoint: Checkpoint, images: torch.Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        return torch.cat([checkpoint.model(batch) for batch in images.split(128)]).numpy()


@pytest.mark.parametrize(("file", "arguments", "golden", "accuracy"), FILES, ids=[f[0] for f in FILES])
def test_golden_logits(
    data_dir: Path,
    images: torch.Tensor,
    labels: NDArray[np.int64],
    file: str,
    arguments: dict[str, Any],
    golden: str,
    accuracy: float,
) -> None:
    checkpoint = load(data_dir, file, **arguments)
    assert checkpoint.family == file.split("/")[0]
    assert checkpoint.arch == f"{checkpoint.family}-resnet20"
    assert checkpoint.input_shape == (3, 32, 32) and checkpoint.mean == MEAN and checkpoint.std == STD
    assert not checkpoint.model.training and len(checkpoint.sha256) == 64
    got, expected = logits(checkpoint, images), np.load(data_dir / "checkpoints" / f"{golden}.logits.npy")
    assert np.abs(got - expected).max() < 1e-4
    np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))
    assert round(100 * float((got.argmax(1) == labels).mean()), 2) == accuracy


def test_float_daq_checkpoint_loads_too(data_dir: Path, images: torch.Tensor, labels: NDArray[np.int64]) -> None:
    checkpoint = load(data_dir, "daq/cifar10_fp.pth")
    assert "neither weights nor activations are quantized in this checkpoint" in checkpoint.notes
    assert checkpoint.temperature is None
    assert (logits(checkpoint, images).argmax(1) == labels).mean() > 0.9


def test_weight_codes_equal_those_of_the_original_arithmetic(data_dir: Path) -> None:
    """Our float64 mean and the original's float32 mean give the same code for every weight of both public files."""
    for file in ("daq/cifar10_W1A1.pth", "daq/cifar10_W1A32.pth"):
        checkpoint = load(data_dir, file, weight_bits=1, act_bits=1)
        near = 0
        for layer in checkpoint.model.modules():
            if not isinstance(layer, QuantConv2d) or not isinstance(layer.weight_quantizer, DAQWeightQuantizer):
                continue
            quantizer, weight = layer.weight_quantizer, layer.weight.detach()
            lower, upper = quantizer.lower.detach(), quantizer.upper.detach()
            normalised = (weight - weight.mean()) / weight.std()
            v = (torch.clamp(normalised, lower, upper) - lower) / (upper - lower)
            original = 2 * (torch.floor(v) + torch.round(v - torch.floor(v))) - 1
            assert torch.equal(quantizer(layer.weight).detach(), original)
            near += quantizer.near_threshold(weight, 1e-7)
        assert 10 < near < 100


def test_soft_network_at_its_last_temperature_differs_from_the_hard_one(data_dir: Path, images: torch.Tensor) -> None:
    """The quantizer gap: large for the W2A2 Quantization Network at T = 80, rounding only for DAQ."""
    qn = load(data_dir, "qn/resnet20_w2t_a2.pth", temperature=80.0)
    daq = load(data_dir, "daq/cifar10_W1A1.pth", weight_bits=1, act_bits=1)
    agreement = []
    for checkpoint in (qn, daq):
        hard = logits(checkpoint, images[:200])
        set_soft(checkpoint.model, True)
        agreement.append((logits(checkpoint, images[:200]).argmax(1) == hard.argmax(1)).mean())
    assert 0.6 < agreement[0] < 0.9
    assert agreement[1] == 1.0


def test_missing_bits_are_asked_for(data_dir: Path) -> None:
    with pytest.raises(OptionError, match=r"how many bits its weights have[\s\S]*say --bits N, or --weight-bits N"):
        load(data_dir, "daq/cifar10_W1A1.pth")
    with pytest.raises(OptionError, match=r"how many bits its activations have[\s\S]*--act-bits N"):
        load(data_dir, "daq/cifar10_W1A1.pth", weight_bits=1)
    assert load(data_dir, "daq/cifar10_W1A32.pth", weight_bits=1).family == "daq"


def test_ambiguous_levels_are_asked_for(data_dir: Path) -> None:
    with pytest.raises(OptionError, match=r"6 thresholds in each of 18 layers[\s\S]*--weight-levels=-3,-2,-1,0,1,2,3"):
        load(data_dir, "qn/resnet20_w3.pth")
    with pytest.raises(OptionError, match=r"3 levels, which need 2 thresholds; layer 0 has 6[\s\S]*7 levels"):
        load(data_dir, "qn/resnet20_w3.pth", weight_levels=(-1, 0, 1))


def test_other_architecture_than_demanded(data_dir: Path) -> None:
    with pytest.raises(OptionError, match=r"another network than --arch says[\s\S]*qn-resnet20"):
        load(data_dir, "qn/resnet20_w2t.pth", arch="qn-resnet56")
    with pytest.raises(OptionError, match=r"unknown architecture[\s\S]*one of daq-[\s\S]*qn-resnet20"):
        load(data_dir, "qn/resnet20_w2t.pth", arch="resnet18")
    assert load(data_dir, "qn/resnet20_w2t.pth", arch="qn-resnet20").arch == "qn-resnet20"
