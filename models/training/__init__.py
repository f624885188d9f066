"""A small trainer for soft-quantized networks: data, schemes, loop. The command is qexport.models.train."""

from __future__ import annotations

from qexport.models.training.data import TrainingData, digits, from_npz
from qexport.models.training.loop import Settings, Trained, accuracy, train
from qexport.models.training.scheme import Phase, Scheme
from qexport.models.training.scheme_daq import DAQScheme
from qexport.models.training.scheme_qn import QNScheme

__all__ = [
    "DAQScheme",
    "Phase",
    "QNScheme",
    "Scheme",
    "Settings",
    "Trained",
    "TrainingData",
    "accuracy",
    "digits",
    "from_npz",
    "train",
]
