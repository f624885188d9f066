"""A small SSD: two residual blocks as the backbone, multibox heads on two maps; for small images and short training.

The heads follow Liu et al. (SSD, ECCV 2016), section 2.1: 3x3 convolutions give, for every prior of every cell, four
offsets and a score for each class and the background. Like the last layer of a classifier they stay float in training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.detection import Detector, PriorGrid
from qexport.models.quantizers import QNQuantizer
from qexport.models.resnet_cifar import DAQBlock, QNBlock

PRIOR_SIZES = (((0.14, 0.23), (0.19, 0.30)), ((0.25, 0.38), (0.30, 0.47)))
"""(width, height) of the priors of both maps, as shares of the image: handwritten digits are higher than wide."""


class MultiBoxHead(nn.Module):
    """Location and class heads of one map.

    Args:
        in_channels: channels of the map.
        n_priors: priors a cell.
        n_classes: background included.
    """

    def __init__(self, in_channels: int, n_priors: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.location = nn.Conv2d(in_channels, n_priors * 4, 3, padding=1)
        self.score = nn.Conv2d(in_channels, n_priors * n_classes, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] -> locations [N, H * W * n_priors, 4], scores [N, H * W * n_priors, n_classes]."""
        n = x.shape[0]
        # Channels last: the values of one prior stand together, priors in the order of PriorGrid.
        locations = self.location(x).permute(0, 2, 3, 1).reshape(n, -1, 4)
        return locations, self.score(x).permute(0, 2, 3, 1).reshape(n, -1, self.n_classes)


class _SmallSSD(nn.Module):
    """What both schemes share: a float 3x3 stem of stride 2, two blocks of stride 2, a head behind each block."""

    block1: nn.Module
    block2: nn.Module

    def __init__(self, image_size: int, widths: Sequence[int], num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.heads = nn.ModuleList(
            MultiBoxHead(width, len(sizes), num_classes + 1)
            for width, sizes in zip(widths[1:], PRIOR_SIZES, strict=True)
        )

    @property
    def detector(self) -> Detector:
        """Priors and post-process of this network, for its image size."""
        grids = []
        for number, sizes in enumerate(PRIOR_SIZES):
            stride = 4 << number
            cells, step = -(-self.image_size // stride), stride / self.image_size
            grids.append(PriorGrid(cells, cells, step, step, sizes))
        return Detector(tuple(grids), self.num_classes + 1)

    def _detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Stem output -> both heads' values, joined over all priors."""
        maps = [self.block1(x)]
        maps.append(self.block2(maps[0]))
        found = [head(m) for head, m in zip(self.heads, maps, strict=True)]
        return torch.cat([f[0] for f in found], dim=1), torch.cat([f[1] for f in found], dim=1)


class QNSmallSSD(_SmallSSD):
    """In the order of Quantization Networks: convolution, batch norm, ReLU, quantizer; quantized shortcuts.

    Args:
        image_size: rows and columns of the images the priors are made for.
        widths: channels of the stem and the two blocks; rising, by even steps.
        num_classes: classes without the background.
        in_channels: channels of the image.
        weight_levels: integer levels of the weights inside the blocks, or None.
        act_levels: integer levels of the activations, or None.

    Raises:
        OptionError: widths or levels that make no network.
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        widths: Sequence[int] = (16, 32, 48),
        num_classes: int = 10,
        in_channels: int = 1,
        weight_levels: Sequence[int] | None = None,
        act_levels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(image_size, widths, num_classes, in_channels)
        self.quan0 = nn.Identity() if act_levels is None else QNQuantizer(act_levels)
        self.block1 = QNBlock(widths[0], widths[1], 2, weight_levels, act_levels)
        self.block2 = QNBlock(widths[1], widths[2], 2, weight_levels, act_levels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, in_channels, H, W] float32, normalised -> locations [N, P, 4], scores [N, P, num_classes + 1]."""
        return self._detect(self.quan0(functional.relu(self.bn1(self.conv1(x)))))


class DAQSmallSSD(_SmallSSD):
    """In the order of DAQ: a quantizer in front of each convolution of a block, real sums.

    Args:
        image_size, widths, num_classes, in_channels: as for QNSmallSSD.
        weight_bits: 1..8, or None for float weights.
        act_bits: 1..8, or None for float activations.

    Raises:
        OptionError: widths or bits that make no network.
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        widths: Sequence[int] = (16, 32, 48),
        num_classes: int = 10,
        in_channels: int = 1,
        weight_bits: int | None = None,
        act_bits: int | None = None,
    ) -> None:
        super().__init__(image_size, widths, num_classes, in_channels)
        self.block1 = DAQBlock(widths[0], widths[1], 2, weight_bits, act_bits)
        self.block2 = DAQBlock(widths[1], widths[2], 2, weight_bits, act_bits)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, in_channels, H, W] float32, normalised -> locations [N, P, 4], scores [N, P, num_classes + 1]."""
        return self._detect(functional.relu(self.bn1(self.conv1(x))))
