"""The layout of the public DAQ code: bounds beside each quantized weight, bit widths nowhere."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from qexport.checkpoints.checkpoint import Loaded, LoadOptions
from qexport.checkpoints.reading import FileContent
from qexport.checkpoints.registry import Family, register
from qexport.checkpoints.shape import read_tensors, resnet_shape
from qexport.checkpoints.tensors import find_state_dict, fit, names_of
from qexport.errors import CheckpointError, OptionError
from qexport.models.quantizers.daq import GAMMA

UNBOUNDED = 2.0**31
"""uA keeps this start value where activations were never quantized."""

_RENAMED = {
    "weight_quantizer.upper": "uW",
    "weight_quantizer.lower": "lW",
    "input_quantizer.upper": "uA",
    "output_scale": "beta",
}


def _block(stage: int, block: int) -> str:
    return f"layer{stage}.block_{block}.0."


def _file_name(name: str) -> str:
    """stages.layer1.0.conv1.weight_quantizer.upper -> layer1.block_0.0.conv1.uW."""
    for ours, theirs in _RENAMED.items():
        if name.endswith(ours):
            name = name.removesuffix(ours) + theirs
    if not name.startswith("stages."):
        return name
    _, stage, block, rest = name.split(".", 3)
    return f"{stage}.block_{block}.0.{rest}"


def _recognises(content: FileContent) -> bool:
    state = find_state_dict(content.value)
    return state is not None and any(str(name).endswith("layer1.block_0.0.conv1.weight") for name in state)


def _load(content: FileContent, options: LoadOptions) -> Loaded:
    tensors, notes = read_tensors(content, "daq")
    shape = resnet_shape(tensors, content, _block, "linear.weight")
    bounded = sorted(name.removesuffix("uW") for name in tensors if name.endswith(".uW"))
    _check_bounds(tensors, bounded, content)
    weight_bits = _required(options.weight_bits, "weights", "--weight-bits", content) if bounded else None
    act_bits = None
    if _activations_quantized(tensors, bounded, content):
        act_bits = _required(options.act_bits, "activations", "--act-bits", content)
    arch, model = shape.build("daq", options.arch, content, weight_bits=weight_bits, act_bits=act_bits)

    def unused(name: str) -> bool:
        """The stem's batch norm, which the original forward never calls; lA, init, and an uA left unbounded."""
        return name.startswith("bn1.") or name.endswith((".lA", ".init")) or (act_bits is None and name.endswith(".uA"))

    fit(model, tensors, content, file_name=_file_name, unused=unused)
    extra = []
    if any(name.startswith("bn1.") for name in tensors):
        extra.append("ignored bn1.*: the original network holds a batch norm after the stem that it never applies")
    if bounded and act_bits is None:
        extra.append("activations are float in this checkpoint (every uA is 2^31)")
    if not bounded:
        extra.append("neither weights nor activations are quantized in this checkpoint")
    return Loaded(
        model=model,
        arch=arch,
        input_shape=shape.input_shape,
        # The value of DAQ's soft form does not depend on its temperature, so it can always be evaluated.
        temperature=GAMMA if bounded else None,
        notes=(*notes, *extra),
    )


def _required(bits: int | None, what: str, option: str, content: FileContent) -> int:
    if bits is None:
        raise OptionError(
            f"a DAQ checkpoint does not say how many bits its {what} have",
            where=str(content.path),
            remedy=f"say --bits N, or {option} N, as in training",
        )
    return bits


def _check_bounds(tensors: Mapping[str, Tensor], layers: list[str], content: FileContent) -> None:
    """Raises CheckpointError naming layers whose bounds are absent, not initialised, or the wrong way round."""
    scalars = {name: tensors[name] for p in layers for name in (f"{p}uW", f"{p}lW", f"{p}uA") if name in tensors}
    broken = [name for name, value in scalars.items() if value.numel() != 1]
    absent = [f"{p}{name}" for p in layers for name in ("uW", "lW", "uA") if f"{p}{name}" not in tensors]
    if broken or absent:
        raise CheckpointError(
            "quantizer bounds are missing or no scalars",
            where=str(content.path),
            got=", ".join((*absent, *broken)[:20]),
        )
    fresh = [p for p in layers if f"{p}init" in tensors and bool(tensors[f"{p}init"].any())]
    if fresh:
        raise CheckpointError(
            "quantizers were never initialised (init is not 0)",
            where=str(content.path),
            got=names_of(p.rstrip(".") for p in fresh),
            remedy="train at least one step before saving",
        )
    crossed = [
        f"{p.rstrip('.')} (lW {float(tensors[f'{p}lW']):g}, uW {float(tensors[f'{p}uW']):g}, "
        f"uA {float(tensors[f'{p}uA']):g})"
        for p in layers
        if not float(tensors[f"{p}lW"]) < float(tensors[f"{p}uW"]) or not float(tensors[f"{p}uA"]) > 0
    ]
    if crossed:
        raise CheckpointError(
            "quantizer bounds leave no interval",
            where=str(content.path),
            got=names_of(crossed),
            expected="lW < uW and 0 < uA",
        )


def _activations_quantized(tensors: Mapping[str, Tensor], layers: list[str], content: FileContent) -> bool:
    free = [p for p in layers if float(tensors[f"{p}uA"]) == UNBOUNDED]
    if free and len(free) < len(layers):
        raise CheckpointError(
            "activations are quantized in some layers only",
            where=str(content.path),
            got=f"uA is 2^31 in {names_of(p.rstrip('.') for p in free)}",
            expected="a trained uA in every layer or in none",
        )
    return bool(layers) and not free


register(
    Family(
        name="daq",
        sign="tensors named layer1.block_0.0.conv1.weight (with uW, lW, uA beside it where quantized)",
        recognises=_recognises,
        load=_load,
        options=frozenset({"arch"}),
    )
)
