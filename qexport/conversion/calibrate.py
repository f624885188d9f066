"""qexport.calibrate: ranges for a checkpoint file or a model in memory; and where a conversion gets its ranges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qexport.calibration import DEFAULT_METHOD, DEFAULT_PERCENTILE, Calibration
from qexport.calibration import calibrate as calibrate_captured
from qexport.calibration.calibrate import layer_inputs
from qexport.calibration.calibration import Source
from qexport.calibration.data import open_images
from qexport.calibration.moments import MOMENT_IMAGES, input_moments
from qexport.calibration.sensitivity import SENSITIVITY_IMAGES
from qexport.calibration.sensitivity import sensitivity as measure_sensitivity
from qexport.capture import Captured, capture
from qexport.checkpoints.user import quantizer_types
from qexport.conversion.build import FREEZE_BATCH, Network, Progress, load_network
from qexport.conversion.output import write_text
from qexport.conversion.settings import Settings
from qexport.errors import OptionError
from qexport.freeze.model import freeze
from qexport.passes.edge_fit import InputMoments
from qexport.passes.layers import DEFAULT_ACT_BITS


def calibrate(
    model: str | Path | nn.Module,
    data: Any,
    output: str | Path | None = None,
    *,
    method: str = DEFAULT_METHOD,
    percentile: float = DEFAULT_PERCENTILE,
    bits: int | None = None,
    weight_bits: int | None = None,
    act_bits: int | None = None,
    act_budget: float | None = None,
    limit: int | None = None,
    sensitivity: bool = False,
    progress: Progress = lambda stage: None,
    **settings: Any,
) -> Calibration:
    """Measure the ranges that training left open, for `convert(..., calibration=...)`.

    One pass over the images serves all tensors; method "output", `act_budget` and `sensitivity` read them, or some of
    them, once more.

    Args:
        model: checkpoint file, or a network in memory with its soft quantizers; that one also needs input_shape, mean
            and std, and `quantizers`, the names of quantizer classes that are not qexport's.
        data: path of an image folder, npz or npy; an array or tensor; an iterable of them, such as a DataLoader; or an
            ONNX Runtime CalibrationDataReader. No labels needed; see `qexport.calibration.data.open_images`.
        output: file to write, completely or not at all; None writes none.
        method: "max", "average", "percentile", "entropy", "mse" or "output" (docs/calibration.md compares them).
        percentile: for the method of that name.
        bits, weight_bits, act_bits: as for `convert`; activations that training left float get act_bits, or 8.
        act_budget: mean bits of those activations, distributed by what each does to the output.
        limit: use at most so many images.
        sensitivity: also measure what each integer choice costs.
        progress: told the name of each stage as it begins.
        settings: further fields of Settings (edge_bits, weight_levels, family, mean, std ...).

    Raises:
        QExportError: any of its kinds.
    """
    chosen = Settings(
        weight_bits=weight_bits or bits,
        act_bits=act_bits or bits,
        float_act_bits=act_bits or DEFAULT_ACT_BITS,
        **settings,
    )
    if isinstance(model, nn.Module):
        captured, source = _capture_model(model, chosen)
    else:
        network = load_network(model, chosen, progress)
        captured, source = network.captured, network.source
    progress("calibrating")
    found = calibrate_captured(
        captured,
        data,
        method=method,
        percentile=percentile,
        bits=chosen.float_act_bits,
        act_budget=act_budget,
        streams=True,
        limit=limit,
    )
    if sensitivity:
        progress("measuring sensitivity")
        n_images = min(found.images, SENSITIVITY_IMAGES)  # never more than `limit` allowed
        costs = measure_sensitivity(captured, found, data, edge_bits=chosen.edge_bits, limit=n_images)
        found = replace(found, sensitivity=costs)
    found = replace(found, source=source)
    if output is not None:
        write_text(Path(output), found.to_json())
    return found


def _capture_model(model: nn.Module, settings: Settings) -> tuple[Captured, Source]:
    """A network in memory as a graph; its source has no hash."""
    shape, mean, std = settings.input_shape, settings.mean, settings.std
    if shape is None or mean is None or std is None:
        raise OptionError(
            "a model in memory does not say how its images are prepared",
            got=f"input_shape {shape}, mean {mean}, std {std}",
            expected="all three, such as input_shape=(1, 28, 28), mean=(0.5,), std=(0.5,)",
        )
    types = quantizer_types(model, settings.quantizers)
    frozen = freeze(model, torch.zeros(FREEZE_BATCH, *shape), quantizer_types=types)
    mean, std = (values * shape[0] if len(values) == 1 else values for values in (mean, std))
    return capture(frozen.module, shape, mean, std), Source("", "", shape, mean, std)


@dataclass(frozen=True)
class RangeSource:
    """Where a conversion gets the ranges of activations that training left float.

    Attributes:
        file: a calibration, or the path of one; excludes the others.
        data: images, see `calibrate`; None for batch-norm statistics.
        method, act_budget: see `calibrate`.
        act_bits: as the caller gave them, or None.
    """

    file: Calibration | str | Path | None = None
    data: Any = None
    method: str | None = None
    act_budget: float | None = None
    act_bits: int | None = None

    def __post_init__(self) -> None:
        others = {"--calibration-data": self.data, "--calibration-method": self.method, "--act-budget": self.act_budget}
        if self.file is not None:
            given = [option for option, value in others.items() if value is not None]
            if given:
                raise OptionError(
                    "the ranges come from the calibration file, so there is nothing to measure",
                    where="--calibration",
                    got=f"also {', '.join(given)}",
                    expected="one or the other",
                )
        elif self.data is None and self.method is not None:
            raise OptionError(
                "a method needs images", where="--calibration-method", remedy="give some with --calibration-data"
            )

    def ranges_of(self, network: Network) -> Calibration:
        """The calibration of a network that is being converted."""
        if self.file is not None:
            return self._from_file(self.file, network)
        return calibrate_captured(
            network.captured,
            self.data,
            method=self.method or DEFAULT_METHOD,
            bits=network.settings.float_act_bits,
            act_budget=self.act_budget,
            streams=True,
        )

    def inputs_of(self, network: Network) -> dict[str, InputMoments]:
        """Moments of what float layers read; none without images, or where they could be read only once."""
        if self.data is None:
            return {}
        graph = network.captured.graph
        images = open_images(self.data, graph, limit=MOMENT_IMAGES)
        return input_moments(graph, images) if images.replayable else {}

    def _from_file(self, file: Calibration | str | Path, network: Network) -> Calibration:
        found = file if isinstance(file, Calibration) else Calibration.load(file)
        found.check_source(network.source)
        if self.act_bits is not None and found.ranges and self.act_bits != found.act_bits:
            raise OptionError(
                "the calibration was made for other bits",
                where="--act-bits",
                got=self.act_bits,
                expected=found.act_bits,
                remedy=f"calibrate again with --act-bits {self.act_bits}, or leave the option out",
            )
        missing = [name for name in layer_inputs(network.captured.graph) if name not in found.ranges]
        if missing:
            raise OptionError(
                "the calibration was made from another network",
                where="--calibration",
                got=f"no range for {len(missing)} activations: {', '.join(missing[:4])}",
                remedy="calibrate this checkpoint: qexport calibrate",
            )
        tensors = network.captured.graph.types
        unknown = [name for name in (*found.ranges, *found.streams) if name not in tensors]
        if unknown:
            raise OptionError(
                "the calibration names tensors the network does not have",
                where="--calibration",
                got=", ".join(unknown[:4]),
                expected=f"names such as {', '.join(list(found.ranges)[:2])}",
                remedy="correct the names, or calibrate this checkpoint: qexport calibrate",
            )
        return found
