"""What a network is trained for: how a batch is judged, and what the data decide about the architecture."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.detection import Detector
from qexport.errors import DataError, OptionError
from qexport.models.detection.loss import match_priors, multibox_loss
from qexport.models.registry import build, builder
from qexport.models.training.data import Samples, TrainingData


def task_of(data: TrainingData) -> Task:
    """Detection where the data say what there is to find, else classification."""
    return Classification() if data.train.objects is None else Detection()


class Task(Protocol):
    """Classification or detection."""

    def arguments(self, name: str, data: TrainingData) -> dict[str, Any]:
        """Arguments of architecture `name` that the data decide.

        Raises:
            OptionError: the architecture does not fit the data.
        """
        ...

    def targets(self, model: nn.Module, samples: Samples) -> tuple[Tensor, ...]:
        """What the network should say, as tensors whose first axis is the samples'."""
        ...

    def loss(self, outputs: Any, targets: tuple[Tensor, ...]) -> Tensor:
        """Mean loss of a batch; `outputs` is what the network returned."""
        ...


class Classification:
    """One class an image, cross-entropy."""

    def arguments(self, name: str, data: TrainingData) -> dict[str, Any]:
        known = inspect.signature(builder(name)).parameters
        wanted = {"in_channels": data.input_shape[0], "num_classes": len(data.class_names)}
        arguments = {key: value for key, value in wanted.items() if key in known}
        outputs = _dry_run(name, arguments, data)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise OptionError(
                "the architecture is no classifier",
                where=name,
                got=f"outputs {_shapes(outputs)}",
                expected="scores [N, classes]",
                remedy="detectors are trained on images with objects: boxes, labels, offsets",
            )
        if outputs.shape[1] != len(data.class_names):
            raise OptionError(
                "the architecture has another number of classes",
                where=name,
                got=f"{len(data.class_names)} classes in the data",
                expected=outputs.shape[1],
            )
        return arguments

    def targets(self, model: nn.Module, samples: Samples) -> tuple[Tensor, ...]:
        assert samples.labels is not None
        return (samples.labels,)

    def loss(self, outputs: Any, targets: tuple[Tensor, ...]) -> Tensor:
        return functional.cross_entropy(outputs, targets[0])


class Detection:
    """Boxes and classes, SSD's multibox loss."""

    def arguments(self, name: str, data: TrainingData) -> dict[str, Any]:
        known = inspect.signature(builder(name)).parameters
        c, h, w = data.input_shape
        if h != w:
            raise OptionError(
                "the detectors here take square images", where=name, got=f"{h}x{w}", remedy="pad or crop them"
            )
        wanted = {"in_channels": c, "num_classes": len(data.class_names), "image_size": h}
        arguments = {key: value for key, value in wanted.items() if key in known}
        with torch.device("meta"):
            detector_of(build(name, **arguments), name)
        _dry_run(name, arguments, data)
        return arguments

    def targets(self, model: nn.Module, samples: Samples) -> tuple[Tensor, ...]:
        if samples.objects is None:
            raise DataError("a detector learns from objects", expected="an .npz with boxes, labels and offsets")
        return match_priors(samples.objects, detector_of(model, type(model).__name__))

    def loss(self, outputs: Any, targets: tuple[Tensor, ...]) -> Tensor:
        return multibox_loss(*outputs, *targets)


def detector_of(model: nn.Module, name: str) -> Detector:
    """The detector a network describes.

    Raises:
        OptionError: it describes none.
    """
    detector = getattr(model, "detector", None)
    if not isinstance(detector, Detector):
        raise OptionError(
            "the architecture is no detector",
            where=name,
            expected="a property named detector, of class qexport.detection.Detector",
            remedy="train it on images with one class each, or choose a detector such as ssd_small",
        )
    return detector


def _dry_run(name: str, arguments: dict[str, Any], data: TrainingData) -> Any:
    """Outputs, without values, for one image of the data.

    Raises:
        OptionError: the architecture does not take such an image.
    """
    with torch.device("meta"):
        model = build(name, **arguments)
    try:
        return model.eval()(torch.empty(1, *data.input_shape, device="meta"))
    except RuntimeError as error:
        raise OptionError(
            "the architecture does not take these images", where=name, got=list(data.input_shape)
        ) from error


def _shapes(outputs: Any) -> list[list[int]]:
    several = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [list(getattr(o, "shape", ())) for o in several]
