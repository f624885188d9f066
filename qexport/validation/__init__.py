"""Validation: float, frozen, edge-quantized, integer and every artifact, compared on data."""

from qexport.validation.report import Report
from qexport.validation.validate import validate

__all__ = ["Report", "validate"]
