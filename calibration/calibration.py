"""What calibration found, and the file that keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qexport.calibration.observers import Range
from qexport.errors import ArtifactError, OptionError

FORMAT = "qexport-calibration"
VERSION = 1


@dataclass(frozen=True)
class Source:
    """The network that was calibrated.

    Attributes:
        file: name of the checkpoint; empty for a model in memory.
        sha256: of the checkpoint; empty for a model in memory.
        input_shape, mean, std: how its images were prepared; activations depend on them.
    """

    file: str
    sha256: str
    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    """What one integer choice costs where everything else stays float.

    Attributes:
        kind: "activation" (quantizer in front of layers), "weights" (of a float layer) or "stream" (16-bit sum).
        name: tensor or layer.
        bits: width chosen.
        sqnr_db: signal to noise of the output of the layers concerned, the worst of them; None where nothing changes.
        output_db: signal to noise of the network's outputs; None where nothing changes.
        agreement: images, in percent, whose prediction stays; None where the network is no classifier.
        remedy: what would make it cost less; empty where nothing needs to.
    """

    kind: str
    name: str
    bits: int
    sqnr_db: float | None
    output_db: float | None
    agreement: float | None
    remedy: str


@dataclass(frozen=True)
class Calibration:
    """Ranges of one network.

    Attributes:
        ranges: tensor that a layer reads -> (lo, hi) of its quantizer.
        streams: tensor of a residual stream -> (smallest, largest) value seen; empty where not measured.
        act_bits: bits of the quantizers.
        bits_of: tensors whose quantizer has other bits.
        method: how the ranges were chosen; empty where they come from batch-norm statistics.
        images: number of images; 0 for batch-norm statistics.
        source: the network; None where the caller keeps track of it.
        sensitivity: cost of each choice, worst first; empty where not asked for.
    """

    ranges: dict[str, Range]
    streams: dict[str, Range]
    act_bits: int
    bits_of: dict[str, int] = field(default_factory=dict)
    method: str = ""
    images: int = 0
    source: Source | None = None
    sensitivity: tuple[Cost, ...] = ()

    def bits(self, tensor: str) -> int:
        """Bits of the quantizer of a tensor."""
        return self.bits_of.get(tensor, self.act_bits)

    def describe(self) -> str:
        """Where the ranges came from, in words."""
        if not self.images:
            return "batch-norm statistics"
        return f"{self.images} {'image' if self.images == 1 else 'images'}, method {self.method}"

    def to_json(self) -> str:
        """The file's text (docs/calibration.md); floats keep their exact value."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "source": asdict(self.source) if self.source else None,
            "method": self.method,
            "images": self.images,
            "act_bits": self.act_bits,
            "ranges": {t: {"lo": lo, "hi": hi, "bits": self.bits(t)} for t, (lo, hi) in self.ranges.items()},
            "streams": {t: {"lo": lo, "hi": hi} for t, (lo, hi) in self.streams.items()},
            "sensitivity": [asdict(cost) for cost in self.sensitivity],
        }
        # One line a tensor: readable, and small.
        sections = []
        for key, value in content.items():
            if isinstance(value, dict) and key in ("ranges", "streams") and value:
                lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
                sections.append(f' "{key}": {{\n{lines}\n }}')
            elif isinstance(value, list) and value:
                lines = ",\n".join(f"  {json.dumps(item)}" for item in value)
                sections.append(f' "{key}": [\n{lines}\n ]')
            else:
                sections.append(f' "{key}": {json.dumps(value)}')
        return "{\n" + ",\n".join(sections) + "\n}\n"

    def check_source(self, checkpoint: Source) -> None:
        """Refuse ranges that were measured on another network.

        Ranges of a model in memory have no hash; the network must then have the same input.

        Raises:
            OptionError: another file, or other preprocessing.
        """
        if self.source is None:
            return
        if self.source.sha256 and self.source.sha256 != checkpoint.sha256:
            raise OptionError(
                "the calibration was made from another checkpoint",
                where="--calibration",
                got=f"{self.source.file}, sha256 {self.source.sha256[:16]}...",
                expected=f"{checkpoint.file}, sha256 {checkpoint.sha256[:16]}...",
                remedy="calibrate this checkpoint: qexport calibrate",
            )
        for name in ("input_shape", "mean", "std"):
            measured, wanted = getattr(self.source, name), getattr(checkpoint, name)
            if measured != wanted:
                raise OptionError(
                    f"the calibration was made with another {name.replace('_', ' ')}",
                    where="--calibration",
                    got=measured,
                    expected=wanted,
                    remedy=f"calibrate and convert with the same --{name.replace('_', '-')}",
                )

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file of `to_json`.

        Raises:
            ArtifactError: unreadable, no calibration, or of another version.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise _unreadable(str(reason), str(path)) from error
        except ArtifactError as error:
            raise _unreadable(str(error.got), str(path)) from error

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Inverse of `to_json`.

        Raises:
            ArtifactError: the text is no calibration of this version.
        """
        try:
            return _parsed(json.loads(text))
        except KeyError as error:
            raise _unreadable(f"no entry {error}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _unreadable(str(error)) from error


def _parsed(raw: Any) -> Calibration:
    if not isinstance(raw, dict):
        raise ValueError(f"a JSON {type(raw).__name__} where an object belongs")
    if raw["format"] != FORMAT or raw["version"] != VERSION:
        raise ValueError(f"format {raw['format']!r}, version {raw['version']!r}")
    _check_kinds(raw)
    act_bits = _bits(raw["act_bits"])
    bits = {str(name): _bits(entry["bits"]) for name, entry in raw["ranges"].items()}
    source = raw["source"]
    if source is not None:
        lists = {name: tuple(source[name]) for name in ("input_shape", "mean", "std")}
        source = Source(**{**source, **lists})
    return Calibration(
        ranges={str(name): _range(entry) for name, entry in raw["ranges"].items()},
        streams={str(name): _range(entry) for name, entry in raw["streams"].items()},
        act_bits=act_bits,
        bits_of={name: value for name, value in bits.items() if value != act_bits},
        method=str(raw["method"]),
        images=int(raw["images"]),
        source=source,
        sensitivity=tuple(Cost(**cost) for cost in raw["sensitivity"]),
    )


def _check_kinds(raw: Mapping[str, Any]) -> None:
    """The entries are of the JSON kinds that `to_json` writes."""
    for name, kind in {"ranges": dict, "streams": dict, "sensitivity": list}.items():
        if not isinstance(raw[name], kind):
            raise ValueError(f"{name!r} is no JSON {'object' if kind is dict else 'array'}")
    for section in ("ranges", "streams"):
        for name, entry in raw[section].items():
            if not isinstance(entry, dict) or any(type(entry[end]) not in (int, float) for end in ("lo", "hi")):
                raise ValueError(f"the range of {name!r} needs numbers lo and hi, not {entry}")


def _range(entry: Mapping[str, Any]) -> Range:
    lo, hi = float(entry["lo"]), float(entry["hi"])
    if not (math.isfinite(lo) and math.isfinite(hi) and lo <= hi):
        raise ValueError(f"a range from {lo} to {hi}")
    return lo, hi


def _bits(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 8:
        raise ValueError(f"{value!r} bits")
    return value


def _unreadable(reason: str, where: str | None = None) -> ArtifactError:
    return ArtifactError(
        "the calibration file cannot be read",
        where=where,
        got=reason,
        expected=f"{FORMAT}, version {VERSION}",
        remedy="write it with qexport calibrate -o FILE",
    )
