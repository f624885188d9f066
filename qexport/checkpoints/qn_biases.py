"""Weight biases of Quantization Networks: numbers from a checkpoint's lists or from a JSON file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from qexport.errors import CheckpointError, OptionError

_MOST_NUMBERS = 4096
"""Most numbers one entry may have: far beyond any quantizer, far below what a hostile file could claim."""


def numbers(value: object, where: str) -> tuple[float, ...]:
    """A tensor, a number or a list of numbers as a tuple of floats.

    Raises:
        CheckpointError: it is something else, is empty, or is too long.
    """
    if isinstance(value, Tensor):
        size = value.numel()
        value = value.detach().flatten().tolist() if 0 < size <= _MOST_NUMBERS and not value.is_complex() else size
        if isinstance(value, int):
            raise CheckpointError("a tensor of the wrong size", where=where, got=f"{size} elements")
    entries: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    flat = [float(e) if isinstance(e, Tensor) and e.numel() == 1 else e for e in entries]
    plain = [float(e) for e in flat if isinstance(e, int | float) and not isinstance(e, bool)]
    if not flat or len(plain) != len(flat) or len(flat) > _MOST_NUMBERS:
        raise CheckpointError(
            "no list of numbers", where=where, got=f"{type(value).__name__} of {len(flat)}", expected="numbers"
        )
    return tuple(plain)


def read_biases_file(path: str | Path, n_layers: int) -> tuple[tuple[float, ...], ...]:
    """The weight biases from a JSON file: {"biases": [b, ...]} for all layers alike, or one list a layer.

    Args:
        path: the file.
        n_layers: how many lists are needed.

    Raises:
        OptionError: the file cannot be read, is not of that form, or has another number of lists.
    """
    form = f'{{"biases": [b_1, ..., b_n]}} or {{"biases": [[...], ...]}} with {n_layers} lists'
    where = f"--qn-biases {path}"
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError("the file of weight biases cannot be read", where=where, got=error, expected=form) from error
    lists = value.get("biases") if isinstance(value, dict) else None
    if not isinstance(lists, list) or not lists:
        raise OptionError("no list of biases in the file", where=where, got=type(value).__name__, expected=form)
    if not any(isinstance(entry, list) for entry in lists):
        lists = [lists] * n_layers
    if len(lists) != n_layers:
        raise OptionError("wrong number of bias lists", where=where, got=len(lists), expected=f"{n_layers} lists")
    try:
        return tuple(numbers(entry, f"biases[{i}]") for i, entry in enumerate(lists))
    except CheckpointError as error:
        raise OptionError(error.what, where=f"{where}: {error.where}", got=error.got, expected=form) from error
