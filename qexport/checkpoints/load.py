"""The one way in: a file becomes a Checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from qexport.checkpoints.checkpoint import Checkpoint, Loaded, LoadOptions
from qexport.checkpoints.reading import read_checkpoint_file
from qexport.checkpoints.registry import Family, family_of
from qexport.detection import Detector
from qexport.errors import OptionError
from qexport.models.quantizers import set_temperature

_FAMILY_OPTIONS = {
    "arch": "--arch",
    "model": "--model",
    "quantizers": "--quantizer",
    "weight_levels": "--weight-levels",
    "qn_biases": "--qn-biases",
}


def load_checkpoint(
    path: str | Path,
    *,
    family: str | None = None,
    arch: str | None = None,
    model: str | Callable[[], nn.Module] | None = None,
    quantizers: Sequence[str] = (),
    weight_levels: Sequence[int] | None = None,
    qn_biases: str | Path | None = None,
    temperature: float | None = None,
    weight_bits: int | None = None,
    act_bits: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Checkpoint:
    """Read a checkpoint, find out what it holds, and build its network.

    Args:
        path: written by torch.save or safetensors; never trusted.
        family: a name of qexport.checkpoints.families(); None detects it.
        arch: the architecture the file must hold; None infers it.
        model: "package.module:factory", or the factory itself, of a network of the caller's own.
        quantizers: names of the caller's quantizer classes, as module.Class.
        weight_levels: integer levels of Quantization Networks weights where the file leaves them open.
        qn_biases: JSON file of weight biases for the Quantization Networks layout without them.
        temperature: final temperature of the soft quantizers where the file does not say it.
        weight_bits: bits the weights were trained for; DAQ files do not say.
        act_bits: bits the activations were trained for; DAQ files do not say.
        input_shape: (C, H, W); replaces the file's.
        mean: one per channel, subtracted from pixels / 255; replaces the file's.
        std: one per channel; replaces the file's.

    Raises:
        CheckpointError: the file is unreadable, unsafe, of no known family, or does not fit its network.
        OptionError: an option is wrong, missing, or does not fit the checkpoint.
    """
    options = LoadOptions(arch, model, tuple(quantizers), weight_levels, qn_biases, temperature, weight_bits, act_bits)
    if model is not None and family is None:
        family = "user"
    content = read_checkpoint_file(path)
    chosen = family_of(content, family)
    _refuse_foreign_options(options, chosen)
    loaded = chosen.load(content, options)
    loaded.model.eval()
    loaded = _preprocessing(loaded, input_shape, mean, std)
    return Checkpoint(
        model=loaded.model,
        family=chosen.name,
        arch=loaded.arch,
        input_shape=loaded.input_shape,
        mean=loaded.mean,
        std=loaded.std,
        class_names=loaded.class_names,
        source=content.path,
        sha256=content.sha256,
        temperature=_apply_temperature(loaded, temperature),
        notes=loaded.notes,
        quantizer_types=loaded.quantizer_types,
        detector=_detector(loaded),
    )


def _detector(loaded: Loaded) -> Detector | None:
    """The file's description, or else the network's own: a property named detector."""
    own = getattr(loaded.model, "detector", None)
    return loaded.detector or (own if isinstance(own, Detector) else None)


def _refuse_foreign_options(options: LoadOptions, family: Family) -> None:
    for field, option in _FAMILY_OPTIONS.items():
        if getattr(options, field) not in (None, ()) and field not in family.options:
            raise OptionError(
                f"checkpoints of the family {family.name!r} have no use for this option",
                where=option,
                got=getattr(options, field),
                remedy="leave it out, or choose another family with --family",
            )


def _apply_temperature(loaded: Loaded, temperature: float | None) -> float | None:
    """Set the caller's or the file's temperature in the soft quantizers; returns the one that was set.

    Raises:
        OptionError: the caller's is not positive, or there is no quantizer to give it to.
    """
    chosen = loaded.temperature if temperature is None else temperature
    if chosen is None:
        return None
    if not math.isfinite(chosen) or chosen <= 0:
        raise OptionError("a temperature is a positive number", where="--temperature", got=chosen)
    if set_temperature(loaded.model, chosen) == 0 and temperature is not None:
        raise OptionError(
            "the network has no soft quantizer with a temperature",
            where="--temperature",
            got=temperature,
            remedy="leave it out",
        )
    return chosen


def _for_channels(values: Sequence[float], shape: tuple[int, ...] | None) -> tuple[float, ...]:
    """One value per channel; a single one holds for all."""
    given = tuple(float(v) for v in values)
    return given * shape[0] if shape is not None and len(given) == 1 else given


def _preprocessing(
    loaded: Loaded,
    input_shape: tuple[int, int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Loaded:
    """`loaded` with what the caller states in place of what the file says, checked.

    Raises:
        OptionError: sizes are not positive, mean and std do not fit the channels, or a std is not positive.
    """
    shape = loaded.input_shape if input_shape is None else tuple(input_shape)
    if shape is not None and (len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape)):
        raise OptionError(
            "an input shape is three positive integers", where="--input-shape", got=shape, expected="C,H,W"
        )
    if shape is not None and loaded.input_shape is not None and shape[0] != loaded.input_shape[0]:
        raise OptionError(
            "the network takes another number of channels",
            where="--input-shape",
            got=shape,
            expected=f"C = {loaded.input_shape[0]}",
        )
    means = loaded.mean if mean is None else _for_channels(mean, shape)
    stds = loaded.std if std is None else _for_channels(std, shape)
    if (means is None) != (stds is None):
        raise OptionError(
            "mean and std belong together",
            where="--mean, --std",
            got=f"mean {means}, std {stds}",
            remedy="give both or neither",
        )
    if means is not None and stds is not None:
        n_channels = len(means) if shape is None else shape[0]
        finite = all(math.isfinite(v) for v in (*means, *stds))
        if len(means) != n_channels or len(stds) != n_channels or not finite or not all(v > 0 for v in stds):
            raise OptionError(
                "mean and std do not fit the input",
                where="--mean, --std",
                got=f"mean {list(means)}, std {list(stds)}",
                expected=f"{n_channels} finite numbers each, std positive",
            )
    return replace(loaded, input_shape=shape, mean=means, std=stds)
