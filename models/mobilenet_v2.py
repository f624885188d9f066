"""MobileNet-V2 (Sandler et al., CVPR 2018) in torchvision's layout.

Without quantizers the state_dict has torchvision's keys and shapes. The first convolution and the last linear layer
stay float. A bottleneck's output has both signs, so its quantizer has too: behind the sum in Quantization Networks, in
front of the expanding convolution in DAQ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.models.quantizers import Placement, QuantReLU

BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, blocks, stride of the first) of each stage: table 2 of the paper."""

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
RELU_LIMIT = 6.0
CHANNEL_MULTIPLE = 8


def _scaled(channels: int, width: float) -> int:
    """channels * width as the nearest multiple of 8, but never more than a tenth smaller."""
    wanted = channels * width
    near = max(CHANNEL_MULTIPLE, int(wanted + CHANNEL_MULTIPLE / 2) // CHANNEL_MULTIPLE * CHANNEL_MULTIPLE)
    return near + CHANNEL_MULTIPLE if near < 0.9 * wanted else near


class InvertedResidual(nn.Module):
    """Expanding 1x1, depthwise 3x3, projecting 1x1; the input is added where shapes allow.

    Attributes:
        conv: the layers, numbered as in torchvision.
    """

    def __init__(self, placement: Placement, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            # What it reads is a bottleneck's output, which no ReLU made non-negative.
            layers.append(
                _layer(placement, placement.conv(in_channels, inner, 1, bias=False, signed_input=True), inner)
            )
        depthwise = placement.conv(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        layers.append(_layer(placement, depthwise, inner))
        layers += [placement.conv(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        self.conv = nn.Sequential(*layers)
        self.quan = placement.after_sum()
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        y = x + y if self.adds_input else y
        return y if self.quan is None else self.quan(y)


class MobileNetV2(nn.Module):
    """Float stem, seventeen inverted residuals, 1x1 to 1280 channels, global average, float linear.

    Args:
        placement: the scheme.
        num_classes: outputs.
        in_channels: channels of the image.
        width: factor of all widths.
    """

    def __init__(
        self, placement: Placement, *, num_classes: int = 1000, in_channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        channels = _scaled(STEM_CHANNELS, width)
        stem = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        layers: list[nn.Module] = [_layer(placement, stem, channels)]
        for expansion, base, count, stride in BOTTLENECKS:
            for i in range(count):
                out = _scaled(base, width)
                layers.append(InvertedResidual(placement, channels, out, stride if i == 0 else 1, expansion))
                channels = out
        last = _scaled(HEAD_CHANNELS, max(1.0, width))
        layers.append(_layer(placement, placement.conv(channels, last, 1, bias=False, signed_input=True), last))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32, normalised -> logits [N, num_classes]."""
        x = functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def _layer(placement: Placement, conv: nn.Module, channels: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU6 and what follows it."""
    relu = QuantReLU(placement.after_activation(), limit=RELU_LIMIT)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), relu)
