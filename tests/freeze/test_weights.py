"""Weights beside a threshold are counted, whatever kind of quantizer they meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qexport.freeze.weights import count_near_thresholds
from qexport.levels import recover_weight
from qexport.models.quantizers import DAQWeightQuantizer, QNQuantizer, SoftQuantizer


class Ternary(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return (w > 0.25).float() - (w < -0.25).float()


class TernarySoft(SoftQuantizer):
    """A subclass that cannot say where its thresholds are."""

    def hard(self, x: Tensor) -> Tensor:
        return (x > 0.25).float() - (x < -0.25).float()


class StandardisedTernary(nn.Module):
    """Thresholds at mean +- std / 4; the scale is taken from the tensor too."""

    def forward(self, w: Tensor) -> Tensor:
        normal = (w - w.mean()) / w.std()
        return ((normal > 0.25).float() - (normal < -0.25).float()) * w.abs().mean()


class DoReFaSign(nn.Module):
    """Per-channel scale, so no function of one value."""

    def forward(self, w: Tensor) -> Tensor:
        return torch.where(w > 0, 1.0, -1.0) * w.abs().mean((1, 2, 3), keepdim=True)


def weights_far_from(thresholds: list[float]) -> Tensor:
    w = torch.rand(16, 8, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for t in thresholds:
        w[(w - t).abs() < 1e-3] = 0.9
    return w


def count(quantizer: nn.Module, weight: Tensor) -> int:
    quantizer.eval()
    with torch.no_grad():
        quantized = recover_weight(quantizer(weight).numpy(), "w", known_quantized=True)
    assert quantized is not None
    return count_near_thresholds(quantizer, weight, quantized, "w")


@pytest.mark.parametrize(
    "quantizer", [Ternary(), TernarySoft(), QNQuantizer([-1, 0, 1])], ids=lambda q: type(q).__name__
)
def test_elementwise(quantizer: nn.Module) -> None:
    threshold = 0.5 if isinstance(quantizer, QNQuantizer) else 0.25
    weight = weights_far_from([threshold, -threshold])
    assert count(quantizer, weight) == 0
    planted = [threshold, -threshold, threshold + 5e-7, -threshold - 5e-7, threshold + 3e-6]
    weight.view(-1)[: len(planted)] = torch.tensor(planted)
    assert count(quantizer, weight) == 4


def test_threshold_of_a_tensor_wide_scheme() -> None:
    quantizer = StandardisedTernary()
    weight = weights_far_from([])
    edge = float(weight.mean() + weight.std() / 4)
    weight[(weight - edge).abs() < 1e-3] = 0.9
    before = count(quantizer, weight)
    for _ in range(20):  # planting a weight moves mean and deviation, and with them the edge
        weight.view(-1)[0] = float(weight.double().mean() + weight.double().std() / 4)
    assert count(quantizer, weight) == before + 1


def test_per_channel_scheme() -> None:
    weight = weights_far_from([0.0])
    assert count(DoReFaSign(), weight) == 0
    weight.view(-1)[5] = 2e-7
    assert count(DoReFaSign(), weight) == 1


def test_daq_answers_itself() -> None:
    quantizer = DAQWeightQuantizer(1)
    weight = weights_far_from([])
    weight = weight - weight.mean()
    expected = int((quantizer.position(weight).double() - 0.5).abs().le(1e-6 / 6).sum())
    assert count(quantizer, weight) == expected


def test_no_weights() -> None:
    weight = torch.zeros(0, 3)
    quantized = recover_weight(np.zeros((0, 3), np.float32), "w", known_quantized=True)
    assert quantized is not None
    assert count_near_thresholds(Ternary(), weight, quantized, "w") == 0
