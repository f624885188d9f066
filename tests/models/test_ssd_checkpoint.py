"""The committed detector: its soft network finds digits, and so does the integer network made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qexport.checkpoints import load_checkpoint
from qexport.conversion.build import build
from qexport.conversion.settings import Settings
from qexport.datasets.objects import read_objects
from qexport.detection import post_process
from qexport.models.quantizers import set_soft
from qexport.reference import interpret
from qexport.validation.detection import mean_average_precision

pytest.importorskip("sklearn", reason="the handwritten digits come with scikit-learn (extra 'demo')")

from qexport.models.detection.digit_scenes import make_scenes

CHECKPOINT = Path(__file__).resolve().parents[2] / "models" / "checkpoints" / "ssd_small_w3a3.pt"
N_SCENES = 100


def test_integer_detector_finds_what_the_soft_one_finds() -> None:
    """mAP@0.5 of at least 0.8, and integers within 0.01 of it (all 500 scenes: docs/training.md)."""
    checkpoint = load_checkpoint(CHECKPOINT)
    detector = checkpoint.detector
    assert detector is not None and checkpoint.mean is not None and checkpoint.std is not None
    scenes = make_scenes(N_SCENES, split="test")
    images = scenes.images.transpose(0, 3, 1, 2)
    truth = read_objects(vars(scenes), N_SCENES, images.shape[2:], "scenes")

    set_soft(checkpoint.model, True)
    with torch.no_grad():
        heads = checkpoint.model((torch.from_numpy(images).float() / 255 - checkpoint.mean[0]) / checkpoint.std[0])
    soft = mean_average_precision(post_process(*(head.numpy() for head in heads), detector), truth)

    built = build(CHECKPOINT, Settings())
    (feed,) = built.graph.inputs
    integers = interpret(built.graph, {feed: images}).outputs
    values = [integers[unit.tensor] * float(unit.scale) for unit in built.lowered.outputs]
    assert all(np.issubdtype(head.dtype, np.integer) for head in integers.values())
    exact = mean_average_precision(post_process(*values, detector), truth)

    assert soft.voc >= 80
    assert abs(exact.voc - soft.voc) <= 1
    assert abs(exact.coco - soft.coco) <= 1
