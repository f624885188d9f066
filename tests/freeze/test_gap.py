"""The quantizer gap: closed forms for one sigmoid, nothing for what has no soft form, and what convert reports."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qexport.checkpoints import save_native
from qexport.conversion import convert
from qexport.conversion.build import load_network
from qexport.conversion.settings import Settings
from qexport.freeze.gap import activation_gap, weight_gap
from qexport.freeze.probe import probe
from qexport.models.papers import PAIRS, SMALL_INPUTS
from qexport.models.quantizers import DAQActivationQuantizer, DAQWeightQuantizer, QNQuantizer, SoftQuantizer
from qexport.models.seeded import random_images, seeded


@pytest.mark.parametrize("temperature", [20.0, 80.0])
def test_one_sigmoid(temperature: float) -> None:
    """Between -1/2 and 3/2 the mean of |sigmoid(T (x - 1/2)) - step| is ln 2 / T; at the threshold it is 1/2."""
    quantizer = QNQuantizer((0, 1)).eval()
    quantizer.temperature = temperature
    gap = activation_gap(quantizer, probe(quantizer, (1,), "q"))
    assert gap is not None and gap.of == "activations"
    assert gap.mean == pytest.approx(math.log(2) / temperature, rel=0.02)
    assert gap.largest == pytest.approx(0.5, abs=1e-3)


def test_weights_are_those_of_the_layer() -> None:
    """In units of the step between values, whatever alpha is; weights far from the thresholds have hardly a gap."""
    quantizer = QNQuantizer((-1, 0, 1)).eval()  # thresholds -1/2 and 1/2
    quantizer.temperature = 10.0
    with torch.no_grad():
        quantizer.alpha.fill_(0.25)
    weight = torch.tensor([[0.6, -0.4], [0.0, 5.0]])
    gap = weight_gap(quantizer, weight)
    expected = [1 / (1 + math.exp(10 * distance)) for distance in (0.1, 0.1)]  # the other sigmoid is below 2e-5 off
    assert gap is not None and gap.of == "weights"
    assert gap.largest == pytest.approx(expected[0], abs=1e-3)
    assert gap.mean == pytest.approx(sum(expected) / 4, abs=5e-3)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_distance_aware_quantizers_have_none(bits: int) -> None:
    weight = torch.randn(64, 9, generator=torch.Generator().manual_seed(0))
    on_weights = weight_gap(DAQWeightQuantizer(bits).eval(), weight)
    activations = DAQActivationQuantizer(bits).eval()
    on_activations = activation_gap(activations, probe(activations, (1,), "q"))
    assert on_weights is not None and on_weights.largest < 1e-5
    assert on_activations is not None and on_activations.largest < 1e-5


class HardOnly(SoftQuantizer):
    def hard(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)


@pytest.mark.parametrize("quantizer", [HardOnly(), nn.Hardtanh()])
def test_without_a_soft_form_there_is_none(quantizer: nn.Module) -> None:
    assert weight_gap(quantizer, torch.ones(3)) is None


@pytest.mark.parametrize(("pair", "temperature"), [("qn-w2a2", 30.0), ("daq-w2a2", 2.0)])
def test_convert_reports_every_soft_quantizer(pair: str, temperature: float, tmp_path: Path) -> None:
    chosen, small, file = PAIRS[pair], SMALL_INPUTS["ssd_small"], tmp_path / "net.pt"
    arch, arguments = f"{chosen.scheme}-ssd_small", {**small.arguments, **chosen.arguments}
    model = seeded(arch, input_shape=small.input_shape, **arguments)
    kept = {"arch": arch, "arguments": arguments, "input_shape": small.input_shape, "mean": (0.5,), "std": (0.25,)}
    save_native(file, model, temperature=temperature, **kept)
    report = convert(file, tmp_path / "out", calibration_data=random_images(small.input_shape, 2).numpy()).report
    quantizers = {name: m for name, m in model.named_modules() if isinstance(m, SoftQuantizer)}
    gaps = report["quantizer_gaps"]
    assert report["temperature"] == temperature and gaps.keys() == quantizers.keys()
    assert {name for name, gap in gaps.items() if gap["of"] == "weights"} == {n for n in gaps if "weight" in n}
    rounding_only = chosen.scheme == "daq"
    assert all((gap["mean"] < 1e-6) == rounding_only for gap in gaps.values())

    save_native(file, model, **kept)
    assert load_network(file, Settings()).checkpoint.temperature is None
    without = convert(file, tmp_path / "out2", calibration_data=random_images(small.input_shape, 2).numpy()).report
    assert without["quantizer_gaps"] == {}
