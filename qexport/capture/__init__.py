"""torch.export capture of a frozen network into a real-number IR graph."""

from qexport.capture.capture import Captured, capture

__all__ = ["Captured", "capture"]
