"""qexport: networks trained with soft quantizers become verified integer inference.

`calibrate`, `convert` and `validate` are imported on first use, so that `import qexport` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from qexport.errors import QExportError

__version__ = "0.1.0"
__all__ = ["Artifact", "Calibration", "InferenceSession", "QExportError", "Report", "calibrate", "convert", "validate"]

_HOMES = {
    "Artifact": "qexport.conversion",
    "Calibration": "qexport.calibration",
    "calibrate": "qexport.conversion",
    "convert": "qexport.conversion",
    "InferenceSession": "qexport.session",
    "Report": "qexport.validation",
    "validate": "qexport.validation",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
