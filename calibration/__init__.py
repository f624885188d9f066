"""Ranges of what training left float: measured on images, or estimated from batch-norm statistics. Needs no torch."""

from qexport.calibration.calibrate import DEFAULT_METHOD, calibrate
from qexport.calibration.ranges import DEFAULT_PERCENTILE, measure_ranges
from qexport.calibration.statistics import ranges_from_statistics

__all__ = ["DEFAULT_METHOD", "DEFAULT_PERCENTILE", "calibrate", "measure_ranges", "ranges_from_statistics"]
