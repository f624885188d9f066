"""Artifacts against the integer reference: equality of every layer, `==`, optimizations off and on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.integer import FORMAT_KEY
from qexport.backends.onnx.reader import read_onnx
from qexport.backends.onnx.session import open_session, run_all_tensors, run_session
from qexport.conversion.settings import Settings
from qexport.errors import ArtifactError
from qexport.validation.report import ArtifactResult

EXACT_FORMATS = ("onnx",)


@dataclass
class OnnxArtifact:
    """An ONNX file under validation.

    Attributes:
        file: its path.
        model: as read.
        properties: metadata_props.
        differing: tensor -> values that differed from the reference.
    """

    file: Path
    model: Any
    properties: dict[str, str]
    tensors: int = 0
    images_all_tensors: int = 0
    images: int = 0
    differing: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.session = open_session(self.model, name=str(self.file))

    @classmethod
    def read(cls, path: str | Path) -> OnnxArtifact:
        """Load an artifact of qexport.

        Raises:
            ArtifactError: no such file, no ONNX model, or not written by qexport's convert.
        """
        file = Path(path)
        model, properties = read_onnx(file)
        if "qexport.settings" not in properties:
            raise ArtifactError(
                "the model was not written by qexport",
                where=str(file),
                got=f"metadata {sorted(properties) or 'none'}",
                expected="metadata_props with qexport.settings",
                remedy="validate a file that qexport convert wrote",
            )
        return cls(file, model, properties)

    @property
    def settings(self) -> Settings:
        return Settings.from_json(self.properties["qexport.settings"])

    @property
    def source_sha256(self) -> str:
        return self.properties.get("qexport.source_sha256", "")

    @property
    def is_exact(self) -> bool:
        """Whether the format promises the reference's integers."""
        return self.properties.get(FORMAT_KEY) in EXACT_FORMATS

    def compare_all(self, feeds: dict[str, NDArray], integers: dict[str, NDArray]) -> None:
        """Compare every layer output on one batch, with ONNX Runtime's optimizations off and on."""
        if not self.is_exact:
            return
        for optimized in (False, True):
            found = run_all_tensors(self.model, feeds, optimized)
            for name, expected in integers.items():
                if name in feeds:
                    continue
                if name not in found:
                    self.differing[f"{name} (missing)"] += 1
                    continue
                self._count(f"{name}{'' if optimized else ' (unoptimized)'}", found[name], expected)
            self.tensors = len(found)
        self.images_all_tensors += len(next(iter(feeds.values())))

    def outputs(self, feeds: dict[str, NDArray], names: list[str], integers: dict[str, NDArray]) -> NDArray:
        """First output on one batch, every output compared with the reference where the format promises equality."""
        found = run_session(self.session, feeds)
        if self.is_exact:
            for name in names:
                self._count(name, found[name], integers[name])
        self.images += len(next(iter(feeds.values())))
        return next(iter(found.values()))

    def _count(self, name: str, found: NDArray, expected: NDArray) -> None:
        wrong = expected.size if found.shape != expected.shape else int(np.sum(found != expected))
        if wrong:
            self.differing[name] += wrong

    def result(self) -> ArtifactResult:
        return ArtifactResult(
            self.file.name, self.is_exact, self.tensors, self.images_all_tensors, self.images, dict(self.differing)
        )
