"""The float network as int8, the way ONNX Runtime's own tools quantize: what OpenVINO and ONNX Runtime run fastest."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

CALIBRATION_IMAGES = 4


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Seeded images, one a batch."""

    def __init__(self, model: onnx.ModelProto, seed: int) -> None:
        shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim[1:]] for i in model.graph.input}
        random = np.random.default_rng(seed)
        self.feeds = iter(
            [{name: float_images(random, 1, s) for name, s in shapes.items()} for _ in range(CALIBRATION_IMAGES)]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.feeds, None)


def float_images(random: np.random.Generator, batch: int, shape: list[int]) -> NDArray[np.float32]:
    """Noise of the spread of normalised pixels, float32 [batch, *shape]."""
    return random.normal(0, 1, (batch, *shape)).astype(np.float32)


def quantize(source: Path, target: Path, *, seed: int = 0) -> None:
    """Write a float model as int8 QDQ: uint8 activations, int8 weights with a scale per output channel.

    Args:
        source: float32 ONNX file.
        target: file to write.
        seed: of the images that ranges are measured on.
    """
    logging.getLogger().addFilter(_is_no_advice)
    try:
        quantize_static(
            source,
            target,
            _Images(onnx.load(source), seed),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    finally:
        logging.getLogger().removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    """The tool recommends a step that merges nodes; our float network has nothing left to merge."""
    return "pre-processing" not in record.getMessage()
