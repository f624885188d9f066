"""SSD300 on VGG-16 (Liu et al., ECCV 2016), in torchvision's layout.

Without quantizers the state_dict has torchvision's keys and shapes (its 91 COCO classes are 90 and the background).
First convolution and heads stay float, as in the detector of the Quantization Networks paper; so does the map of
conv4_3 behind its L2 norm, which only heads read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.detection import Detector, PriorGrid
from qexport.errors import OptionError
from qexport.models.quantizers import Placement, QuantReLU
from qexport.models.vgg import VGG16_STAGES, vgg_features

EXTRAS = ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
"""(channels of the 1x1, of the 3x3 convolution, its stride, its padding) of conv8 to conv11."""

ASPECT_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
"""Sides of the square priors of each map, as shares of the image, and one more."""

STEPS = (8, 16, 32, 64, 100, 300)
"""Pixels from one cell to the next; the last two are those of 300 pixels divided by 3 and 1 cells."""

NORM_GAIN = 20.0
"""conv4_3's vectors of unit length are multiplied by a gain per channel that starts here."""

CONV4_3_CHANNELS, FC_CHANNELS = 512, 1024
CEIL_POOL = 16
"""Number of the pooling behind conv3_3, which rounds up: 75 rows become 38."""


class Backbone(nn.Module):
    """VGG-16 up to conv4_3, then conv5, fc6 (dilated) and fc7 as convolutions, then the extra layers."""

    def __init__(self, placement: Placement, in_channels: int, extras: int) -> None:
        super().__init__()
        features = list(vgg_features(placement, VGG16_STAGES[:4], in_channels, batch_norm=False, bias=True))[:-2]
        pool = features[CEIL_POOL]
        assert isinstance(pool, nn.MaxPool2d)
        pool.ceil_mode = True
        self.features = nn.Sequential(*features, QuantReLU(placement.after_activation()))
        self.scale_weight = nn.Parameter(torch.full((CONV4_3_CHANNELS,), NORM_GAIN))
        self.extra = nn.ModuleList([_conv5_to_fc7(placement)])
        channels = FC_CHANNELS
        for narrow, wide, stride, padding in EXTRAS[:extras]:
            block = nn.Sequential(
                placement.conv(channels, narrow, 1),
                QuantReLU(placement.after_activation()),
                placement.conv(narrow, wide, 3, stride=stride, padding=padding),
                QuantReLU(placement.after_activation()),
            )
            self.extra.append(block)
            channels = wide

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, in_channels, H, W] -> the maps that heads read, the largest first."""
        x = self.features(x)
        maps = [self.scale_weight.view(1, -1, 1, 1) * functional.normalize(x)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return maps


def _conv5_to_fc7(placement: Placement) -> nn.Sequential:
    act = placement.after_activation
    layers: list[nn.Module] = [nn.MaxPool2d(2, 2)]
    for _ in VGG16_STAGES[4]:
        layers += [placement.conv(CONV4_3_CHANNELS, CONV4_3_CHANNELS, 3, padding=1), QuantReLU(act())]
    fully_connected = nn.Sequential(
        nn.MaxPool2d(3, 1, 1),
        placement.conv(CONV4_3_CHANNELS, FC_CHANNELS, 3, padding=6, dilation=6),
        QuantReLU(act()),
        placement.conv(FC_CHANNELS, FC_CHANNELS, 1),
        QuantReLU(act()),
    )
    return nn.Sequential(*layers, fully_connected)


class ScoringHead(nn.Module):
    """One 3x3 convolution a map; `columns` values for every prior."""

    def __init__(self, channels: Sequence[int], priors: Sequence[int], columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.module_list = nn.ModuleList(
            nn.Conv2d(c, n * columns, 3, padding=1) for c, n in zip(channels, priors, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [N, C, H, W] -> [N, P, columns], priors in the order of PriorGrid."""
        found = [
            layer(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.columns)
            for layer, x in zip(self.module_list, maps, strict=True)
        ]
        return torch.cat(found, dim=1)


class Head(nn.Module):
    """Class and box head, named as in torchvision."""

    def __init__(self, channels: Sequence[int], priors: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.classification_head = ScoringHead(channels, priors, n_classes)
        self.regression_head = ScoringHead(channels, priors, 4)


class SSD300(nn.Module):
    """SSD300.

    Args:
        placement: the scheme.
        num_classes: classes without the background; 20 of Pascal VOC.
        in_channels: channels of the image.
        extras: how many of the extra maps, 0 to 4; each needs a larger image (4 need 272 pixels a side).
        image_size: rows and columns of the images the priors are made for.

    Raises:
        OptionError: no such number of maps.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        num_classes: int = 20,
        in_channels: int = 3,
        extras: int = len(EXTRAS),
        image_size: int = 300,
    ) -> None:
        super().__init__()
        if not isinstance(extras, int) or not 0 <= extras <= len(EXTRAS):
            raise OptionError("no such number of extra maps", got=extras, expected=f"0 to {len(EXTRAS)}")
        self.num_classes, self.extras, self.image_size = num_classes, extras, image_size
        self.backbone = Backbone(placement, in_channels, extras)
        channels = [CONV4_3_CHANNELS, FC_CHANNELS, *(wide for _, wide, _, _ in EXTRAS[:extras])]
        priors = [len(sizes) for sizes in prior_sizes()[: extras + 2]]
        self.head = Head(channels, priors, num_classes + 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, in_channels, H, W] float32, normalised -> locations [N, P, 4], scores [N, P, num_classes + 1]."""
        maps = self.backbone(x)
        return self.head.regression_head(maps), self.head.classification_head(maps)

    @property
    def detector(self) -> Detector:
        """Priors and post-process of this network, for its image size."""
        maps = list(zip(map_extents(self.image_size), STEPS, prior_sizes(), strict=True))[: self.extras + 2]
        grids = [PriorGrid(n, n, step / self.image_size, step / self.image_size, sizes) for n, step, sizes in maps]
        return Detector(tuple(grids), self.num_classes + 1)


def prior_sizes() -> list[tuple[tuple[float, float], ...]]:
    """(width, height) of the priors of each map: two squares, then every aspect ratio lying and standing."""
    found = []
    for ratios, scale, following in zip(ASPECT_RATIOS, SCALES[:-1], SCALES[1:], strict=True):
        middle = math.sqrt(scale * following)
        sizes = [(scale, scale), (middle, middle)]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sizes += [(long, short), (short, long)]
        found.append(tuple(sizes))
    return found


def map_extents(size: int) -> list[int]:
    """Rows of every map for an image of `size` rows."""
    conv4_3 = math.ceil(size // 2 // 2 / 2)
    extents = [conv4_3, conv4_3 // 2]
    for _, _, stride, padding in EXTRAS:
        extents.append((extents[-1] + 2 * padding - 3) // stride + 1)
    return extents
