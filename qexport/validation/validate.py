"""qexport.validate: the proof on data, level by level."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_leaves

from qexport import __version__
from qexport.conversion.build import Built, Progress, build
from qexport.conversion.convert import GRAPH_KEY, VERSION_KEY
from qexport.conversion.report import proof_summary
from qexport.conversion.settings import Settings
from qexport.datasets import Dataset, check_labels, open_dataset
from qexport.errors import ArtifactError, DataError, OptionError
from qexport.ir import Graph, fingerprint
from qexport.models.quantizers import set_soft
from qexport.reference import interpret
from qexport.validation.accuracy import Accuracy
from qexport.validation.artifacts import Artifact, PostProcessArtifact, open_artifact
from qexport.validation.detection_levels import DetectionLevels
from qexport.validation.explain import Explainer
from qexport.validation.outputs import OutputDifferences
from qexport.validation.report import LevelResult, Report
from qexport.validation.threads import side_by_side

BATCH = 16
ALL_TENSORS_IMAGES = 64
"""Every layer output of an artifact is compared on so many images; final outputs on all."""


@dataclass(frozen=True)
class _Networks:
    """The networks a batch runs through, and what is noted of them.

    Attributes:
        artifacts: those that take images.
        post: those that take a detector's heads.
        outputs: None where there is only one output, which the judge sees.
    """

    built: Built
    artifacts: list[Artifact]
    post: list[PostProcessArtifact]
    has_soft: bool
    judge: Accuracy | DetectionLevels
    explainer: Explainer
    outputs: OutputDifferences | None


def validate(
    artifacts: Sequence[str | Path],
    *,
    checkpoint: str | Path,
    data: str | Path,
    max_drop: float | None = None,
    limit: int | None = None,
    progress: Progress = lambda stage: None,
    on_images: Any = None,
    **overrides: Any,
) -> Report:
    """Compare the float, frozen, edge-quantized and integer networks and every artifact on data.

    The integer network is rebuilt from the checkpoint with the settings stored in the artifacts, proofs included.

    Args:
        artifacts: files written by `convert` from this checkpoint with the same settings.
        checkpoint: the checkpoint they came from.
        data: image folder, npz or npy.
        max_drop: largest loss from float to integer, of top-1 or of a detector's mAP@0.5, percentage points; needs
            labels or objects.
        limit: use the first images only.
        progress: told the name of each stage as it begins.
        on_images: called with (done, total) after every batch.
        overrides: fields of Settings that name local files or code (qn_biases, model, quantizers, temperature).

    Returns:
        Report; `passed` is False for an unexplained difference, an artifact that differs, or too large a drop.

    Raises:
        ArtifactError: an artifact is unreadable or from another checkpoint; DataError: unusable images;
        and whatever `build` raises.
    """
    opened = [open_artifact(path) for path in artifacts]
    _check_source(opened, Path(checkpoint))
    built = build(checkpoint, _common_settings(opened, overrides), progress=progress)
    _check_graph(opened, built)
    names = built.checkpoint.class_names
    dataset = open_dataset(data, built.settings.input_shape, class_names=names, limit=limit)  # type: ignore[arg-type]
    judge = _judge(built, dataset)
    labelled = dataset.labels is not None or dataset.objects is not None
    if max_drop is not None and not labelled:
        raise OptionError("--max-drop needs labels", where=str(data), remedy="give an npz with labels or class folders")
    has_soft = built.checkpoint.temperature is not None
    several = len(built.graph.outputs) > 1
    networks = _Networks(
        built,
        [a for a in opened if not isinstance(a, PostProcessArtifact)],
        [a for a in opened if isinstance(a, PostProcessArtifact)],
        has_soft,
        judge,
        Explainer(built.lowered, built.captured.graph),
        OutputDifferences(built.graph.outputs) if several else None,
    )
    progress("comparing")
    _run(networks, dataset, on_images)
    layers, fixed = networks.explainer.results()
    report = Report(
        images=len(dataset),
        labelled=labelled,
        levels=judge.results(),
        layers=layers,
        fixed_points=fixed,
        artifacts=[a.result() for a in opened],
        changed=judge.changed(names or dataset.class_names),
        proof=proof_summary(built),
        notes=[] if has_soft else ["the temperature is unknown, so 'float' is the checkpoint's hard evaluation"],
        outputs=[] if networks.outputs is None else networks.outputs.results(),
        detects=isinstance(judge, DetectionLevels),
    )
    return replace(report, failures=_failures(report, max_drop))


def _judge(built: Built, dataset: Dataset) -> Accuracy | DetectionLevels:
    """What the levels are judged by.

    Raises:
        DataError: labels do not fit the network, or are those of the other task.
    """
    where, detector = str(dataset.path), built.checkpoint.detector
    if detector is None:
        if dataset.objects is not None:
            raise DataError(
                "the images hold objects, but the network classifies",
                where=where,
                expected="one label an image",
                remedy="give the data the network was trained for",
            )
        n_classes = built.graph.types[built.graph.outputs[0]].size
        if dataset.labels is not None:
            check_labels(dataset.labels, n_classes, where)
        return Accuracy(n_classes, dataset.labels)
    if dataset.labels is not None:
        raise DataError(
            "the images have one label each, but the network detects objects",
            where=where,
            expected="arrays boxes, labels and offsets, or images only",
            remedy="see docs/detection.md for the data of a detector",
        )
    if dataset.objects:
        check_labels(np.concatenate([o.labels for o in dataset.objects]), detector.n_classes - 1, where)
    return DetectionLevels(detector, dataset.objects)


def _common_settings(artifacts: list[Artifact], overrides: dict[str, Any]) -> Settings:
    """The settings all artifacts share."""
    if not artifacts:
        raise OptionError("no artifact to validate", remedy="name at least one file written by qexport convert")
    first = artifacts[0].settings
    for other in artifacts[1:]:
        if other.settings != first:
            raise ArtifactError(
                "the artifacts were converted with different settings",
                where=f"{artifacts[0].file} and {other.file}",
                remedy="validate them one at a time",
            )
    return replace(first, **{k: v for k, v in overrides.items() if v})


def _check_source(artifacts: list[Artifact], checkpoint: Path) -> None:
    """Before anything is built: with another checkpoint the build would fail too, for a reason that misleads."""
    try:
        with checkpoint.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return  # the loader says what is wrong with the file
    for artifact in artifacts:
        if artifact.source_sha256 != sha256:
            raise ArtifactError(
                "the artifact was made from another checkpoint",
                where=str(artifact.file),
                got=f"source sha256 {artifact.source_sha256[:16]}...",
                expected=f"{sha256[:16]}... of {checkpoint}",
                remedy="give the checkpoint it was converted from, or convert again",
            )


def _check_graph(artifacts: list[Artifact], built: Built) -> None:
    """What is rebuilt must be what was written: if not, comparing layers would only show that they differ, not why."""
    rebuilt = fingerprint(built.graph)
    for artifact in artifacts:
        stored = artifact.properties.get(GRAPH_KEY, rebuilt)  # files of versions before 0.1 do not say
        if stored != rebuilt:
            version = artifact.properties.get(VERSION_KEY, "unknown")
            raise ArtifactError(
                "the checkpoint no longer converts to the network in the artifact",
                where=str(artifact.file),
                got=f"integer graph {stored}, written by qexport {version}",
                expected=f"{rebuilt}, which qexport {__version__} makes of the same checkpoint and settings",
                remedy=f"convert again with this qexport, or validate with qexport {version}",
            )


def _run(networks: _Networks, data: Dataset, on_images: Any) -> None:
    """Push every batch through all levels."""
    done = 0
    with side_by_side() as pool:
        for images in data.batches(BATCH):
            _run_batch(networks, images, pool)
            done += len(images)
            if on_images is not None:
                on_images(done, len(data))


def _run_batch(networks: _Networks, images: NDArray[np.uint8], pool: Executor) -> None:
    """One batch through all levels; those that do not need one another's results at the same time."""
    graph, explainer = networks.built.graph, networks.explainer
    (input_name,) = graph.inputs
    feeds = {input_name: images}
    torch_outputs = pool.submit(_torch_outputs, networks, images)
    free_run, frozen_run = (pool.submit(run, feeds) for run in (explainer.run_free, explainer.run_frozen))
    integers = interpret(graph, feeds, keep="*").tensors
    found = [(a.file.name, pool.submit(_artifact_outputs, a, feeds, integers, graph)) for a in networks.artifacts]
    free = free_run.result()
    explainer.add(feeds, integers, free, frozen_run.result())
    soft, frozen = torch_outputs.result()
    levels = {
        "float": soft,
        "frozen": frozen,
        "edge-quantized": list(free.outputs.values()),
        "integer": [integers[name] for name in graph.outputs],
        **{name: outputs.result() for name, outputs in found},
    }
    for level, outputs in levels.items():
        values = _real_values(outputs, networks.built)
        networks.judge.add(level, values)
        if networks.outputs is not None and level != "frozen":
            networks.outputs.add(level, values, frozen)
    for post in networks.post:
        assert isinstance(networks.judge, DetectionLevels), "only a detector's conversion writes a post-process"
        networks.judge.add_detections(post.file.name, post.detections(integers))


