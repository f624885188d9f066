"""Quantization Networks quantizer: the step form is the public code's, the soft form converges to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qexport.errors import DataError, OptionError
from qexport.models.quantizers import QNQuantizer, initialise_from_samples, set_soft, set_temperature
from qexport.models.quantizers.qn import k_means_1d

LEVELS = [(-1, 1), (-1, 0, 1), (-2, -1, 0, 1, 2), (-4, -2, -1, 0, 1, 2, 4), (0, 1), (0, 1, 2, 3), tuple(range(256))]


def quantizer_with(levels: tuple[int, ...], alpha: float = 0.3, beta: float = 1.7) -> QNQuantizer:
    """A quantizer with trained-looking scales and unequal thresholds, in evaluation mode."""
    quantizer = QNQuantizer(levels).eval()
    with torch.no_grad():
        quantizer.alpha.fill_(alpha)
        quantizer.beta.fill_(beta)
        quantizer.biases.add_(torch.linspace(-0.2, 0.2, len(levels) - 1))
    return quantizer


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_hard_values_are_alpha_times_levels(levels: tuple[int, ...]) -> None:
    quantizer = quantizer_with(levels)
    edge = max(abs(level) for level in levels) + 2.0
    y = quantizer(torch.linspace(-edge, edge, 20001))
    expected = (torch.tensor(levels, dtype=torch.float32) * quantizer.alpha.detach()).tolist()
    assert torch.unique(y).tolist() == expected
    assert bool((y[1:] >= y[:-1]).all())


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_hard_counts_the_steps_of_the_rounded_product(levels: tuple[int, ...]) -> None:
    """((x * beta) - b) > 0 in float32, computed here by numpy, one threshold at a time."""
    quantizer = quantizer_with(levels)
    x = np.random.default_rng(1).normal(0, 3, 5000).astype(np.float32)
    beta, alpha = (np.float32(p.item()) for p in (quantizer.beta, quantizer.alpha))
    biases = quantizer.biases.detach().numpy()
    codes = sum(((x * beta - b) > 0).astype(np.int64) for b in biases)
    expected = np.asarray(levels, np.float32)[codes] * alpha
    np.testing.assert_array_equal(quantizer(torch.from_numpy(x)).detach().numpy(), expected)


def test_a_tie_stays_below() -> None:
    quantizer = QNQuantizer((-1, 0, 1)).eval()
    assert quantizer(torch.tensor([-0.5, 0.5])).tolist() == [-1.0, 0.0]


def test_equal_biases_skip_a_level() -> None:
    """The public 'resnet18-w-1' setting: levels -1, 0, 1 with both biases 0 is binary, and 0 goes to -1."""
    quantizer = QNQuantizer((-1, 0, 1)).eval()
    with torch.no_grad():
        quantizer.biases.zero_()
    assert quantizer(torch.tensor([-1.0, 0.0, 1e-30, 2.0])).tolist() == [-1.0, -1.0, 1.0, 1.0]


@pytest.mark.parametrize("levels", LEVELS[:6], ids=str)
def test_soft_form_converges_to_the_steps(levels: tuple[int, ...]) -> None:
    quantizer = quantizer_with(levels)
    x = torch.linspace(-6, 6, 4001)
    distance = (x[:, None] * quantizer.beta - quantizer.biases).abs().amin(dim=1)
    x = x[distance > 0.02]
    hard = quantizer(x)
    assert set_soft(quantizer, True) == 1
    errors = []
    for temperature in (1.0, 10.0, 100.0, 1000.0):
        assert set_temperature(quantizer, temperature) == 1
        errors.append((quantizer(x) - hard).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2e-4 * max(1, sum(quantizer.gaps))


def test_training_mode_is_soft_and_evaluation_mode_is_not() -> None:
    quantizer = quantizer_with((-1, 0, 1))
    x = torch.linspace(-2, 2, 101)
    assert len(torch.unique(quantizer.train()(x))) > 3
    assert len(torch.unique(quantizer.eval()(x))) == 3


def test_gradients_are_the_papers() -> None:
    """dY/dalpha = Y / alpha; dY/dx = alpha * beta * T * sum s g (1 - g); dY/dbeta = x / beta * dY/dx."""
    quantizer = QNQuantizer((-1, 0, 1), learn_biases=True).double()
    quantizer.temperature = 3.0
    with torch.no_grad():
        quantizer.alpha.fill_(0.4)
        quantizer.beta.fill_(1.3)
    x = torch.tensor([0.37], dtype=torch.float64, requires_grad=True)
    y = quantizer(x)
    y.sum().backward()
    gates = torch.sigmoid(3.0 * (1.3 * x.detach() - quantizer.biases.detach()))
    slope = 0.4 * 3.0 * (gates * (1 - gates))
    assert x.grad is not None and quantizer.biases.grad is not None
    torch.testing.assert_close(x.grad, (1.3 * slope.sum()).reshape(1))
    torch.testing.assert_close(quantizer.alpha.grad, (y.detach() / 0.4).squeeze())
    torch.testing.assert_close(quantizer.beta.grad, (x.detach() * slope.sum()).squeeze())
    torch.testing.assert_close(quantizer.biases.grad, -slope)


def test_biases_are_frozen_unless_asked() -> None:
    assert not QNQuantizer((-1, 0, 1)).biases.requires_grad
    assert QNQuantizer((-1, 0, 1), learn_biases=True).biases.requires_grad


@pytest.mark.parametrize("levels", [(), (1,), (1, 0), (0, 0), (0, 0.5), (0, True)], ids=str)
def test_levels_must_be_ascending_integers(levels: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="ascending integers"):
        QNQuantizer(levels)


def test_initialisation_for_ternary_weights() -> None:
    quantizer = QNQuantizer((-1, 0, 1))
    weight = torch.linspace(-0.5, 0.5, 1001)
    initialise_from_samples(quantizer, weight)
    assert quantizer.beta.item() == pytest.approx(5 / (4 * 0.5))
    assert quantizer.alpha.item() == pytest.approx(4 * 0.5 / 5)
    assert quantizer.biases.tolist() == pytest.approx([-0.05, 0.05])


def test_initialisation_for_binary_weights_puts_the_threshold_at_zero() -> None:
    quantizer = QNQuantizer((-1, 1))
    initialise_from_samples(quantizer, torch.linspace(-1, 3, 50))
    assert quantizer.biases.tolist() == [0.0]


def test_initialisation_for_activations_takes_the_middles_of_the_clusters() -> None:
    quantizer = QNQuantizer((0, 1, 2, 3))
    samples = torch.tensor([0.0, 1.0, 2.0, 4.0]).repeat(100)
    initialise_from_samples(quantizer, samples)
    beta = 5 * 3 / (4 * 4.0)
    assert quantizer.biases.tolist() == pytest.approx([0.5 * beta, 1.5 * beta, 3.0 * beta])


def test_initialisation_for_seven_levels_forces_the_middle_pair_and_ascends() -> None:
    quantizer = QNQuantizer((-4, -2, -1, 0, 1, 2, 4))
    torch.manual_seed(0)
    initialise_from_samples(quantizer, torch.randn(2000))
    biases = quantizer.biases.tolist()
    assert biases == sorted(biases)
    assert pytest.approx(biases[2]) == -0.05 and pytest.approx(biases[3]) == 0.05


@pytest.mark.parametrize("samples", [[], [0.0, 0.0], [1.0, float("nan")], [float("inf")]], ids=str)
def test_initialisation_refuses_useless_samples(samples: list[float]) -> None:
    with pytest.raises(DataError, match="cannot be initialised"):
        initialise_from_samples(QNQuantizer((0, 1)), torch.tensor(samples))


def test_k_means_keeps_an_empty_cluster() -> None:
    centres = k_means_1d(np.array([0.0, 0.0, 9.0]), 3)
    assert centres.tolist() == [0.0, 4.5, 9.0]


def test_near_threshold_counts_weights_once() -> None:
    quantizer = QNQuantizer((-1, 0, 1))
    assert quantizer.near_threshold(torch.tensor([-0.5, 0.5 + 1e-4, 0.0, 0.7]), 1e-3) == 2
