"""ResNet-18, -34, -50 for ImageNet (He et al., CVPR 2016), in torchvision's layout.

Without quantizers the state_dict has torchvision's keys and shapes, so that published float weights load.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.models.quantizers import Placement, QuantMaxPool2d
from qexport.models.resnet_cifar import check_stages


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, placement: Placement, in_channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = placement.conv(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.quan1 = placement.after_activation()
        self.conv2 = placement.conv(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample
        self.quan2 = placement.after_activation()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = _quantized(self.quan1, functional.relu(self.bn1(self.conv1(x))))
        return _quantized(self.quan2, functional.relu(self.bn2(self.conv2(y)) + shortcut))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, placement: Placement, in_channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = placement.conv(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.quan1 = placement.after_activation()
        self.conv2 = placement.conv(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.quan2 = placement.after_activation()
        self.conv3 = placement.conv(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = downsample
        self.quan3 = placement.after_activation()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = _quantized(self.quan1, functional.relu(self.bn1(self.conv1(x))))
        y = _quantized(self.quan2, functional.relu(self.bn2(self.conv2(y))))
        return _quantized(self.quan3, functional.relu(self.bn3(self.conv3(y)) + shortcut))


class ResNet(nn.Module):
    """7x7 stem, maximum pooling, four stages, global average, linear; stem and linear layer stay float.

    Args:
        placement: the scheme.
        block: kind of block.
        blocks: blocks per stage.
        widths: width of the stages' blocks; every stage after the first halves the map.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        OptionError: stage settings that make no network.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        block: type[BasicBlock | Bottleneck],
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_stages(blocks, widths)
        self.conv1 = nn.Conv2d(in_channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = QuantMaxPool2d(3, 2, 1, quantizer=placement.after_activation())
        channels = widths[0]
        self.n_stages = len(blocks)
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage, channels = _stage(placement, block, channels, width, count, 1 if number == 1 else 2)
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32, normalised -> logits [N, num_classes]."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.n_stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        x = torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)
        logits: Tensor = self.fc(x)
        return logits


def _stage(
    placement: Placement, block: type[BasicBlock | Bottleneck], channels: int, width: int, count: int, stride: int
) -> tuple[nn.Sequential, int]:
    """Blocks of one stage and the channels they end with; the shortcut of the first is projected where it must."""
    stage = nn.Sequential()
    out = width * block.expansion
    for i in range(count):
        step = stride if i == 0 else 1
        downsample = None
        if step != 1 or channels != out:
            downsample = nn.Sequential(placement.conv(channels, out, 1, stride=step, bias=False), nn.BatchNorm2d(out))
        stage.append(block(placement, channels, width, step, downsample))
        channels = out
    return stage, channels


def _quantized(quantizer: nn.Module | None, x: Tensor) -> Tensor:
    return x if quantizer is None else quantizer(x)


resnet18 = partial(ResNet, block=BasicBlock, blocks=(2, 2, 2, 2))
resnet34 = partial(ResNet, block=BasicBlock, blocks=(3, 4, 6, 3))
resnet50 = partial(ResNet, block=Bottleneck, blocks=(3, 4, 6, 3))
