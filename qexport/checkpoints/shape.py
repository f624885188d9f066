"""The settings of a CIFAR residual network, read off the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from qexport.checkpoints.reading import FileContent
from qexport.checkpoints.registry import describe
from qexport.checkpoints.tensors import clean_state_dict, find_state_dict
from qexport.errors import CheckpointError, OptionError
from qexport.models.registry import architectures, build, builder, resnet_name

CIFAR_SIZE = 32
"""Height and width these networks were made for; no file states them."""


@dataclass(frozen=True)
class ResNetShape:
    """Arguments that DAQResNet and QNResNet share."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    num_classes: int
    in_channels: int

    def build(self, prefix: str, arch: str | None, content: FileContent, **settings: object) -> tuple[str, nn.Module]:
        """(architecture name, network without memory, on the meta device).

        Args:
            prefix: "daq" or "qn".
            arch: what the caller demands, or None.
            content: the file, for messages.
            settings: further arguments of the architecture.

        Raises:
            OptionError: `arch` is unknown or another network than the file's.
        """
        name = resnet_name(prefix, self.blocks)
        if arch is not None:
            builder(arch)
            if arch not in (name, f"{prefix}-resnet"):
                raise OptionError(
                    "the checkpoint holds another network than --arch says",
                    where=str(content.path),
                    got=arch,
                    expected=name,
                )
        with torch.device("meta"):
            return name, build(name, **asdict(self), **settings)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (self.in_channels, CIFAR_SIZE, CIFAR_SIZE)


def read_tensors(content: FileContent, family: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The file's clean state dict and notes.

    Raises:
        CheckpointError: the file holds none.
    """
    raw = find_state_dict(content.value)
    if raw is None:
        raise CheckpointError(
            f"the file has no state dict, so it is no {family} checkpoint",
            where=str(content.path),
            got=describe(content.value),
            expected="a dict with the key state_dict",
        )
    return clean_state_dict(raw, content)


def resnet_shape(
    tensors: Mapping[str, Tensor], content: FileContent, block_name: Callable[[int, int], str], head: str
) -> ResNetShape:
    """Count stages and blocks, measure widths.

    Args:
        tensors: clean tensors by the file's names.
        content: the file, for messages.
        block_name: (stage from 1, block from 0) -> prefix of that block's tensors.
        head: name of the last layer's weight.

    Raises:
        CheckpointError: the tensors are not those of such a network.
    """

    def first_conv(stage: int, block: int) -> str:
        return f"{block_name(stage, block)}conv1.weight"

    needed = ["conv1.weight", first_conv(1, 0), head]
    found = [name for name in needed if name in tensors]
    if len(found) < len(needed) or any("downsample" in name or ".conv3." in name for name in tensors):
        raise CheckpointError(
            "the tensors are not those of a residual network for 32x32 images with parameter-free shortcuts",
            where=str(content.path),
            got=f"{len(tensors)} tensors: {', '.join(list(tensors)[:8])}, ...",
            expected=f"{', '.join(needed)} and so on; known architectures: {', '.join(architectures())}",
            remedy="give your own network with --model package.module:factory",
        )
    blocks: list[int] = []
    widths: list[int] = []
    while first_conv(len(blocks) + 1, 0) in tensors:
        stage = len(blocks) + 1
        n = 1
        while first_conv(stage, n) in tensors:
            n += 1
        blocks.append(n)
        widths.append(tensors[first_conv(stage, 0)].shape[0])
    stem = tensors["conv1.weight"]
    if stem.dim() != 4:
        raise CheckpointError(
            "the stem's weight is no convolution's",
            where=f"{content.path}: conv1.weight",
            got=f"shape {list(stem.shape)}",
            expected="four dimensions",
        )
    return ResNetShape(tuple(blocks), tuple(widths), tensors[head].shape[0], stem.shape[1])