def _artifact_outputs(
    artifact: Artifact, feeds: dict[str, NDArray], integers: dict[str, NDArray], graph: Graph
) -> list[NDArray]:
    """What a file gives on one batch, compared with the reference on the way."""
    if artifact.images_all_tensors < ALL_TENSORS_IMAGES:
        artifact.compare_all(feeds, integers)
    return artifact.outputs(feeds, graph.outputs, integers)


def _real_values(outputs: Sequence[NDArray], built: Built) -> list[NDArray]:
    """Integers times their scale; what is real already stays."""
    units = zip(outputs, built.lowered.outputs, strict=True)
    return [output * float(unit.scale) if output.dtype.kind in "iu" else output for output, unit in units]


def _torch_outputs(networks: _Networks, images: NDArray[np.uint8]) -> tuple[list[NDArray], list[NDArray]]:
    """Outputs of the soft network (of the hard one where its temperature is unknown) and of the frozen one."""
    built = networks.built
    trailing = (1,) * (images.ndim - 2)
    mean, std = (torch.tensor(v).reshape(-1, *trailing) for v in (built.settings.mean, built.settings.std))
    x = (torch.from_numpy(np.ascontiguousarray(images)).float() / 255 - mean) / std
    with torch.inference_mode():
        frozen = built.frozen.module(x)
        set_soft(built.checkpoint.model, networks.has_soft)
        try:
            soft = built.checkpoint.model(x)
        finally:
            set_soft(built.checkpoint.model, False)
    return _arrays(soft), _arrays(frozen)


