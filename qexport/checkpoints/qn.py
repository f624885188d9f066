"""The layouts of the public Quantization Networks code: a state dict, and lists of weight scales beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from qexport.checkpoints.checkpoint import Loaded, LoadOptions
from qexport.checkpoints.qn_biases import numbers, read_biases_file
from qexport.checkpoints.reading import FileContent
from qexport.checkpoints.registry import Family, register
from qexport.checkpoints.shape import read_tensors, resnet_shape
from qexport.checkpoints.tensors import find_state_dict, fit, require_finite
from qexport.errors import CheckpointError, OptionError
from qexport.models.quantizers import QuantConv2d, QuantLinear
from qexport.stepfunction import recover_levels

_UNAMBIGUOUS = {1: (-1, 1), 2: (-1, 0, 1), 4: (-2, -1, 0, 1, 2)}
"""Weight levels by number of thresholds, where the public code trains only one choice."""


@dataclass(frozen=True)
class _WeightScales:
    """What lies beside the state dict, one entry a quantized layer in module order: scales [], biases [n]."""

    alphas: tuple[Tensor, ...]
    betas: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


def _recognises(content: FileContent) -> bool:
    state = find_state_dict(content.value)
    if state is None or not isinstance(content.value, Mapping):
        return False
    lists = all(isinstance(content.value.get(key), list | tuple) for key in ("alpha", "beta"))
    return lists or any(str(name).endswith("quan1.scales") for name in state)


def _block(stage: int, block: int) -> str:
    return f"layer{stage}.{block}."


def _load(content: FileContent, options: LoadOptions) -> Loaded:
    tensors, notes = read_tensors(content, "qn")
    shape = resnet_shape(tensors, content, _block, "fc.weight")
    scales = _weight_scales(content, options)
    weight_levels = _weight_levels(scales, options, content)
    act_levels = _take_activation_levels(tensors, content)
    arch, model = shape.build("qn", options.arch, content, weight_levels=weight_levels, act_levels=act_levels)
    if scales is not None:
        tensors |= _by_layer(scales, model, content)
    fit(model, tensors, content, file_name=lambda name: name.removeprefix("stages."))
    if weight_levels is None and act_levels is None:
        notes = (*notes, "neither weights nor activations are quantized in this checkpoint")
    return Loaded(model=model, arch=arch, input_shape=shape.input_shape, notes=notes)


def _weight_scales(content: FileContent, options: LoadOptions) -> _WeightScales | None:
    """The lists alpha, beta, bias; None where the weights are float.

    Raises:
        CheckpointError: the lists are malformed or disagree in length, or a bias list does not ascend.
        OptionError: the biases are in neither the file nor --qn-biases, or in both.
    """
    where = str(content.path)
    value = content.value if isinstance(content.value, Mapping) else {}
    if _absent(value.get("alpha")) and _absent(value.get("beta")):
        if options.weight_levels is not None or options.qn_biases is not None:
            raise OptionError(
                "the checkpoint's weights are float, so they have no levels",
                where=where,
                remedy="leave out --weight-levels and --qn-biases",
            )
        return None
    alphas, betas = (_scalars(value.get(key), key, where) for key in ("alpha", "beta"))
    stored = value.get("bias")
    if stored is not None and options.qn_biases is not None:
        raise OptionError(
            "the weight biases are in the checkpoint already", where=where, remedy="leave out --qn-biases"
        )
    if stored is None and options.qn_biases is None:
        raise OptionError(
            "this Quantization Networks checkpoint holds alpha and beta but no weight biases",
            where=where,
            got=f"{len(alphas)} quantized layers without biases",
            expected='a JSON file {"biases": [b_1, ..., b_n]} for all layers alike, or {"biases": [[...], ...]} with '
            "one list for each quantized layer in module order",
            remedy="give the file with --qn-biases; the numbers stand in the training configuration",
        )
    if options.qn_biases is not None:
        biases = read_biases_file(options.qn_biases, len(alphas))
    else:
        if not isinstance(stored, list | tuple):
            raise CheckpointError(
                "bias is no list", where=where, got=type(stored).__name__, expected="one list of numbers a layer"
            )
        biases = tuple(numbers(entry, f"{where}: bias[{i}]") for i, entry in enumerate(stored))
    if not len(alphas) == len(betas) == len(biases):
        raise CheckpointError(
            "the lists beside the state dict differ in length",
            where=where,
            got=f"{len(alphas)} alpha, {len(betas)} beta, {len(biases)} bias",
            expected="one entry for each quantized layer in all three",
        )
    return _WeightScales(alphas, betas, tuple(torch.tensor(b, dtype=torch.float32) for b in biases))


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, list | tuple) and not value)


def _scalars(value: object, key: str, where: str) -> tuple[Tensor, ...]:
    """A list of one-element tensors or numbers as float32 tensors of shape []."""
    if not isinstance(value, list | tuple):
        raise CheckpointError(f"{key} is no list", where=where, got=type(value).__name__, expected="a list of scalars")
    single = [numbers(v, f"{where}: {key}[{i}]") for i, v in enumerate(value)]
    wrong = [i for i, v in enumerate(single) if len(v) != 1]
    if wrong:
        raise CheckpointError(
            f"entries of {key} are no scalars", where=where, got=f"{key}{wrong[:8]}", expected="one number a layer"
        )
    return tuple(torch.tensor(v[0], dtype=torch.float32) for v in single)


def _weight_levels(scales: _WeightScales | None, options: LoadOptions, content: FileContent) -> tuple[int, ...] | None:
    """The caller's levels, or those the number of thresholds allows only one choice for.

    Raises:
        OptionError: they must be told, or do not fit the number of thresholds.
        CheckpointError: layers have different numbers of thresholds.
    """
    if scales is None:
        return None
    counts = [b.numel() for b in scales.biases]
    n = max(counts, key=counts.count)
    where = str(content.path)
    if options.weight_levels is not None:
        levels = tuple(options.weight_levels)
        wrong = [f"layer {i} has {c}" for i, c in enumerate(counts) if c != len(levels) - 1]
        if wrong:
            raise OptionError(
                "--weight-levels does not fit the thresholds in the checkpoint",
                where=where,
                got=f"{len(levels)} levels, which need {len(levels) - 1} thresholds; {', '.join(wrong[:20])}",
                expected=f"{n + 1} levels",
            )
        return levels
    if any(count != n for count in counts):
        raise CheckpointError(
            "the weight quantizers have different numbers of thresholds",
            where=where,
            got=", ".join(f"layer {i}: {c}" for i, c in enumerate(counts) if c != n),
            expected=f"{n}, as in most layers",
        )
    if n not in _UNAMBIGUOUS:
        raise OptionError(
            "the weight levels are not in the checkpoint and cannot be inferred",
            where=where,
            got=f"{n} thresholds in each of {len(counts)} layers",
            expected=f"{n + 1} ascending integers",
            remedy="say --weight-levels=-3,-2,-1,0,1,2,3 or --weight-levels=-4,-2,-1,0,1,2,4, as in training"
            if n == 6
            else f"say --weight-levels with {n + 1} integers, as in training",
        )
    return _UNAMBIGUOUS[n]


def _take_activation_levels(tensors: dict[str, Tensor], content: FileContent) -> tuple[int, ...] | None:
    """The levels [0] + cumsum(scales), with `tensors` brought into our layout: scales removed, alpha and beta scalar.

    Where the scales share a step other than 1, the levels are divided by it and alpha is multiplied.

    Raises:
        CheckpointError: scales are no positive multiples of a step, or differ between layers.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name in [name for name in tensors if name.endswith(".scales")]:
        prefix = name.removesuffix("scales")
        gaps = tensors.pop(name).flatten()
        require_finite({name: gaps}, str(content.path))
        for scalar in (f"{prefix}alpha", f"{prefix}beta"):
            if scalar in tensors and tensors[scalar].numel() == 1:
                tensors[scalar] = tensors[scalar].reshape(())
        recovered = recover_levels(np.concatenate([[0.0], np.cumsum(gaps.numpy())]).astype(np.float32))
        if recovered is None or bool((gaps <= 0).any()):
            raise CheckpointError(
                "activation levels are no ascending integers times a step",
                where=f"{content.path}: {name}",
                got=gaps.tolist()[:16],
                expected="positive gaps with a common step",
            )
        found[prefix.rstrip(".")] = tuple(int(level) for level in recovered[0])
        if f"{prefix}alpha" in tensors:
            tensors[f"{prefix}alpha"] = tensors[f"{prefix}alpha"] * float(recovered[1])
    if len(set(found.values())) > 1:
        raise CheckpointError(
            "activation quantizers have different levels",
            where=str(content.path),
            got="; ".join(f"{layer}: {list(levels)}" for layer, levels in list(found.items())[:20]),
            expected="the same levels everywhere",
        )
    return next(iter(found.values()), None)


