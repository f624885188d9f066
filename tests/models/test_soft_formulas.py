"""Soft quantizers against the papers' formulas, written here a second time: values, and gradients by other means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from qexport.models.quantizers import DAQActivationQuantizer, DAQWeightQuantizer, QNQuantizer
from qexport.models.quantizers.daq import soft_round

SIGMA = 2.0

LEVELS = [(-1, 1), (-1, 0, 1), (-2, -1, 0, 1, 2), (-4, -2, -1, 0, 1, 2, 4), (0, 1), (0, 1, 2, 3)]


def quantization_networks(
    x: NDArray, levels: Sequence[int], alpha: float, beta: float, biases: NDArray, temperature: float
) -> NDArray:
    """Equation (3): y = alpha (sum_i s_i sigmoid(T (beta x - b_i)) - o), by tanh instead of torch's sigmoid."""
    gates = 0.5 + 0.5 * np.tanh(0.5 * temperature * (beta * x[:, None] - biases))
    return alpha * ((gates * np.diff(levels)).sum(1) + levels[0])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_quantization_networks_by_finite_differences(levels: tuple[int, ...], temperature: float) -> None:
    """Value, and the derivative by x, alpha, beta and every bias, each a central difference of the formula."""
    biases = np.diff(levels).cumsum() + levels[0] - 0.5 + np.linspace(-0.1, 0.1, len(levels) - 1)
    parameters = {"alpha": np.array(0.4), "beta": np.array(1.3), "biases": biases}
    quantizer = QNQuantizer(levels, learn_biases=True).double().train()
    quantizer.temperature = temperature
    with torch.no_grad():
        for name, value in parameters.items():
            getattr(quantizer, name).copy_(torch.from_numpy(value))
    # Within the public code's clamp of the argument to +-10, outside of which the derivative is dropped.
    ends = (biases.max() - 9 / temperature) / 1.3, (biases.min() + 9 / temperature) / 1.3
    x = np.linspace(*ends, 23)
    probe = np.random.default_rng(0).normal(size=x.shape)  # the gradient of this weighting of the outputs

    def value(x: NDArray, **changed: NDArray) -> NDArray:
        p = parameters | changed
        return quantization_networks(x, levels, float(p["alpha"]), float(p["beta"]), p["biases"], temperature)

    given = torch.tensor(x, requires_grad=True)
    y = quantizer(given)
    np.testing.assert_allclose(y.detach().numpy(), value(x), rtol=1e-12, atol=1e-12)
    (y * torch.from_numpy(probe)).sum().backward()

    h = 1e-5
    assert given.grad is not None
    np.testing.assert_allclose(
        given.grad.numpy(), probe * (value(x + h) - value(x - h)) / (2 * h), rtol=1e-6, atol=1e-8
    )
    for name, at in parameters.items():
        for index in np.ndindex(at.shape):
            step = np.zeros(at.shape)
            step[index] = h
            difference = (value(x, **{name: at + step}) - value(x, **{name: at - step})) / (2 * h)
            found = getattr(quantizer, name).grad[index].item()
            assert found == pytest.approx(float((probe * difference).sum()), rel=1e-6, abs=1e-8), name


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_clamped_sigmoids_stay_near_the_formula(levels: tuple[int, ...]) -> None:
    """The public code clamps the argument to +-10: that costs at most sigmoid(-10) of every step."""
    quantizer = QNQuantizer(levels).double().train()
    quantizer.temperature = 60.0
    x = np.linspace(-6, 6, 2001)
    expected = quantization_networks(x, levels, 1.0, 1.0, quantizer.biases.numpy(), 60.0)
    with torch.no_grad():
        error = np.abs(quantizer(torch.from_numpy(x)).numpy() - expected)
    assert 1e-6 < error.max() <= (levels[-1] - levels[0]) / (1 + np.exp(10)) * (1 + 1e-9)


