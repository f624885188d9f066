"""A small native checkpoint and images for it, for tests of what users do with files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qexport.checkpoints import save_native
from qexport.models.registry import build

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INPUT_SHAPE = (1, 8, 8)
WIDTHS = (4, 8)


def save_digits(path: Path, *, damage: bool = False, weight_only: bool = False) -> Path:
    """An untrained 2-bit digits network whose random weights reach all levels; `damage` puts a NaN into the first.

    With `weight_only` its activations are float.
    """
    torch.manual_seed(0)
    arguments = {"widths": WIDTHS} | ({"act_levels": None} if weight_only else {})
    model = build("qn-digits", **arguments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.uniform_(module.running_var, 4.0, 16.0)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.7)
    if damage:
        next(model.parameters()).data.view(-1)[0] = float("nan")
    save_native(
        path,
        model,
        arch="qn-digits",
        arguments=arguments,
        input_shape=INPUT_SHAPE,
        mean=(0.3,),
        std=(0.4,),
        temperature=50,
        class_names=CLASS_NAMES,
    )
    return path


def random_digits(count: int) -> NDArray[np.uint8]:
    """uint8 [count, 8, 8, 1]."""
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)


def save_images(path: Path, count: int = 20) -> Path:
    """Random images with random labels."""
    labels = np.random.default_rng(1).integers(0, len(CLASS_NAMES), count)
    np.savez(path, images=random_digits(count), labels=labels)
    return path
