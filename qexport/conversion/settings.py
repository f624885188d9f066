"""Everything that decides which integer network a checkpoint becomes; written into every artifact."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from qexport.errors import ArtifactError, OptionError
from qexport.passes.edge_record import EdgeRecord
from qexport.passes.layers import DEFAULT_ACT_BITS
from qexport.passes.streams import NARROW_BITS

DEFAULT_EDGE_BITS = None
"""Weight bits of layers that training left float: as many as int32 allows. docs/decisions/004-edge-bits.md has why."""

MAX_BITS = 8
EDGE_BITS_RANGE = (4, 24)


@dataclass(frozen=True)
class Settings:
    """Settings of one conversion.

    Attributes:
        weight_bits, act_bits: what the checkpoint was trained for; None where nobody said.
        float_act_bits: bits of the activations that training left float and qexport calibrates.
        edge_bits: weight bits of float layers; None takes as many as the accumulators allow.
        stream_bits: 16 narrows residual streams whose measured range allows it (DESIGN 4.4), 32 never does.
        weight_levels: integer weight levels where the checkpoint leaves them open.
        family, arch, model, quantizers, qn_biases, temperature: see load_checkpoint.
        input_shape, mean, std: replace the checkpoint's own.
        ranges: calibrated range (lo, hi) of every tensor that needs one.
        range_bits: bits of calibrated tensors that have others than float_act_bits.
        stream_ranges: measured extremes (lo, hi) of the tensors of residual streams.
        calibration: where the ranges came from, in words.
        edge_weights: float layer -> its levels where images decided about them; validation rebuilds it from here.
    """

    weight_bits: int | None = None
    act_bits: int | None = None
    float_act_bits: int = DEFAULT_ACT_BITS
    edge_bits: int | None = DEFAULT_EDGE_BITS
    stream_bits: int = NARROW_BITS
    weight_levels: tuple[int, ...] | None = None
    family: str | None = None
    arch: str | None = None
    model: str | None = None
    quantizers: tuple[str, ...] = ()
    qn_biases: str | None = None
    temperature: float | None = None
    input_shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    range_bits: dict[str, int] = field(default_factory=dict)
    stream_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    calibration: str = ""
    edge_weights: dict[str, EdgeRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option, bits in (
            ("--weight-bits", self.weight_bits),
            ("--act-bits", self.act_bits),
            ("--act-bits", self.float_act_bits),
        ):
            if bits is not None and not 1 <= bits <= MAX_BITS:
                raise OptionError("unsupported bit width", where=option, got=bits, expected=f"1 to {MAX_BITS}")
        if self.stream_bits not in (NARROW_BITS, 32):
            raise OptionError("unsupported width", where="--stream-bits", got=self.stream_bits, expected="16 or 32")
        lo, hi = EDGE_BITS_RANGE
        if self.edge_bits is not None and not lo <= self.edge_bits <= hi:
            raise OptionError(
                "unsupported bit width", where="--edge-bits", got=self.edge_bits, expected=f"{lo} to {hi}, or max"
            )

    def to_json(self) -> str:
        """Compact, with sorted keys; floats keep their exact value."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Inverse of `to_json`.

        Raises:
            ArtifactError: the text is no settings of this version.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            known = {f.name for f in fields(cls)}
            if set(raw) - known:
                raise ValueError(f"unknown settings {sorted(set(raw) - known)}")
            for name in ("weight_levels", "quantizers", "input_shape", "mean", "std"):
                if raw.get(name) is not None:
                    raw[name] = tuple(raw[name])
            for name in ("ranges", "stream_ranges"):
                raw[name] = {k: (float(a), float(b)) for k, (a, b) in raw.get(name, {}).items()}
            raw["edge_weights"] = {k: EdgeRecord.from_dict(v) for k, v in raw.get("edge_weights", {}).items()}
            return cls(**raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(
                "the artifact's conversion settings cannot be read",
                got=str(error),
                remedy="convert the checkpoint again with this version",
            ) from error
