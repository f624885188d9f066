"""A small trainer for soft-quantized networks: data, schemes, loop. The command is qexport.models.train."""

from __future__ import annotations

from qexport.models.training.data import TrainingData, digits, from_folder, from_npz, open_data, scenes
from qexport.models.training.evaluate import accuracy, detections
from qexport.models.training.loop import Settings, Trained, train
from qexport.models.training.scheme import Phase, Scheme
from qexport.models.training.scheme_daq import DAQScheme
from qexport.models.training.scheme_qn import QNScheme
from qexport.models.training.task import detector_of

__all__ = [
    "DAQScheme",
    "Phase",
    "QNScheme",
    "Scheme",
    "Settings",
    "Trained",
    "TrainingData",
    "accuracy",
    "detections",
    "detector_of",
    "digits",
    "from_folder",
    "from_npz",
    "open_data",
    "scenes",
    "train",
]
