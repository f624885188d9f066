"""Soft quantizers: differentiable in training, the exact hard step function in evaluation."""

from __future__ import annotations

from qexport.models.quantizers.base import SoftQuantizer, set_soft, set_temperature
from qexport.models.quantizers.daq import DAQActivationQuantizer, DAQWeightQuantizer
from qexport.models.quantizers.layers import QuantConv2d, QuantLinear, QuantMaxPool2d, QuantReLU
from qexport.models.quantizers.placement import DAQPlacement, Placement, QNPlacement
from qexport.models.quantizers.qn import QNQuantizer, initialise_from_samples

__all__ = [
    "DAQActivationQuantizer",
    "DAQPlacement",
    "DAQWeightQuantizer",
    "Placement",
    "QNPlacement",
    "QNQuantizer",
    "QuantConv2d",
    "QuantLinear",
    "QuantMaxPool2d",
    "QuantReLU",
    "SoftQuantizer",
    "initialise_from_samples",
    "set_soft",
    "set_temperature",
]
