"""Small residual networks for 8x8 grey-scale digits; that of Quantization Networks is the network of the demo."""

from __future__ import annotations

from collections.abc import Sequence

from qexport.models.resnet_cifar import DAQResNet, QNResNet


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


class DAQDigitsNet(DAQResNet):
    """The same stages in DAQ's order: a quantizer in front of each convolution of a block, real shortcuts.

    Args:
        widths: channels of the two stages.
        weight_bits: 1..8, or None for float weights.
        act_bits: 1..8, or None for float activations.

    Raises:
        OptionError: widths or bits that make no network.
    """

    def __init__(
        self, *, widths: Sequence[int] = (16, 32), weight_bits: int | None = None, act_bits: int | None = None
    ) -> None:
        super().__init__(blocks=(1, 2), widths=widths, in_channels=1, weight_bits=weight_bits, act_bits=act_bits)
