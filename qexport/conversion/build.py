"""From a checkpoint file to a proven integer graph: load, freeze, capture, quantize, lower, prove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qexport.calibration import Calibration, calibrate
from qexport.calibration.calibration import Source
from qexport.capture import Captured, capture
from qexport.checkpoints import Checkpoint, load_checkpoint
from qexport.conversion.settings import Settings
from qexport.errors import OptionError
from qexport.freeze.model import FrozenModel, freeze
from qexport.ir import Graph
from qexport.ops import Conv2d, Linear, Step
from qexport.passes.edge_fit import InputMoments, fit_edge_weights
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.passes.prove import Proof, prove
from qexport.passes.streams import NARROW_BITS

FREEZE_BATCH = 2


@dataclass(frozen=True)
class Built:
    """Every level of one conversion, from the soft network to the integer graph.

    Attributes:
        checkpoint: the network with its soft quantizers.
        frozen: the same with step functions.
        captured: its real-number graph.
        lowered: the quantized real graph and the integer graph.
        proofs: one per folded quantizer.
        settings: complete: preprocessing and ranges filled in.
    """

    checkpoint: Checkpoint
    frozen: FrozenModel
    captured: Captured
    lowered: Lowered
    proofs: list[Proof]
    settings: Settings

    @property
    def graph(self) -> Graph:
        return self.lowered.graph


Progress = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """A checkpoint as far as its real-number graph.

    Attributes:
        checkpoint, frozen, captured: see Built.
        settings: preprocessing filled in.
    """

    checkpoint: Checkpoint
    frozen: FrozenModel
    captured: Captured
    settings: Settings

    @property
    def source(self) -> Source:
        """What a calibration of this network is good for."""
        s = self.settings
        assert s.input_shape is not None and s.mean is not None and s.std is not None
        return Source(self.checkpoint.source.name, self.checkpoint.sha256, s.input_shape, s.mean, s.std)


Calibrate = Callable[[Network], Calibration]
MeasureInputs = Callable[[Network], Mapping[str, InputMoments]]


def load_network(path: str | Path, settings: Settings, progress: Progress = lambda stage: None) -> Network:
    """Load, freeze and capture a checkpoint.

    Raises:
        QExportError: any of its kinds; see the stages.
    """
    progress("loading")
    checkpoint = _load(path, settings)
    settings = _with_preprocessing(checkpoint, settings)
    assert settings.input_shape is not None
    progress("freezing")
    example = torch.zeros(FREEZE_BATCH, *settings.input_shape)
    frozen = freeze(checkpoint.model, example, quantizer_types=checkpoint.quantizer_types)
    progress("capturing")
    captured = capture(frozen.module, settings.input_shape, settings.mean, settings.std)
    _check_bits(captured.graph, settings)
    return Network(checkpoint, frozen, captured, settings)


def build(
    path: str | Path,
    settings: Settings,
    *,
    calibrate_network: Calibrate = lambda n: calibrate(n.captured, bits=n.settings.float_act_bits),
    measure_inputs: MeasureInputs = lambda n: {},
    progress: Progress = lambda stage: None,
) -> Built:
    """Convert in memory.

    Args:
        path: checkpoint file.
        settings: see Settings; its ranges, when there are any, are used as they are.
        calibrate_network: ranges for activations that training left float; by default from batch-norm statistics.
        measure_inputs: moments of what float layers read, which then decide how their weights round; asked only where
            edge_bits limits them and the settings hold no levels yet.
        progress: told the name of each stage as it begins.

    Raises:
        QExportError: any of its kinds; see the stages.
    """
    network = load_network(path, settings, progress)
    settings, captured = network.settings, network.captured
    if not settings.ranges and not settings.stream_ranges:
        progress("calibrating")
        settings = _with_ranges(settings, calibrate_network(network))
    progress("lowering")
    options = LayerOptions(settings.edge_bits, settings.float_act_bits, settings.ranges, settings.range_bits)
    if settings.edge_bits is not None and not settings.edge_weights:
        settings = replace(settings, edge_weights=fit_edge_weights(captured.graph, options, measure_inputs(network)))
    options = replace(options, edge_weights=settings.edge_weights)
    lowered = lower(quantize_layers(captured.graph, options), settings.stream_ranges)
    progress("proving")
    proofs = prove(lowered.graph, lowered.folds)
    return Built(network.checkpoint, network.frozen, captured, lowered, proofs, settings)


def _load(path: str | Path, s: Settings) -> Checkpoint:
    return load_checkpoint(
        path,
        family=s.family,
        arch=s.arch,
        model=s.model,
        quantizers=s.quantizers,
        weight_levels=s.weight_levels,
        qn_biases=s.qn_biases,
        temperature=s.temperature,
        weight_bits=s.weight_bits,
        act_bits=s.act_bits,
        input_shape=s.input_shape,  # type: ignore[arg-type]
        mean=s.mean,
        std=s.std,
    )


def _with_preprocessing(checkpoint: Checkpoint, settings: Settings) -> Settings:
    """Input shape and normalisation, from the options or the file; never guessed."""
    missing = [
        option
        for option, value in (
            ("--input-shape", checkpoint.input_shape),
            ("--mean", checkpoint.mean),
            ("--std", checkpoint.std),
        )
        if value is None
    ]
    if missing:
        raise OptionError(
            "the checkpoint does not say how its images were prepared",
            where=str(checkpoint.source),
            got=f"no {' and no '.join(missing)}",
            expected="pixels / 255, minus mean, divided by std, in training",
            remedy="give the training's values, such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225; "
            "--mean 0 --std 1 if there was no normalisation",
        )
    return replace(settings, input_shape=checkpoint.input_shape, mean=checkpoint.mean, std=checkpoint.std)


def _check_bits(graph: Graph, settings: Settings) -> None:
    """Refuse quantizers with more levels than the stated bits hold.

    Raises:
        OptionError: naming the layers and the right value.
    """
    weights = {
        node.name: node.op.weight.bits
        for node in graph.nodes
        if isinstance(node.op, Conv2d | Linear) and node.op.weight.is_quantized
    }
    activations = {node.name: node.op.function.bits for node in graph.nodes if isinstance(node.op, Step)}
    for option, stated, found in (
        ("--weight-bits", settings.weight_bits, weights),
        ("--act-bits", settings.act_bits, activations),
    ):
        over = {name: bits for name, bits in found.items() if stated is not None and bits > stated}
        if over:
            names = ", ".join(list(over)[:4]) + (f" and {len(over) - 4} more" if len(over) > 4 else "")
            raise OptionError(
                f"{len(over)} quantizers have more levels than {stated} {'bit' if stated == 1 else 'bits'} can hold",
                where=names,
                got=f"{stated} bits",
                expected=f"{max(over.values())} bits",
                remedy=f"say --bits {max(over.values())}, or {option} {max(over.values())}",
            )


def _with_ranges(settings: Settings, found: Calibration) -> Settings:
    """The settings with what calibration found; streams are measured extremes, or nothing."""
    measured = found.ranges or found.streams
    return replace(
        settings,
        float_act_bits=found.act_bits,
        ranges=found.ranges,
        range_bits=found.bits_of,
        stream_ranges=found.streams if settings.stream_bits == NARROW_BITS else {},
        calibration=found.describe() if measured else "",
    )
