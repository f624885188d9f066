"""What a loaded checkpoint is, and what a caller may say about one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from qexport.detection import Detector


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with its soft quantizers, ready to be frozen.

    Attributes:
        model: evaluation mode, CPU, float32; its quantizers are soft modules whose evaluation form is hard.
        family: name of the family that read the file.
        arch: name of the architecture, or "module:factory" of a user's own network.
        input_shape: (C, H, W) of one image, or None if unknown.
        mean: per channel, subtracted from pixels / 255, or None if unknown.
        std: per channel, divides what is left, or None if unknown.
        class_names: one per output, or None.
        source: the file.
        sha256: of the file.
        temperature: final temperature of the soft quantizers, set in the model too; None if unknown, and then the
            soft network cannot be evaluated.
        notes: what was ignored or converted, in plain words.
        quantizer_types: classes of the user's quantizers, besides SoftQuantizer, found in the model.
        detector: priors and post-process, where the network detects objects.
    """

    model: nn.Module
    family: str
    arch: str
    input_shape: tuple[int, int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    class_names: tuple[str, ...] | None
    source: Path
    sha256: str
    temperature: float | None
    notes: tuple[str, ...]
    quantizer_types: tuple[type[nn.Module], ...] = ()
    detector: Detector | None = None


@dataclass(frozen=True)
class LoadOptions:
    """What the caller states about a checkpoint; None where nothing was said. See load_checkpoint."""

    arch: str | None = None
    model: str | Callable[[], nn.Module] | None = None
    quantizers: tuple[str, ...] = ()
    weight_levels: Sequence[int] | None = None
    qn_biases: str | Path | None = None
    temperature: float | None = None
    weight_bits: int | None = None
    act_bits: int | None = None


@dataclass(frozen=True)
class Loaded:
    """What a family returns: the parts of a Checkpoint that it knows."""

    model: nn.Module
    arch: str
    input_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    temperature: float | None = None
    notes: tuple[str, ...] = ()
    quantizer_types: tuple[type[nn.Module], ...] = ()
    detector: Detector | None = None
