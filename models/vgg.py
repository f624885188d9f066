"""AlexNet (Krizhevsky, 2014) and VGG-16 (Simonyan and Zisserman, ICLR 2015) in torchvision's layout, and VGG-Small.

Without quantizers the state_dicts of the first two have torchvision's keys and shapes. Quantizers live inside the ReLU
or pooling modules they follow, so that numbered layers keep their numbers. First convolution and last linear layer
stay float.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qexport.models.quantizers import Placement, QuantMaxPool2d, QuantReLU

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG_SMALL_STAGES = ((128, 128), (256, 256), (512, 512))


class AlexNet(nn.Module):
    """Five convolutions, three linear layers, no batch norm.

    Args:
        placement: the scheme.
        num_classes: outputs.
        in_channels: channels of the image.
        pooled: rows and columns of the map the classifier reads; the features must be a multiple of it.
        hidden: width of the two inner linear layers.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        pooled: int = 6,
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        act = placement.after_activation
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),
            QuantReLU(),
            QuantMaxPool2d(3, 2, quantizer=act()),
            placement.conv(64, 192, 5, padding=2),
            QuantReLU(),
            QuantMaxPool2d(3, 2, quantizer=act()),
            placement.conv(192, 384, 3, padding=1),
            QuantReLU(act()),
            placement.conv(384, 256, 3, padding=1),
            QuantReLU(act()),
            placement.conv(256, 256, 3, padding=1),
            QuantReLU(),
            QuantMaxPool2d(3, 2, quantizer=act()),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            placement.linear(256 * pooled**2, hidden),
            QuantReLU(act()),
            nn.Dropout(),
            placement.linear(hidden, hidden),
            QuantReLU(act()),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32, normalised -> logits [N, num_classes]."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions, three linear layers.

    Args:
        placement: the scheme.
        num_classes, in_channels, pooled, hidden: as for AlexNet.
        batch_norm: whether a batch norm follows every convolution (torchvision's vgg16_bn).
    """

    def __init__(
        self,
        placement: Placement,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        pooled: int = 7,
        hidden: int = 4096,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.features = vgg_features(placement, VGG16_STAGES, in_channels, batch_norm=batch_norm, bias=True)
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        act = placement.after_activation
        self.classifier = nn.Sequential(
            placement.linear(512 * pooled**2, hidden),
            QuantReLU(act()),
            nn.Dropout(),
            placement.linear(hidden, hidden),
            QuantReLU(act()),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32, normalised -> logits [N, num_classes]."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


class VGGSmall(nn.Module):
    """The 32x32 network of the low-bit literature: six 3x3 convolutions with batch norm, one linear layer.

    Args:
        placement: the scheme.
        num_classes, in_channels: as for AlexNet.
        size: rows and columns of the image, a multiple of 8.
    """

    def __init__(self, placement: Placement, *, num_classes: int = 10, in_channels: int = 3, size: int = 32) -> None:
        super().__init__()
        self.features = vgg_features(placement, VGG_SMALL_STAGES, in_channels, batch_norm=True, bias=False)
        self.classifier = nn.Linear(VGG_SMALL_STAGES[-1][-1] * (size // 8) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, size, size] float32, normalised -> logits [N, num_classes]."""
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


def vgg_features(
    placement: Placement, stages: Sequence[Sequence[int]], in_channels: int, *, batch_norm: bool, bias: bool
) -> nn.Sequential:
    """3x3 convolutions, each with its ReLU, and a pooling behind every stage; the first convolution is float."""
    layers: list[nn.Module] = []
    act = placement.after_activation
    channels = in_channels
    for stage in stages:
        for i, width in enumerate(stage):
            conv = placement.conv if layers else nn.Conv2d
            layers.append(conv(channels, width, 3, padding=1, bias=bias))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(QuantReLU(None if i == len(stage) - 1 else act()))
            channels = width
        layers.append(QuantMaxPool2d(2, 2, quantizer=act()))
    return nn.Sequential(*layers)
