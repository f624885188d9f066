"""Architectures by name, so that a checkpoint can say which network it holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from qexport.errors import OptionError
from qexport.models.digits import DAQDigitsNet, DigitsNet
from qexport.models.mobilenet_v2 import MobileNetV2
from qexport.models.quantizers import DAQPlacement, QNPlacement
from qexport.models.resnet import resnet18, resnet34, resnet50
from qexport.models.resnet_cifar import DAQResNet, QNResNet
from qexport.models.ssd300 import SSD300
from qexport.models.ssd_small import DAQSmallSSD, QNSmallSSD
from qexport.models.vgg import VGG16, AlexNet, VGGSmall

_DEPTHS = {20: 3, 32: 5, 56: 9}


@dataclass(frozen=True)
class Preprocessing:
    """How images become the network's input: (pixels / 255 - mean) / std, at this size.

    Attributes:
        input_shape: (C, H, W).
        mean, std: per channel.
    """

    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        make: builds it; keyword arguments only.
        preprocessing: what its public checkpoints were trained with; a checkpoint may say otherwise.
    """

    make: Callable[..., nn.Module]
    preprocessing: Preprocessing


IMAGENET = Preprocessing((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = Preprocessing((3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
VOC_SSD = Preprocessing((3, 300, 300), (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))
DIGITS = Preprocessing((1, 8, 8), (0.3058,), (0.3764,))
SCENES = Preprocessing((1, 64, 64), (0.0,), (1.0,))


def _qn(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """An architecture that takes a placement, for Quantization Networks."""

    def build_qn(
        *, weight_levels: Sequence[int] | None = None, act_levels: Sequence[int] | None = None, **arguments: Any
    ) -> nn.Module:
        return make(QNPlacement(weight_levels, act_levels), **arguments)

    return _with_arguments_of(make, build_qn)


def _daq(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """An architecture that takes a placement, for DAQ."""

    def build_daq(*, weight_bits: int | None = None, act_bits: int | None = None, **arguments: Any) -> nn.Module:
        return make(DAQPlacement(weight_bits, act_bits), **arguments)

    return _with_arguments_of(make, build_daq)


def _with_arguments_of(make: Callable[..., nn.Module], build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`build` with a signature that names the arguments of `make` beside its own, for messages and defaults."""
    parameters = inspect.signature(make).parameters
    fixed = make.keywords if isinstance(make, partial) else {}
    inherited = [p for name, p in parameters.items() if name != "placement" and name not in fixed]
    own = [p for p in inspect.signature(build).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    build.__signature__ = inspect.Signature([*inherited, *own])  # type: ignore[attr-defined]
    return build


_FAMILIES: dict[str, tuple[Callable[..., nn.Module], Preprocessing]] = {
    "alexnet": (AlexNet, IMAGENET),
    "mobilenet_v2": (MobileNetV2, IMAGENET),
    "resnet18": (resnet18, IMAGENET),
    "resnet34": (resnet34, IMAGENET),
    "resnet50": (resnet50, IMAGENET),
    "ssd300_vgg16": (SSD300, VOC_SSD),
    "vgg16": (VGG16, IMAGENET),
    "vgg_small": (VGGSmall, CIFAR),
}
"""Networks that leave the quantizers to a placement: there is one of each scheme."""

_ARCHITECTURES: dict[str, Architecture] = {
    "daq-resnet": Architecture(DAQResNet, CIFAR),
    "qn-resnet": Architecture(QNResNet, CIFAR),
    "daq-digits": Architecture(DAQDigitsNet, DIGITS),
    "qn-digits": Architecture(DigitsNet, DIGITS),
    "daq-ssd_small": Architecture(DAQSmallSSD, SCENES),
    "qn-ssd_small": Architecture(QNSmallSSD, SCENES),
    **{f"daq-resnet{depth}": Architecture(partial(DAQResNet, blocks=(n,) * 3), CIFAR) for depth, n in _DEPTHS.items()},
    **{f"qn-resnet{depth}": Architecture(partial(QNResNet, blocks=(n,) * 3), CIFAR) for depth, n in _DEPTHS.items()},
    **{f"daq-{name}": Architecture(_daq(make), data) for name, (make, data) in _FAMILIES.items()},
    **{f"qn-{name}": Architecture(_qn(make), data) for name, (make, data) in _FAMILIES.items()},
}


def architectures() -> tuple[str, ...]:
    """The names `build` knows, sorted."""
    return tuple(sorted(_ARCHITECTURES))


def architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        OptionError: the name is unknown; the message lists the known ones.
    """
    if name not in _ARCHITECTURES:
        raise OptionError(
            "unknown architecture",
            got=name,
            expected=f"one of {', '.join(architectures())}",
            remedy="for a network of your own use --model package.module:factory",
        )
    return _ARCHITECTURES[name]


def builder(name: str) -> Callable[..., nn.Module]:
    """The callable behind an architecture name.

    Raises:
        OptionError: as `architecture`.
    """
    return architecture(name).make


def build(name: str, **arguments: Any) -> nn.Module:
    """A freshly initialised network, in training mode.

    Args:
        name: one of `architectures()`.
        arguments: keyword arguments of that architecture.

    Raises:
        OptionError: the name, an argument's name or its value is not known to the architecture.
    """
    make = builder(name)
    known = inspect.signature(make).parameters
    surplus = sorted(set(arguments) - set(known))
    if surplus:
        raise OptionError(
            "the architecture does not know these arguments",
            where=name,
            got=", ".join(surplus),
            expected=f"some of {', '.join(known)}",
        )
    try:
        return make(**arguments)
    except (TypeError, ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        raise OptionError("the architecture cannot be built from these arguments", where=name, got=error) from error


def resnet_name(family: str, blocks: tuple[int, ...]) -> str:
    """The name for a residual network of `family` ("daq" or "qn") with these blocks: its depth where it has one."""
    for depth, n in _DEPTHS.items():
        if blocks == (n,) * 3:
            return f"{family}-resnet{depth}"
    return f"{family}-resnet"
