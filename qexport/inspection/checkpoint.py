"""What a checkpoint holds: its layers, and the step functions its soft quantizers freeze to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qexport.checkpoints import Checkpoint, load_checkpoint
from qexport.errors import OptionError
from qexport.freeze.model import FrozenModel, freeze
from qexport.freeze.step_op import FrozenWeight
from qexport.levels import QuantizedWeight


def describe_checkpoint(path: str | Path, *, bits: int | None = None, **options: Any) -> dict[str, Any]:
    """A checkpoint as plain JSON types, frozen but not converted.

    Args:
        path: checkpoint file.
        bits: what weights and activations were trained for, where weight_bits or act_bits do not say otherwise.
        options: those of load_checkpoint.

    Returns:
        file, bytes, sha256, family, architecture, input_shape, mean, std, temperature, class_names, notes; layers
        (convolutions and linear layers, with levels and sizes), quantizers (activations, with thresholds) and
        weight_quantizers (levels, weights near a threshold).

    Raises:
        CheckpointError, OptionError: see load_checkpoint; FreezeError: see freeze.
    """
    options["weight_bits"] = options.get("weight_bits") or bits
    options["act_bits"] = options.get("act_bits") or bits
    checkpoint = load_checkpoint(path, **options)
    if checkpoint.input_shape is None:
        raise OptionError(
            "the checkpoint does not say the size of its images", where=str(path), remedy="give --input-shape C,H,W"
        )
    example = torch.zeros(1, *checkpoint.input_shape)
    frozen = freeze(checkpoint.model, example, quantizer_types=checkpoint.quantizer_types)
    layers = _layers(frozen, example)
    return {
        "file": str(path),
        "bytes": Path(path).stat().st_size,
        **_identity(checkpoint),
        "layers": layers,
        "quantizers": [
            {
                "name": name,
                "bits": step.bits,
                "levels": step.levels.tolist(),
                "scale": float(step.scale),
                "offset": float(step.offset),
                "thresholds": step.thresholds.astype(float).tolist(),
                "uniform": step.is_uniform,
            }
            for name, step in frozen.activations.items()
        ],
        "unused_quantizers": list(frozen.unused),
        "sizes": {
            "weights": sum(layer["weights"] for layer in layers),
            "float32_bytes": sum(4 * layer["weights"] for layer in layers),
            "macs": sum(layer["macs"] or 0 for layer in layers),
        },
    }


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "sha256": checkpoint.sha256,
        "family": checkpoint.family,
        "architecture": checkpoint.arch,
        "input_shape": _list(checkpoint.input_shape),
        "mean": _list(checkpoint.mean),
        "std": _list(checkpoint.std),
        "temperature": checkpoint.temperature,
        "class_names": _list(checkpoint.class_names),
        "notes": list(checkpoint.notes),
    }


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _layers(frozen: FrozenModel, example: torch.Tensor) -> list[dict[str, Any]]:
    """Convolutions and linear layers in the order of their first call."""
    positions = _output_positions(frozen.module, example)
    modules = dict(frozen.module.named_modules())
    return [_layer(frozen, name, modules[name], n) for name, n in positions.items()]


def _layer(frozen: FrozenModel, name: str, module: nn.Module, n_positions: int) -> dict[str, Any]:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    quantizer = next((f"{name}.{n}" for n, child in module.named_children() if isinstance(child, FrozenWeight)), "")
    quantized = frozen.weights.get(quantizer)
    return {
        "name": name,
        "kind": "linear" if isinstance(module, nn.Linear) else "conv2d",
        "shape": list(weight.shape),
        "weights": weight.numel(),
        "weight_bits": None if quantized is None else quantized.bits,
        "levels": None if quantized is None else list(quantized.level_set),
        "scales": None if quantized is None else _n_scales(quantized),
        "near_threshold": frozen.near_thresholds.get(quantizer),
        "macs": weight.numel() * n_positions,
    }


def _n_scales(weight: QuantizedWeight) -> int:
    return len(weight.scale) if isinstance(weight.scale, tuple) else 1


def _output_positions(module: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Layer -> values per output channel of one image, by a forward pass."""
    positions: dict[str, int] = {}

    def recorder(name: str) -> Any:
        def record(layer: nn.Conv2d | nn.Linear, inputs: Any, output: torch.Tensor) -> None:
            positions[name] = output[0].numel() // layer.weight.shape[0]

        return record

    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(recorder(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            module(example.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return positions
