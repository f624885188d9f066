"""A small residual Quantization Network for 8x8 grey-scale digits: the network of the demo."""

from __future__ import annotations

from collections.abc import Sequence

from qexport.models.resnet_cifar import QNResNet


class DigitsNet(QNResNet):
    """Float 3x3 stem, one block at 8x8 and two at 4x4, quantized shortcuts, global average pool, float linear.

    About 37,000 parameters. By default weights are -1, 0, 1 and activations 0..3, two bits each.

    Args:
        widths: channels of the two stages.
        weight_levels: integer levels of the weights inside the blocks, or None.
        act_levels: integer levels of the activations, or None.

    Raises:
        OptionError: widths or levels that make no network.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (16, 32),
        weight_levels: Sequence[int] | None = (-1, 0, 1),
        act_levels: Sequence[int] | None = (0, 1, 2, 3),
    ) -> None:
        super().__init__(
            blocks=(1, 2), widths=widths, in_channels=1, weight_levels=weight_levels, act_levels=act_levels
        )
