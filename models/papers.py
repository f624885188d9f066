"""The bit pairs the papers report, and small inputs at which every architecture still has all its operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SIGNS, _TERNARY = (-1, 1), (-1, 0, 1)
_UP_TO_2, _POWERS = (-2, -1, 0, 1, 2), (-4, -2, -1, 0, 1, 2, 4)


@dataclass(frozen=True)
class BitPair:
    """One configuration of a scheme.

    Attributes:
        scheme: prefix of the architecture, "qn" or "daq".
        arguments: its keyword arguments.
    """

    scheme: str
    arguments: Mapping[str, Any]


PAIRS: dict[str, BitPair] = {
    "qn-w1a32": BitPair("qn", {"weight_levels": _SIGNS}),
    "qn-w2a32": BitPair("qn", {"weight_levels": _TERNARY}),
    "qn-w3a32-2": BitPair("qn", {"weight_levels": _UP_TO_2}),
    "qn-w3a32-4": BitPair("qn", {"weight_levels": _POWERS}),
    "qn-w1a1": BitPair("qn", {"weight_levels": _SIGNS, "act_levels": (0, 1)}),
    "qn-w1a2": BitPair("qn", {"weight_levels": _SIGNS, "act_levels": (0, 1, 2, 3)}),
    "qn-w2a2": BitPair("qn", {"weight_levels": _TERNARY, "act_levels": (0, 1, 2, 3)}),
    "daq-w1a32": BitPair("daq", {"weight_bits": 1}),
    "daq-w1a1": BitPair("daq", {"weight_bits": 1, "act_bits": 1}),
    "daq-w2a2": BitPair("daq", {"weight_bits": 2, "act_bits": 2}),
    "daq-w3a3": BitPair("daq", {"weight_bits": 3, "act_bits": 3}),
    "daq-w4a4": BitPair("daq", {"weight_bits": 4, "act_bits": 4}),
}
"""Quantization Networks name levels, DAQ names bits; 32 stands for activations that training leaves float."""


@dataclass(frozen=True)
class SmallInput:
    """A small version of an architecture.

    Attributes:
        input_shape: (C, H, W).
        arguments: keyword arguments beside the quantizers'.
    """

    input_shape: tuple[int, int, int]
    arguments: Mapping[str, Any]


SMALL_INPUTS: dict[str, SmallInput] = {
    "alexnet": SmallInput((3, 64, 64), {"num_classes": 10, "pooled": 1, "hidden": 64}),
    "mobilenet_v2": SmallInput((3, 64, 64), {"num_classes": 10, "width": 0.5}),
    "resnet18": SmallInput((3, 64, 64), {"num_classes": 10, "widths": (16, 32, 64, 128)}),
    "resnet20": SmallInput((3, 16, 16), {}),
    "resnet32": SmallInput((3, 16, 16), {}),
    "resnet34": SmallInput((3, 64, 64), {"num_classes": 10, "widths": (16, 32, 64, 128)}),
    "resnet50": SmallInput((3, 64, 64), {"num_classes": 10, "widths": (16, 32, 64, 128)}),
    "resnet56": SmallInput((3, 16, 16), {}),
    "ssd300_vgg16": SmallInput((3, 80, 80), {"num_classes": 2, "extras": 2, "image_size": 80}),
    "ssd_small": SmallInput((1, 32, 32), {"image_size": 32}),
    "vgg16": SmallInput((3, 32, 32), {"num_classes": 10, "pooled": 1, "hidden": 64}),
    "vgg_small": SmallInput((3, 16, 16), {"size": 16}),
}
