"""Levels of a float layer that were fitted to data, as an artifact keeps them for validation."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.errors import ArtifactError
from qexport.ops import Weight


@dataclass(frozen=True)
class EdgeRecord:
    """Levels, scale and shift of one layer.

    Attributes:
        rounding: levels minus the nearest integers of weight / scale, int16 little-endian, compressed, in base64. Most
            are 0 and the rest -1 or 1, so they take a fraction of the levels' space.
        scale: of each output channel.
        shift: real value added to each output channel, minus the mean error the levels make.
    """

    rounding: str
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def of(cls, weight: NDArray[np.float64], fitted: Weight) -> EdgeRecord:
        """Record of fitted levels of `weight` [O, I/groups, ...]; no shift."""
        scale = np.array([float(s) for s in fitted.scale or ()])
        difference = fitted.array - _nearest(weight, scale)
        packed = zlib.compress(np.ascontiguousarray(difference).astype("<i2").tobytes(), 9)
        return cls(base64.b64encode(packed).decode("ascii"), tuple(scale.tolist()), (0.0,) * len(scale))

    def weight(
        self, weight: NDArray[np.float64], edge_bits: int, input_unit: tuple[Fraction, ...] | None, name: str = ""
    ) -> Weight:
        """The fitted levels of the layer `name` whose weights per integer of the input are `weight`.

        Raises:
            ArtifactError: the record is damaged, or that of another layer.
        """
        scale = np.array(self.scale)
        if scale.shape != weight.shape[:1] or scale.shape != (len(self.shift),):
            raise _damaged(name, f"{len(self.scale)} scales and {len(self.shift)} shifts", str(len(weight)))
        if not all(math.isfinite(v) for v in (*self.scale, *self.shift)) or scale.min(initial=1.0) <= 0:
            raise _damaged(name, "scales or shifts that are no numbers", "finite ones, scales above 0")
        try:
            stream = zlib.decompressobj()
            raw = stream.decompress(base64.b64decode(self.rounding, validate=True), 2 * weight.size + 1)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise _damaged(name, str(error), "compressed roundings") from error
        if len(raw) != 2 * weight.size:
            raise _damaged(name, f"{len(raw)} bytes of roundings", str(2 * weight.size))
        levels = _nearest(weight, scale) + np.frombuffer(raw, "<i2").reshape(weight.shape)
        exact = tuple(Fraction(s) for s in self.scale)
        return Weight(levels.astype(np.int32), exact, input_unit=input_unit, edge_bits=edge_bits)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> EdgeRecord:
        """Inverse of `dataclasses.asdict`; raises KeyError, TypeError or ValueError for anything else."""
        numbers = (tuple(float(v) for v in raw[key]) for key in ("scale", "shift"))
        return cls(str(raw["rounding"]), *numbers)


def _nearest(weight: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))).astype(np.int64)


def _damaged(name: str, got: str, expected: str) -> ArtifactError:
    return ArtifactError(
        "the stored rounding of a float layer does not fit it",
        where=name,
        got=got,
        expected=expected,
        remedy="convert the checkpoint again",
    )
