"""qexport.validate: the proof on data, level by level."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qexport.conversion.build import Built, Progress, build
from qexport.conversion.report import proof_summary
from qexport.conversion.settings import Settings
from qexport.datasets import Dataset, check_labels, open_dataset
from qexport.errors import ArtifactError, OptionError
from qexport.models.quantizers import set_soft
from qexport.reference import interpret
from qexport.validation.accuracy import Accuracy
from qexport.validation.artifacts import Artifact, open_artifact
from qexport.validation.explain import Explainer
from qexport.validation.report import LevelResult, Report

BATCH = 16
ALL_TENSORS_IMAGES = 64
"""Every layer output of an artifact is compared on so many images; final outputs on all."""


@dataclass(frozen=True)
class _Networks:
    """The networks a batch runs through."""

    built: Built
    artifacts: list[Artifact]
    has_soft: bool


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
        max_drop: largest loss of top-1 from float to integer, percentage points; needs labels.
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
    names = built.checkpoint.class_names
    dataset = open_dataset(data, built.settings.input_shape, class_names=names, limit=limit)  # type: ignore[arg-type]
    n_classes = built.graph.types[built.graph.outputs[0]].size
    if dataset.labels is not None:
        check_labels(dataset.labels, n_classes, str(data))
    elif max_drop is not None:
        raise OptionError("--max-drop needs labels", where=str(data), remedy="give an npz with labels or class folders")
    has_soft = built.checkpoint.temperature is not None
    networks = _Networks(built, opened, has_soft)
    accuracy, explainer = Accuracy(), Explainer(built.lowered)
    progress("comparing")
    _run(networks, dataset, accuracy, explainer, on_images)
    layers, fixed = explainer.results()
    report = Report(
        images=len(dataset),
        labelled=dataset.labels is not None,
        levels=accuracy.results(n_classes),
        layers=layers,
        fixed_points=fixed,
        artifacts=[a.result() for a in opened],
        changed=accuracy.changed(names or dataset.class_names),
        proof=proof_summary(built),
        notes=[] if has_soft else ["the temperature is unknown, so 'float' is the checkpoint's hard evaluation"],
    )
    return replace(report, failures=_failures(report, max_drop))


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


def _run(networks: _Networks, data: Dataset, accuracy: Accuracy, explainer: Explainer, on_images: Any) -> None:
    """Push every batch through all levels."""
    graph = networks.built.graph
    (input_name,) = graph.inputs
    done = 0
    for images in data.batches(BATCH):
        feeds = {input_name: images}
        if data.labels is not None:
            accuracy.labels.append(data.labels[done : done + len(images)])
        soft, frozen = _torch_logits(networks, images)
        accuracy.add("float", soft)
        accuracy.add("frozen", frozen)
        integers = interpret(graph, feeds, keep="*").tensors
        real = explainer.add(feeds, integers)
        accuracy.add("edge-quantized", next(iter(real.values())))
        accuracy.add("integer", integers[graph.outputs[0]])
        for artifact in networks.artifacts:
            if artifact.images_all_tensors < ALL_TENSORS_IMAGES:
                artifact.compare_all(feeds, integers)
            accuracy.add(artifact.file.name, artifact.outputs(feeds, graph.outputs, integers))
        done += len(images)
        if on_images is not None:
            on_images(done, len(data))


def _torch_logits(networks: _Networks, images: NDArray[np.uint8]) -> tuple[NDArray, NDArray]:
    """Logits of the soft network (of the hard one where its temperature is unknown) and of the frozen one."""
    built = networks.built
    trailing = (1,) * (images.ndim - 2)
    mean, std = (torch.tensor(v).reshape(-1, *trailing) for v in (built.settings.mean, built.settings.std))
    x = (torch.from_numpy(np.ascontiguousarray(images)).float() / 255 - mean) / std
    with torch.no_grad():
        frozen = built.frozen.module(x)
        set_soft(built.checkpoint.model, networks.has_soft)
        try:
            soft = built.checkpoint.model(x)
        finally:
            set_soft(built.checkpoint.model, False)
    first = [out if isinstance(out, torch.Tensor) else out[0] for out in (soft, frozen)]
    return first[0].numpy(), first[1].numpy()


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
        before, after = (level_of(report, name).top1 or 0.0 for name in ("float", "integer"))
        if before - after > max_drop:
            failures.append(f"top-1 falls by {before - after:.2f} points from float to integer, allowed {max_drop:g}")
    return failures


def level_of(report: Report, name: str) -> LevelResult:
    """The row of one level."""
    return next(level for level in report.levels if level.name == name)
