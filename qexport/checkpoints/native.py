"""Our own format: one torch.save'd dict of plain values and tensors that says all there is to know about itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from qexport.checkpoints.checkpoint import Loaded, LoadOptions
from qexport.checkpoints.reading import FileContent
from qexport.checkpoints.registry import Family, register
from qexport.checkpoints.tensors import clean_state_dict, fit
from qexport.detection import Detector
from qexport.errors import CheckpointError, OptionError, OutputError
from qexport.models.registry import build, builder

FORMAT = "qexport-native"
VERSION = 1

_T = TypeVar("_T")
_Number = TypeVar("_Number", int, float)


def save_native(
    path: str | Path,
    model: nn.Module,
    *,
    arch: str,
    arguments: Mapping[str, Any],
    input_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    temperature: float | None = None,
    class_names: Sequence[str] | None = None,
    detector: Detector | None = None,
) -> None:
    """Write a self-describing checkpoint; either the whole file appears, or nothing.

    Args:
        path: replaced if it exists; its directory must exist.
        model: the network `build(arch, **arguments)` gives, trained.
        arch: a name of qexport.models.registry.
        arguments: plain values; quantizer settings (levels, bits) are among them.
        input_shape: (C, H, W).
        mean: per channel, subtracted from pixels / 255.
        std: per channel, divides the rest.
        temperature: final temperature of the soft quantizers.
        class_names: one per output; of a detector one per class without the background.
        detector: priors and post-process, of a network that detects objects.

    Raises:
        OptionError: `model` is not what `arch` and `arguments` build.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with torch.device("meta"):
        expected = build(arch, **arguments).state_dict()
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in expected.items()}:
        raise OptionError(
            "the network is not the one its architecture and arguments build", where=arch, got=dict(arguments)
        )
    content = {
        "format": FORMAT,
        "version": VERSION,
        "arch": arch,
        "arguments": {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()},
        "state_dict": state,
        "preprocessing": {"input_shape": list(input_shape), "mean": list(mean), "std": list(std)},
        "temperature": None if temperature is None else float(temperature),
        "class_names": None if class_names is None else list(class_names),
        "detector": None if detector is None else detector.to_dict(),
    }
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError("the checkpoint cannot be written", where=str(path), got=error) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            torch.save(content, stream)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise OutputError("the checkpoint cannot be written", where=str(path), got=error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _recognises(content: FileContent) -> bool:
    return isinstance(content.value, Mapping) and content.value.get("format") == FORMAT


def _load(content: FileContent, options: LoadOptions) -> Loaded:
    where = str(content.path)
    value = content.value
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        raise CheckpointError("not a native qexport checkpoint", where=where, expected=f'the key "format": "{FORMAT}"')
    if value.get("version") != VERSION:
        raise CheckpointError(
            "the checkpoint's format version is unknown",
            where=where,
            got=value.get("version"),
            expected=VERSION,
            remedy="use the qexport version that wrote it, or a newer one",
        )
    arch = _field(value, "arch", str, where)
    arguments = _field(value, "arguments", dict, where)
    preprocessing = _field(value, "preprocessing", dict, where)
    builder(arch)
    if options.arch not in (None, arch):
        raise OptionError(
            "the checkpoint holds another network than --arch says", where=where, got=options.arch, expected=arch
        )
    tensors, notes = clean_state_dict(_field(value, "state_dict", dict, where), content)
    try:
        with torch.device("meta"):
            model = build(arch, **arguments)
    except (OptionError, TypeError) as error:
        raise CheckpointError(
            "the network described in the checkpoint cannot be built", where=where, got=error
        ) from error
    fit(model, tensors, content)
    names = value.get("class_names")
    shape = _numbers(preprocessing, "input_shape", int, where)
    if len(shape) != 3:
        raise CheckpointError("input_shape is not C, H, W", where=where, got=shape)
    return Loaded(
        model=model,
        arch=arch,
        input_shape=(shape[0], shape[1], shape[2]),
        mean=_numbers(preprocessing, "mean", float, where),
        std=_numbers(preprocessing, "std", float, where),
        class_names=None if names is None else tuple(str(n) for n in _field(value, "class_names", list, where)),
        temperature=None if value.get("temperature") is None else _field(value, "temperature", float, where),
        notes=notes,
        detector=_detector(value, where),
    )


def _detector(value: Mapping[str, Any], where: str) -> Detector | None:
    """The description of the detector; files of classifiers, and older ones, have none.

    Raises:
        CheckpointError: it cannot be read.
    """
    if value.get("detector") is None:
        return None
    try:
        return Detector.from_dict(_field(value, "detector", dict, where))
    except OptionError as error:
        raise CheckpointError("the detector described in the checkpoint is none", where=where, got=error) from error


def _field(value: Mapping[str, Any], key: str, kind: type[_T], where: str) -> _T:
    """value[key], which must be of type `kind`.

    Raises:
        CheckpointError: it is absent or of another type.
    """
    found = value.get(key)
    if not isinstance(found, kind):
        raise CheckpointError(
            "a field of the native checkpoint is missing or of the wrong type",
            where=f"{where}: {key}",
            got=type(found).__name__,
            expected=kind.__name__,
        )
    return found


def _numbers(value: Mapping[str, Any], key: str, kind: type[_Number], where: str) -> tuple[_Number, ...]:
    found = _field(value, key, list, where)
    if not all(isinstance(entry, int | kind) and not isinstance(entry, bool) for entry in found):
        raise CheckpointError("no list of numbers", where=f"{where}: {key}", got=found[:8], expected=kind.__name__)
    return tuple(kind(entry) for entry in found)


register(
    Family(
        name="native",
        sign=f'the key "format" with the value "{FORMAT}"',
        recognises=_recognises,
        load=_load,
        options=frozenset({"arch"}),
    )
)
