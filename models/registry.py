"""Architectures by name, so that a checkpoint can say which network it holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from qexport.errors import OptionError
from qexport.models.digits import DigitsNet
from qexport.models.resnet_cifar import DAQResNet, QNResNet
from qexport.models.ssd_small import DAQSmallSSD, QNSmallSSD

_DEPTHS = {20: 3, 32: 5, 56: 9}

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "daq-resnet": DAQResNet,
    "qn-resnet": QNResNet,
    "qn-digits": DigitsNet,
    "daq-ssd_small": DAQSmallSSD,
    "qn-ssd_small": QNSmallSSD,
    **{f"daq-resnet{depth}": partial(DAQResNet, blocks=(n,) * 3) for depth, n in _DEPTHS.items()},
    **{f"qn-resnet{depth}": partial(QNResNet, blocks=(n,) * 3) for depth, n in _DEPTHS.items()},
}


def architectures() -> tuple[str, ...]:
    """The names `build` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def builder(name: str) -> Callable[..., nn.Module]:
    """The callable behind an architecture name.

    Raises:
        OptionError: the name is unknown; the message lists the known ones.
    """
    if name not in _BUILDERS:
        raise OptionError(
            "unknown architecture",
            got=name,
            expected=f"one of {', '.join(architectures())}",
            remedy="for a network of your own use --model package.module:factory",
        )
    return _BUILDERS[name]


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