def _arrays(outputs: Any) -> list[NDArray]:
    """The tensors of a network's output, in the order the graph has them: tuples, lists and dicts are opened."""
    return [tensor.numpy() for tensor in tree_leaves(outputs)]


def _failures(report: Report, max_drop: float | None) -> list[str]:
    failures = [
        f"{r.name}: {r.unexplained} codes differ beyond the proven bound" for r in report.layers if r.unexplained
    ]
    failures += [
        f"{r.name}: {r.unexplained} fixed-point values lie beyond their bound"
        for r in report.fixed_points
        if r.unexplained
    ]
    for artifact in report.artifacts:
        if artifact.differing:
            worst = ", ".join(f"{name} ({count})" for name, count in list(artifact.differing.items())[:4])
            failures.append(f"{artifact.file}: {len(artifact.differing)} tensors differ from the reference: {worst}")
    if max_drop is not None:
        measure = "mAP@0.5" if report.detects else "top-1"
        before, after = (_figure(level_of(report, name)) for name in ("float", "integer"))
        if before - after > max_drop:
            fall = f"{measure} falls by {before - after:.2f} points"
            failures.append(f"{fall} from float to integer, allowed {max_drop:g}")
    return failures


def _figure(level: LevelResult) -> float:
    """The figure that --max-drop is about."""
    return level.mean_ap.voc if level.mean_ap is not None else level.top1 or 0.0


def level_of(report: Report, name: str) -> LevelResult:
    """The row of one level."""
    return next(level for level in report.levels if level.name == name)
