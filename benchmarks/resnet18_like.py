"""A ResNet-18-sized W2A2 network (11.2 M weights, 224 x 224) in plain torch with our quantizers, seeded weights.

Not an architecture of the library: conversion is measured on it because its graph, shapes and sizes are real.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qexport.models.quantizers import QNQuantizer, QuantConv2d, initialise_from_samples

WEIGHT_LEVELS, ACT_LEVELS = (-1, 0, 1), (0, 1, 2, 3)
WIDTHS = (64, 128, 256, 512)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> QuantConv2d:
    quantizer = QNQuantizer(WEIGHT_LEVELS)
    conv = QuantConv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False, weight_quantizer=quantizer
    )
    initialise_from_samples(quantizer, conv.weight.detach())
    return conv


def _activation() -> QNQuantizer:
    quantizer = QNQuantizer(ACT_LEVELS)
    initialise_from_samples(quantizer, torch.linspace(0, 3, 1000))
    return quantizer


class Block(nn.Module):
    """Basic block in the order of Quantization Networks: conv, BN, ReLU, quantizer; quantized shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.quan1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), _activation()
        self.conv2, self.bn2, self.quan2 = _conv(outputs, outputs, 3, 1), nn.BatchNorm2d(outputs), _activation()
        self.down = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = self.quan1(torch.relu(self.bn1(self.conv1(x))))
        return self.quan2(torch.relu(self.bn2(self.conv2(h)) + self.down(x)))


class ResNet18Like(nn.Module):
    """Float stem and classifier, four stages of two blocks."""

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1), _activation()
        )
        blocks: list[nn.Module] = []
        inputs = 64
        for stage, width in enumerate(WIDTHS):
            blocks += [Block(inputs, width, 1 if stage == 0 else 2), Block(width, width, 1)]
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def build() -> nn.Module:
    """Seeded network in evaluation mode, its batch norms set from random statistics."""
    torch.manual_seed(0)
    network = ResNet18Like()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return network.eval()
