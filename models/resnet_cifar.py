"""The residual networks for 32x32 images of DAQ and of Quantization Networks, with parameter-free shortcuts.

Both follow He et al. (CVPR 2016), section 4.2: a 3x3 stem, three stages of n blocks of two 3x3 convolutions (depth
6n + 2), and shortcuts of option A. They differ in where quantizers sit: DAQ quantizes the input of each convolution
and adds real numbers; QN quantizes after each ReLU, so that the shortcut carries quantized values too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from qexport.errors import OptionError
from qexport.models.quantizers import DAQActivationQuantizer, DAQWeightQuantizer, QNQuantizer, QuantConv2d

MAX_BLOCKS = 1000
"""Most residual blocks a network may have; the numbers may come from an untrusted checkpoint."""


class OptionAShortcut(nn.Module):
    """Every `stride`-th pixel, zero channels in equal number before and after: no parameters.

    Raises:
        OptionError: `out_channels - in_channels` is negative or odd.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels or (out_channels - in_channels) % 2:
            raise OptionError(
                "an option-A shortcut pads the same number of channels on both sides",
                got=f"{in_channels} channels in, {out_channels} out",
                expected="the same width or an even number of channels more",
            )
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + 2 * padding, ceil(H / stride), ceil(W / stride)]."""
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.padding:
            x = functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return x


class DAQBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)); conv1 and conv2 quantize their inputs and weights."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, weight_bits: int | None, act_bits: int | None
    ) -> None:
        super().__init__()

        def conv(n_in: int, conv_stride: int) -> QuantConv2d:
            return QuantConv2d(
                n_in,
                out_channels,
                3,
                stride=conv_stride,
                padding=1,
                input_quantizer=None if act_bits is None else DAQActivationQuantizer(act_bits),
                weight_quantizer=None if weight_bits is None else DAQWeightQuantizer(weight_bits),
                output_scale=weight_bits is not None or act_bits is not None,
            )

        self.conv1 = conv(in_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = OptionAShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DAQResNet(nn.Module):
    """DAQ's CIFAR network: stem without batch norm, quantized blocks, average pool, BatchNorm1d, float linear.

    Args:
        blocks: residual blocks per stage.
        widths: channels per stage; every stage after the first halves the map.
        num_classes: outputs.
        in_channels: channels of the image.
        weight_bits: 1..8, or None for float weights.
        act_bits: 1..8, or None for float activations.

    Raises:
        OptionError: stage settings or bit widths that make no network.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (16, 32, 64),
        num_classes: int = 10,
        in_channels: int = 3,
        weight_bits: int | None = None,
        act_bits: int | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.stages = _stages(blocks, widths, lambda i, o, s: DAQBlock(i, o, s, weight_bits, act_bits))
        self.bn2 = nn.BatchNorm1d(widths[-1])
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32, normalised -> logits [N, num_classes]."""
        x = functional.relu(self.conv1(x))
        x = self.stages(x)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.linear(self.bn2(x))
        return logits


class QNBlock(nn.Module):
    """quan2(relu(bn2(conv2(quan1(relu(bn1(conv1(x)))))) + shortcut(x))); the input is quantized already."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        weight_levels: Sequence[int] | None,
        act_levels: Sequence[int] | None,
    ) -> None:
        super().__init__()

        def conv(n_in: int, conv_stride: int) -> QuantConv2d:
            quantizer = None if weight_levels is None else QNQuantizer(weight_levels)
            return QuantConv2d(n_in, out_channels, 3, stride=conv_stride, padding=1, weight_quantizer=quantizer)

        self.conv1 = conv(in_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.quan1 = _activation(act_levels)
        self.conv2 = conv(out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.quan2 = _activation(act_levels)
        self.shortcut = OptionAShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.quan1(functional.relu(self.bn1(self.conv1(x))))
        result: Tensor = self.quan2(functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x)))
        return result


class QNResNet(nn.Module):
    """The CIFAR network of the public Quantization Networks code: order conv, batch norm, ReLU, quantizer.

    Args:
        blocks, widths, num_classes, in_channels: as for DAQResNet.
        weight_levels: integer levels of every convolution inside the blocks, or None for float weights.
        act_levels: integer levels after every ReLU, starting at 0, or None for float activations.

    Raises:
        OptionError: stage settings or levels that make no network.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (16, 32, 64),
        num_classes: int = 10,
        in_channels: int = 3,
        weight_levels: Sequence[int] | None = None,
        act_levels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.quan0 = _activation(act_levels)
        self.stages = _stages(blocks, widths, lambda i, o, s: QNBlock(i, o, s, weight_levels, act_levels))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] float32, normalised -> logits [N, num_classes]."""
        x = self.quan0(functional.relu(self.bn1(self.conv1(x))))
        x = self.stages(x)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def _activation(levels: Sequence[int] | None) -> nn.Module:
    return nn.Identity() if levels is None else QNQuantizer(levels)


def _stages(blocks: Sequence[int], widths: Sequence[int], block: Callable[[int, int, int], nn.Module]) -> nn.Sequential:
    """Sequential of stages named layer1, layer2, ..., each a Sequential of blocks (in, out, stride)."""
    check_stages(blocks, widths)
    stages = nn.Sequential()
    in_channels = widths[0]
    for number, (n_blocks, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        stage = nn.Sequential()
        for i in range(n_blocks):
            stage.append(block(in_channels, width, 2 if number > 1 and i == 0 else 1))
            in_channels = width
        stages.add_module(f"layer{number}", stage)
    return stages


def check_stages(blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Refuse stages that make no residual network.

    Raises:
        OptionError: the lists do not fit each other, hold numbers that are not positive, or too many blocks.
    """
    valid = len(blocks) == len(widths) and all(isinstance(n, int) and n > 0 for n in (*blocks, *widths))
    if not blocks or not valid or sum(blocks) > MAX_BLOCKS:
        raise OptionError(
            "the stages of a residual network do not fit together",
            got=f"blocks {list(blocks)[:16]}, widths {list(widths)[:16]}",
            expected=f"two equally long lists of positive numbers, at most {MAX_BLOCKS} blocks in all",
        )
