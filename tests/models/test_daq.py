"""DAQ quantizers: the hard form against numpy, the soft form equal to it with soft gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qexport.errors import OptionError
from qexport.models.quantizers import DAQActivationQuantizer, DAQWeightQuantizer
from qexport.models.quantizers.daq import hard_round, soft_round

BITS = (1, 2, 3, 4, 8)


@pytest.mark.parametrize("bits", BITS)
def test_activation_levels_and_thresholds(bits: int) -> None:
    quantizer = DAQActivationQuantizer(bits).eval()
    n = 2**bits - 1
    with torch.no_grad():
        quantizer.upper.fill_(float(n))  # one level per unit, so thresholds lie at k + 1/2
        k = torch.arange(n, dtype=torch.float32)
        at_tie, above = quantizer(k + 0.5), quantizer(torch.nextafter(k + 0.5, torch.tensor(float("inf"))))
        far = quantizer(torch.tensor([-1e30, -1.0, 0.0, 2.0 * n, 1e30]))
    torch.testing.assert_close(at_tie, k / n, rtol=0, atol=0)  # a tie goes down, also from an odd integer
    torch.testing.assert_close(above, (k + 1) / n, rtol=0, atol=0)
    assert far.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("bits", BITS)
def test_signed_activations(bits: int) -> None:
    """Evenly spaced values from -1 to 1; a tie goes down."""
    quantizer = DAQActivationQuantizer(bits, signed=True).eval()
    n = 2**bits - 1
    with torch.no_grad():
        quantizer.upper.fill_(n / 2)  # one level per unit again
        k = torch.arange(n, dtype=torch.float32)
        at_tie = quantizer(k + 0.5 - n / 2)
        above = quantizer(k + 0.5 - n / 2 + 1e-3)
        far = quantizer(torch.tensor([-1e30, -float(n), float(n), 1e30]))
    torch.testing.assert_close(at_tie, (2 * k - n) / n, rtol=0, atol=0)
    torch.testing.assert_close(above, (2 * k + 2 - n) / n, rtol=0, atol=0)
    assert far.tolist() == [-1.0, -1.0, 1.0, 1.0]
    x = torch.linspace(-1.2 * n, 1.2 * n, 1001)
    torch.testing.assert_close(quantizer.soft(x), quantizer.hard(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_weight_values_follow_the_formula(bits: int) -> None:
    weight = np.random.default_rng(2).normal(0.1, 0.4, (8, 4, 3, 3)).astype(np.float32)
    quantizer = DAQWeightQuantizer(bits).eval()
    n = np.float32(2**bits - 1)
    with torch.no_grad():
        quantizer.lower.fill_(-2.5)
        quantizer.upper.fill_(2.25)
        got = quantizer(torch.from_numpy(weight)).numpy()
    mean = np.float32(weight.astype(np.float64).mean())
    std = np.float32(weight.astype(np.float64).std(ddof=1))
    v = (np.clip((weight - mean) / std, -2.5, 2.25).astype(np.float32) + np.float32(2.5)) / (np.float32(4.75) / n)
    q = np.floor(v) + np.round(v - np.floor(v))
    np.testing.assert_array_equal(got, (2 * q - n) / n)


def test_weight_codes_do_not_depend_on_the_memory_layout() -> None:
    torch.manual_seed(3)
    weight = torch.randn(64, 64, 3, 3)
    quantizer = DAQWeightQuantizer(1).eval()
    reordered = weight.contiguous(memory_format=torch.channels_last)
    assert torch.equal(quantizer(weight), quantizer(reordered))
    assert torch.equal(quantizer.position(weight), quantizer.position(reordered))


def test_soft_rounding_is_rounding() -> None:
    v = torch.linspace(0, 7, 9001)
    torch.testing.assert_close(soft_round(v, 2.0), hard_round(v), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [DAQWeightQuantizer, DAQActivationQuantizer])
@pytest.mark.parametrize("bits", BITS)
def test_soft_form_equals_the_hard_one(make: type[DAQWeightQuantizer | DAQActivationQuantizer], bits: int) -> None:
    torch.manual_seed(4)
    x = torch.randn(4000)
    quantizer = make(bits)
    torch.testing.assert_close(quantizer.train()(x), quantizer.eval()(x), rtol=0, atol=2e-6)


def test_soft_rounding_has_gradients_everywhere() -> None:
    v = torch.linspace(0.01, 3.0, 300, requires_grad=True)
    soft_round(v, 2.0).sum().backward()
    assert v.grad is not None and bool((v.grad > 0).all())


def test_gradients_reach_every_bound() -> None:
    torch.manual_seed(5)
    weights, activations = DAQWeightQuantizer(2).train(), DAQActivationQuantizer(2).train()
    (weights(torch.randn(500) * 3).square().sum() + activations(torch.randn(500) * 4).sum()).backward()
    for parameter in (weights.lower, weights.upper, activations.upper):
        assert parameter.grad is not None and parameter.grad.item() != 0


@pytest.mark.parametrize("bits", [0, 9, -1, 1.5])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(OptionError, match="bit width out of range"):
        DAQWeightQuantizer(bits)


def test_near_threshold_ignores_what_clipping_removes() -> None:
    quantizer = DAQActivationQuantizer(2)  # upper 3: thresholds at 0.5, 1.5, 2.5
    assert quantizer.near_threshold(torch.tensor([-0.5, 0.5, 1.50001, 2.4, 3.5]), 1e-3) == 2
