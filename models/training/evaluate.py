"""What a trained network makes of samples: soft, as it was trained, or hard, as it is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from qexport.detection import Detections, post_process
from qexport.models.quantizers import set_soft
from qexport.models.training.data import Samples, TrainingData
from qexport.models.training.task import detector_of

EVALUATION_BATCH = 500


def accuracy(model: nn.Module, data: TrainingData, samples: Samples, *, soft: bool = False) -> float:
    """Share of `samples` the network puts in their class, 0..1.

    Args:
        model: switched to evaluation mode.
        data: whose normalisation applies.
        samples: uint8 images and labels.
        soft: soft quantizers at their present temperature, instead of steps.
    """
    assert samples.labels is not None, "detectors are judged by their mean average precision"
    with _evaluating(model, soft):
        batches = zip(samples.images.split(EVALUATION_BATCH), samples.labels.split(EVALUATION_BATCH), strict=True)
        n_right = sum(int((model(data.normalised(x)).argmax(dim=1) == y).sum()) for x, y in batches)
    return n_right / len(samples.labels)


def detections(model: nn.Module, data: TrainingData, samples: Samples, *, soft: bool = False) -> list[Detections]:
    """Boxes the network finds in each image; arguments as for `accuracy`.

    Raises:
        OptionError: the network is no detector.
    """
    detector = detector_of(model, type(model).__name__)
    found: list[Detections] = []
    with _evaluating(model, soft):
        for images in samples.images.split(EVALUATION_BATCH):
            locations, logits = (np.asarray(head) for head in model(data.normalised(images)))
            found += post_process(locations, logits, detector)
    return found


@contextmanager
def _evaluating(model: nn.Module, soft: bool) -> Iterator[None]:
    model.eval()
    set_soft(model, soft)
    try:
        with torch.no_grad():
            yield
    finally:
        set_soft(model, False)
