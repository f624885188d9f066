"""qexport.convert: checkpoint in, artifacts out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qexport import __version__
from qexport.backends.onnx.inspection import weight_bytes
from qexport.backends.onnx.integer import to_onnx
from qexport.backends.onnx.mobile import CONFIG_NAME, write_mobile
from qexport.backends.onnx.postprocess import Head, to_post_process
from qexport.backends.onnx.qdq import to_qdq
from qexport.backends.onnx.writer import write_onnx
from qexport.backends.packed import file as packed
from qexport.backends.packed.writer import to_packed
from qexport.calibration import Calibration
from qexport.calibration.statistics import deviations_for, ranges_from_statistics
from qexport.conversion.build import Built, Progress, build
from qexport.conversion.calibrate import RangeSource
from qexport.conversion.output import staged
from qexport.conversion.report import conversion_report, layer_nodes, layer_row
from qexport.conversion.settings import Settings
from qexport.errors import OptionError
from qexport.ir import fingerprint
from qexport.passes.layers import DEFAULT_ACT_BITS

if TYPE_CHECKING:
    from onnx import ModelProto

FILE_NAMES = {
    "onnx": "model.onnx",
    "onnx-qdq": "model.qdq.onnx",
    "onnx-qdq8": "model.qdq8.onnx",
    "qpk": "model.qpk",
    "ort": "model.ort",
}
"""Formats and the file each is written to."""

INTEGER_FORMATS = ("onnx", "qpk", "ort")
MOBILE_CONFIG, MOBILE_POST_PROCESS = "ort-config", "ort-post"
MOBILE_NOTE = "model.ort: ONNX Runtime unpacks weights of few bits to bytes in its mobile format."
POST_PROCESS = "post"
POST_PROCESS_NAME = "post.onnx"
"""A detector's integer heads go through it; docs/detection.md."""

SUM_BITS = 8
"""Bits of residual sums in the QDQ file, where it holds them as bytes."""

REPORT_NAME = "report.json"
DEFAULT_OPSET = 25
QDQ_NOTES_KEY = "qexport.qdq_notes"

VERSION_KEY, GRAPH_KEY = "qexport.version", "qexport.graph"
"""Who wrote an artifact, and the fingerprint of its integer graph."""

RECORDED_KEYS = ("qexport.bounds", "qexport.layers")
"""Metadata that the records of a .qpk file hold anyway."""


@dataclass(frozen=True)
class Artifact:
    """What `convert` made.

    Attributes:
        built: every level of the network, from soft to integer.
        files: format -> path written; of a detector also "post", its post-process.
        report: contents of report.json.
    """

    built: Built
    files: dict[str, Path]
    report: dict[str, Any]


def convert(
    checkpoint: str | Path,
    output: str | Path,
    *,
    bits: int | None = None,
    weight_bits: int | None = None,
    act_bits: int | None = None,
    formats: Sequence[str] = ("onnx",),
    calibration: Calibration | str | Path | None = None,
    calibration_data: Any = None,
    calibration_method: str | None = None,
    act_budget: float | None = None,
    opset: int = DEFAULT_OPSET,
    progress: Progress = lambda stage: None,
    **settings: Any,
) -> Artifact:
    """Convert a checkpoint into integer-only artifacts, proven while they are made.

    Args:
        checkpoint: file with a network trained with soft quantizers.
        output: directory for model.onnx, model.qdq.onnx, model.qdq8.onnx, model.qpk, model.ort with
            required_operators.config, and report.json; of a detector with an integer format also for post.onnx, and
            post.ort beside model.ort.
        bits: what weights and activations were trained for; weight_bits and act_bits replace it for one of them.
            Activations that training left float get act_bits, or 8: `bits` says nothing about them.
        formats: any of "onnx" (integers only), "onnx-qdq", "onnx-qdq8" (residual sums rounded to bytes, too), "qpk"
            (packed bits, for the runtime of this project) and "ort" (the integer ONNX for mobile builds of ONNX
            Runtime).
        calibration: what `calibrate` returned for this checkpoint, or its file; act_bits are then those of the file.
        calibration_data: image folder, npz or npy, or whatever else `calibrate` takes, for activations that training
            left float; without it and without `calibration` their ranges come from batch-norm statistics. With
            edge_bits they also decide how the weights of float layers round, if they can be read more than once.
        calibration_method, act_budget: see `calibrate`.
        opset: ONNX operator set.
        progress: told the name of each stage as it begins.
        settings: further fields of Settings (edge_bits, weight_levels, family, mean, std ...).

    Raises:
        QExportError: any of its kinds; nothing is left behind in `output`.
    """
    unknown = [f for f in formats if f not in FILE_NAMES]
    if unknown or not formats:
        raise OptionError("unknown format", where="--format", got=unknown or "none", expected=", ".join(FILE_NAMES))
    ranges = RangeSource(calibration, calibration_data, calibration_method, act_budget, act_bits)
    chosen = Settings(
        weight_bits=weight_bits or bits,
        act_bits=act_bits or bits,
        float_act_bits=act_bits or DEFAULT_ACT_BITS,
        **settings,
    )
    with staged(output) as staging:
        built = build(
            checkpoint,
            chosen,
            calibrate_network=ranges.ranges_of,
            measure_inputs=ranges.inputs_of,
            progress=progress,
        )
        progress("writing")
        post = _post_process(built, opset) if set(formats) & set(INTEGER_FORMATS) else None
        written = {name: _write(built, name, opset, staging, post) for name in formats}
        stored = written["onnx" if "onnx" in written else formats[0]].weight_bytes
        names = {name: FILE_NAMES[name] for name in formats}
        if post is not None:
            write_onnx(post, staging / POST_PROCESS_NAME)
            names[POST_PROCESS] = POST_PROCESS_NAME
        if "ort" in formats:
            names |= {} if post is None else {MOBILE_POST_PROCESS: "post.ort"}
            names[MOBILE_CONFIG] = CONFIG_NAME
        files = {file: (staging / file).stat().st_size for file in names.values()}
        notes = [note for one in written.values() for note in one.notes]
        report = conversion_report(built, stored, files, notes)
        (staging / REPORT_NAME).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return Artifact(built, {name: Path(output) / file for name, file in names.items()}, report)


