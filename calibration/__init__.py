"""Ranges of what training left float: measured on images, or estimated from batch-norm statistics. Needs no torch."""

from qexport.calibration.calibrate import calibrate
from qexport.calibration.calibration import Calibration
from qexport.calibration.methods import DEFAULT_METHOD, DEFAULT_PERCENTILE, METHOD_NAMES
from qexport.calibration.ranges import measure_ranges
from qexport.calibration.statistics import ranges_from_statistics

__all__ = [
    "DEFAULT_METHOD",
    "DEFAULT_PERCENTILE",
    "METHOD_NAMES",
    "Calibration",
    "calibrate",
    "measure_ranges",
    "ranges_from_statistics",
]
