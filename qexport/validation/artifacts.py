"""Artifacts against the integer reference: equality of every layer, `==`, on every path a file can be run."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from numpy.typing import NDArray

from qexport.backends.onnx.integer import ABSORBED_KEY, FORMAT_KEY
from qexport.backends.onnx.postprocess import OUTPUTS, POST_PROCESS_FORMAT
from qexport.backends.onnx.reader import read_onnx
from qexport.backends.onnx.session import open_session, run_all_tensors, run_session
from qexport.conversion.settings import Settings
from qexport.detection import Detections
from qexport.errors import ArtifactError
from qexport.session import InferenceSession, available_isas, is_packed
from qexport.validation.report import ArtifactResult

EXACT_FORMATS = ("onnx", "qpk")

THREADS = (1, 2)
SETTINGS_KEY = "qexport.settings"


class Artifact(ABC):
    """A file under validation.

    Args:
        file: its path.
        properties: its metadata.
        paths: the ways in which it can be run, in words; all give every layer of some images.
        fast: the first so many paths give the outputs of all images; the first one's are what the file says.

    Raises:
        ArtifactError: not written by qexport's convert.
    """

    def __init__(self, file: str | Path, properties: dict[str, str], paths: Sequence[str], fast: int) -> None:
        self.file = Path(file)
        self.properties = properties
        self.paths = list(paths)
        self.fast = fast
        self.tensors = self.images_all_tensors = self.images = 0
        self.differing = Counter[str]()
        self.absorbed = frozenset(json.loads(properties.get(ABSORBED_KEY, "[]")))
        if SETTINGS_KEY not in properties:
            raise ArtifactError(
                "the model was not written by qexport",
                where=str(file),
                got=f"metadata {sorted(properties) or 'none'}",
                expected=f"metadata with {SETTINGS_KEY}",
                remedy="validate a file that qexport convert wrote",
            )

    @property
    def settings(self) -> Settings:
        return Settings.from_json(self.properties[SETTINGS_KEY])

    @property
    def source_sha256(self) -> str:
        return self.properties.get("qexport.source_sha256", "")

    @property
    def is_exact(self) -> bool:
        """Whether the format promises the reference's integers."""
        return self.properties.get(FORMAT_KEY) in EXACT_FORMATS

    @abstractmethod
    def run_all(self, path: str, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
        """Every tensor on one batch, inputs left out."""

    @abstractmethod
    def run(self, path: str, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
        """The outputs on one batch."""

    def compare_all(self, feeds: dict[str, NDArray], integers: dict[str, NDArray]) -> None:
        """Compare every layer output on one batch, on every path, but for those the file says it does not compute."""
        if not self.is_exact:
            return
        for path in self.paths:
            found = self.run_all(path, feeds)
            for name, expected in integers.items():
                if name in feeds or name in self.absorbed:
                    continue
                if name not in found:
                    self.differing[f"{name} (missing)"] += 1
                    continue
                self._count(f"{name} ({path})", found[name], expected)
            self.tensors = len(found)
        self.images_all_tensors += len(next(iter(feeds.values())))

    def outputs(self, feeds: dict[str, NDArray], names: list[str], integers: dict[str, NDArray]) -> list[NDArray]:
        """Outputs on one batch, each compared with the reference where the format promises equality."""
        results = {path: self.run(path, feeds) for path in self.paths[: self.fast if self.is_exact else 1]}
        if self.is_exact:
            for path, found in results.items():
                for name in names:
                    self._count(f"{name} ({path})", found[name], integers[name])
        self.images += len(next(iter(feeds.values())))
        return list(results[self.paths[0]].values())

    def _count(self, name: str, found: NDArray, expected: NDArray) -> None:
        wrong = expected.size if found.shape != expected.shape else int((found != expected).sum())
        if wrong:
            self.differing[name] += wrong

    def result(self) -> ArtifactResult:
        return ArtifactResult(
            self.file.name,
            self.is_exact,
            self.tensors,
            self.images_all_tensors,
            self.images,
            dict(self.differing),
            self.paths,
        )


class OnnxArtifact(Artifact):
    """An ONNX file, run by ONNX Runtime with its optimizations on and off."""

    def __init__(self, file: str | Path) -> None:
        self.model, properties = read_onnx(file)
        super().__init__(file, properties, ("optimized", "unoptimized"), fast=1)
        self.session = open_session(self.model, name=str(file))

    def run_all(self, path: str, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
        return run_all_tensors(self.model, feeds, path == "optimized")

    def run(self, path: str, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
        return run_session(self.session, feeds)


class PostProcessArtifact(OnnxArtifact):
    """A detector's post.onnx, which takes the integer heads instead of images."""

    def detections(self, integers: dict[str, NDArray]) -> list[Detections]:
        """What it makes of the integer network's outputs on one batch."""
        names = [value.name for value in self.session.get_inputs()]
        found = run_session(self.session, {name: integers[name] for name in names})
        self.images += len(integers[names[0]])
        columns = (found[name] for name in OUTPUTS)
        return [Detections(b[:n], s[:n], c[:n]) for b, s, c, n in zip(*columns, strict=True)]


class PackedArtifact(Artifact):
    """A .qpk file, run on every instruction set of this processor, with one thread and with two."""

    def __init__(self, file: str | Path) -> None:
        self.sessions = {
            f"{isa}, {threads} thread{'s' if threads > 1 else ''}": InferenceSession(file, threads=threads, isa=isa)
            for isa in reversed(available_isas())
            for threads in THREADS
        }
        first = next(iter(self.sessions.values()))
        super().__init__(file, first.get_modelmeta().custom_metadata_map, list(self.sessions), len(THREADS))

    def run_all(self, path: str, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
        return dict(self.sessions[path].run_all(feeds))

    def run(self, path: str, feeds: dict[str, NDArray]) -> dict[str, NDArray]:
        session = self.sessions[path]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))


def open_artifact(path: str | Path) -> Artifact:
    """Load an artifact of qexport; a file named *.qpk is read as one, any other as ONNX.

    Raises:
        ArtifactError: no such file, damaged or of another kind, or not written by qexport's convert.
    """
    if is_packed(path):
        return PackedArtifact(path)
    _, properties = read_onnx(path)
    return PostProcessArtifact(path) if properties.get(FORMAT_KEY) == POST_PROCESS_FORMAT else OnnxArtifact(path)