def metadata(built: Built) -> dict[str, str]:
    """metadata_props of every artifact of a conversion (docs/artifact-metadata.md)."""
    checkpoint, lowered, settings = built.checkpoint, built.lowered, built.settings
    bounds = {name: [int(t.lo.min()), int(t.hi.max())] for name, t in lowered.graph.types.items()}
    outputs = [{"name": u.tensor, "scale": float(u.scale)} for u in lowered.outputs]
    detector = None if checkpoint.detector is None else checkpoint.detector.to_dict()
    return {
        "qexport.source_sha256": checkpoint.sha256,
        "qexport.source_file": checkpoint.source.name,
        VERSION_KEY: __version__,
        GRAPH_KEY: fingerprint(lowered.graph),
        "qexport.family": checkpoint.family,
        "qexport.architecture": checkpoint.arch,
        "qexport.settings": settings.to_json(),
        "qexport.input_shape": json.dumps(settings.input_shape),
        "qexport.preprocessing": "none: uint8 pixels 0..255, NCHW; normalisation is inside",
        "qexport.class_names": json.dumps(checkpoint.class_names),
        "qexport.outputs": json.dumps(outputs),
        **({} if detector is None else {"qexport.detector": json.dumps(detector)}),
        "qexport.bounds": json.dumps(bounds),
        "qexport.layers": json.dumps([layer_row(lowered.graph, node) for node in layer_nodes(lowered.graph)]),
    }


def heads(built: Built) -> list[Head]:
    """The outputs of the integer network, in order."""
    types = built.graph.types
    return [Head(unit.tensor, types[unit.tensor].shape, float(unit.scale)) for unit in built.lowered.outputs]


def _post_process(built: Built, opset: int) -> ModelProto | None:
    """The model behind a detector's integer heads, if it is one."""
    detector = built.checkpoint.detector
    if detector is None:
        return None
    kept = {key: value for key, value in metadata(built).items() if key not in RECORDED_KEYS}
    return to_post_process(heads(built), detector, metadata=kept, opset=opset)


@dataclass(frozen=True)
class Written:
    """What the report says about one file.

    Attributes:
        weight_bytes: stored bytes of each layer's weights.
        notes: remarks of the backend.
    """

    weight_bytes: dict[str, int]
    notes: list[str]


def _write(built: Built, name: str, opset: int, folder: Path, post: ModelProto | None) -> Written:
    props, path = metadata(built), folder / FILE_NAMES[name]
    if name == "qpk":
        kept = {key: value for key, value in props.items() if key not in RECORDED_KEYS}
        return Written(packed.weight_bytes(packed.write_packed(to_packed(built.graph, metadata=kept), path)), [])
    if name in ("onnx-qdq", "onnx-qdq8"):
        real, ranges = built.lowered.real, _sum_ranges(built)
        model = to_qdq(real, metadata=props, opset=opset, ranges=ranges, fuse_all=name == "onnx-qdq8")
    else:
        model = to_onnx(built.graph, metadata=props, opset=opset)
    if name == "ort":
        write_mobile({"model": model} | ({} if post is None else {POST_PROCESS: post}), folder)
        return Written(weight_bytes(model), [MOBILE_NOTE])
    write_onnx(model, path)
    notes = [prop.value for prop in model.metadata_props if prop.key == QDQ_NOTES_KEY]
    return Written(weight_bytes(model), [note for text in notes for note in text.splitlines()])


def _sum_ranges(built: Built) -> dict[str, tuple[float, float]]:
    """What residual sums and their operands hardly ever leave: measured, else as batch norm has it."""
    captured = built.captured
    return built.settings.stream_ranges or ranges_from_statistics(
        captured.graph, captured.statistics, deviations_for(SUM_BITS)
    )