def daq_soft_argmax(v: Tensor, gamma: float) -> Tensor:
    """Sections 3.2 and 3.3 as they are written: scores of both neighbours, adaptive temperature, softmax, expectation.

    The temperature is a constant for the gradient. A softmax never reaches 0 or 1; the expectation is stretched round
    the middle of the two integers until it does.
    """
    candidates = torch.stack([torch.floor(v).detach(), torch.floor(v).detach() + 1], dim=-1)
    distance = (v.unsqueeze(-1) - candidates).abs()
    nearest = candidates.gather(-1, distance.detach().argmin(-1, keepdim=True))
    scores = torch.exp(-distance) * torch.exp(-(((candidates - nearest) / SIGMA) ** 2))
    temperature = gamma / (scores[..., 0] - scores[..., 1]).detach().abs()
    expected = (torch.softmax(temperature.unsqueeze(-1) * scores, dim=-1) * candidates).sum(-1)
    middle = candidates.mean(-1)
    most = 1 / (1 + np.exp(-gamma)) - 0.5  # what the softmax puts on the nearer of the two, above a half
    return middle + (expected - middle) * 0.5 / most


@pytest.mark.parametrize("gamma", [0.5, 2.0, 6.0])
def test_distance_aware_rounding(gamma: float) -> None:
    v = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 7
    expected, found = (v.clone().requires_grad_() for _ in range(2))
    by_formula, by_module = daq_soft_argmax(expected, gamma), soft_round(found, gamma)
    torch.testing.assert_close(by_module, by_formula, rtol=1e-12, atol=1e-12)
    probe = torch.linspace(-1, 2, len(v), dtype=torch.float64)
    (by_formula * probe).sum().backward()
    (by_module * probe).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-12)
    assert expected.grad is not None and expected.grad.abs().min() > 0


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_distance_aware_weights(bits: int) -> None:
    """w_n = (w - mean) / std, clipped, l to u on 0 to R, soft argmax, (2 q - R) / R; for weights and both bounds."""
    steps = 2.0**bits - 1
    weight = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.3 + 0.1
    quantizer = DAQWeightQuantizer(bits).double().train()
    with torch.no_grad():
        quantizer.lower.fill_(-1.5)
        quantizer.upper.fill_(1.25)
    given, w, lower, upper = (
        t.detach().clone().requires_grad_() for t in (weight, weight, quantizer.lower, quantizer.upper)
    )
    normal = (w - w.sum() / w.numel()) / ((w - w.sum() / w.numel()).square().sum() / (w.numel() - 1)).sqrt()
    inside = torch.where(normal < lower, lower, torch.where(normal > upper, upper, normal))
    expected = (2 * daq_soft_argmax((inside - lower) * steps / (upper - lower), quantizer.temperature) - steps) / steps
    found = quantizer(given)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    probe = torch.linspace(-1, 2, len(weight), dtype=torch.float64)
    (expected * probe).sum().backward()
    (found * probe).sum().backward()
    for ours, written in ((given, w), (quantizer.lower, lower), (quantizer.upper, upper)):
        torch.testing.assert_close(ours.grad, written.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_distance_aware_activations(bits: int, signed: bool) -> None:
    """Clipped to [0, u] or [-u, u], on 0 to R, soft argmax, back to [0, 1] or [-1, 1]; for activations and bound."""
    steps = 2.0**bits - 1
    x = torch.randn(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 1.7
    quantizer = DAQActivationQuantizer(bits, signed=signed).double().train()
    with torch.no_grad():
        quantizer.upper.fill_(1.9)
    given, a, upper = (t.detach().clone().requires_grad_() for t in (x, x, quantizer.upper))
    floor = -upper if signed else torch.zeros_like(upper)
    inside = torch.where(a < floor, floor, torch.where(a > upper, upper, a))
    q = daq_soft_argmax((inside - floor) * steps / (upper - floor), quantizer.temperature) / steps
    expected = 2 * q - 1 if signed else q
    found = quantizer(given)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    probe = torch.linspace(-1, 2, len(x), dtype=torch.float64)
    (expected * probe).sum().backward()
    (found * probe).sum().backward()
    torch.testing.assert_close(given.grad, a.grad, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(quantizer.upper.grad, upper.grad, rtol=1e-8, atol=1e-9)
