"""Detection: what stands between the heads of a network and its boxes, as numbers and as numpy functions.

A detector's integer network ends at its heads. Priors, box decoding, softmax and non-maximum suppression are float
work on few values and stay outside it (docs/detection.md); this package is their definition.
"""

from __future__ import annotations

from qexport.detection.boxes import decode_boxes, encode_boxes, iou_matrix
from qexport.detection.detector import Detector, PriorGrid
from qexport.detection.postprocess import Detections, post_process

__all__ = ["Detections", "Detector", "PriorGrid", "decode_boxes", "encode_boxes", "iou_matrix", "post_process"]