def _by_layer(scales: _WeightScales, model: nn.Module, content: FileContent) -> dict[str, Tensor]:
    """The scales under our names. Entry i belongs to the i-th convolution or linear layer without first and last.

    Raises:
        CheckpointError: the network has another number of such layers; a scale or bias is NaN, infinite or, for a
            bias, below its predecessor.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)][1:-1]
    names = [n.removeprefix("stages.") for n, m in layers if isinstance(m, QuantConv2d | QuantLinear)]
    where = str(content.path)
    if len(names) != len(scales.alphas):
        raise CheckpointError(
            "the lists beside the state dict do not fit the network",
            where=where,
            got=f"{len(scales.alphas)} entries",
            expected=f"{len(names)}, one for each convolution without the first and the last layer",
        )
    found: dict[str, Tensor] = {}
    for name, alpha, beta, biases in zip(names, scales.alphas, scales.betas, scales.biases, strict=True):
        if bool((biases[1:] < biases[:-1]).any()):
            raise CheckpointError("weight biases do not ascend", where=f"{where}: {name}", got=biases.tolist()[:16])
        found |= {
            f"{name}.weight_quantizer.{key}": value
            for key, value in (("alpha", alpha), ("beta", beta), ("biases", biases))
        }
    require_finite(found, where)
    return found


register(
    Family(
        name="qn",
        sign="lists alpha and beta beside state_dict, or tensors quan1.alpha, .beta, .biases, .scales in it",
        recognises=_recognises,
        load=_load,
        options=frozenset({"arch", "weight_levels", "qn_biases"}),
    )
)
