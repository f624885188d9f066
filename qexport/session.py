"""Running .qpk files: a session as users of ONNX Runtime know it. Needs numpy and the C runtime, nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qexport.errors import ArtifactError, DataError, OptionError, QExportError
from qexport.packed_metadata import read_metadata, tensor_names

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUFFIX = ".qpk"

ISA_VARIABLE = "QXR_ISA"
"""Environment variable that names the instruction set for sessions whose caller names none."""

OUTPUTS = ""
"""Entry of `time_layers` for handing back the outputs."""

MAX_THREADS = 256
WHOLE_FILE = 0xFFFFFFFF
"""Index in an error that concerns no single tensor."""

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class NodeArg:
    """An input or output.

    Attributes:
        name: key of the feeds or results.
        shape: "N", then the extents, channels first.
        type: element type as ONNX Runtime writes it.
    """

    name: str
    shape: list[str | int]
    type: str


@dataclass(frozen=True)
class ModelMetadata:
    """What the file says about itself, in ONNX Runtime's fields; custom_metadata_map has the qexport.* keys."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


def is_packed(path: str | Path) -> bool:
    """Whether a path names a .qpk file."""
    return str(path).lower().endswith(SUFFIX)


def available_isas() -> list[str]:
    """Instruction sets that this build has kernels for and this processor can run, best last; "scalar" is the first."""
    return [name for name, available in load_runtime().isas() if available]


class InferenceSession:
    """A .qpk file, checked completely and ready to run.

    One session may be run from several threads at once, and several sessions run side by side.

    Args:
        path_or_bytes: the file's path, or its contents as a bytes-like object. Contents that nobody can write to are
            used in place where they are 8-byte aligned (bytes are; so is a read-only mmap, whose file must then not
            change), others are copied.
        threads: how many threads a run uses: side by side on the images of a batch, within an image on the rest.
        isa: instruction set ("scalar", "avx2" ...); None takes the environment's QXR_ISA, or else the best one.

    Raises:
        ArtifactError: no such file, no .qpk file, a damaged or an unsound one; the message names the tensor.
        OptionError: threads out of range, an instruction set that is unknown or not available here.
    """

    def __init__(self, path_or_bytes: str | os.PathLike[str] | Buffer, *, threads: int = 1, isa: str | None = None):
        runtime = load_runtime()
        if isinstance(path_or_bytes, str | os.PathLike):
            self._where = os.fspath(path_or_bytes)
            data: Buffer = _read(self._where)
        else:
            self._where, data = "model", path_or_bytes
        if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
            raise OptionError(
                "the number of threads is out of range",
                where="threads",
                got=repr(threads),
                expected=f"1 to {MAX_THREADS}",
            )
        chosen = _choose_isa(runtime, isa)
        try:
            self._model = runtime.Model(data, isa=chosen, threads=threads)
        except runtime.StatusError as error:
            raise self._refused(*error.args) from None
        self._metadata = read_metadata(self._model.metadata, self._where)
        names = tensor_names(self._metadata, len(self._model.tensors))
        self._tensors = [_Tensor(names[index], shape, lo, hi) for shape, lo, hi, index in self._model.tensors]
        self._inputs = [self._tensors[index] for *_, index in self._model.inputs]
        self._outputs = [self._tensors[index] for *_, index in self._model.outputs]

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._model.isa

    @property
    def threads(self) -> int:
        """How many threads a run uses."""
        return self._model.threads

    @property
    def arena_size(self) -> int:
        """Bytes of working memory that one thread of a run uses."""
        return self._model.arena_size

    def get_inputs(self) -> list[NodeArg]:
        """The inputs: uint8."""
        return [NodeArg(t.name, ["N", *t.shape], "tensor(uint8)") for t in self._inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs: int32."""
        return [NodeArg(t.name, ["N", *t.shape], "tensor(int32)") for t in self._outputs]

    def get_modelmeta(self) -> ModelMetadata:
        """The file's metadata."""
        return ModelMetadata("qexport", "qexport", "", "", "", 0, dict(self._metadata))

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray]) -> list[NDArray[np.int32]]:
        """Run the network on a batch.

        Args:
            output_names: which outputs, in which order; None, or none at all, for all.
            input_feed: uint8 [N, *shape] for every input; N may be anything, 0 included, the same for all.

        Returns:
            int32 [N, *shape] for each name.

        Raises:
            DataError: an unknown or missing name, a wrong type or shape.
        """
        outputs = {t.name: t for t in self._outputs}
        wanted = list(output_names or outputs)
        for name in wanted:
            if name not in outputs:
                raise DataError("no such output", where=self._where, got=name, expected=", ".join(outputs))
        batch, arrays = self._feed(input_feed)
        found = {name: np.empty((batch, *t.shape), np.int32) for name, t in outputs.items()}
        self._run(arrays, found, batch, None)
        return [found[name] for name in wanted]

    def run_all(self, input_feed: Mapping[str, NDArray]) -> dict[str, NDArray[np.int32]]:
        """Every result of every operator, those included that are never stored: slow, for tests and validation.

        Args:
            input_feed: as for `run`.

        Returns:
            int32 [N, *shape] by name, inputs left out, in the order of the file.

        Raises:
            DataError: as `run`.
        """
        batch, arrays = self._feed(input_feed)
        outputs = {t.name: np.empty((batch, *t.shape), np.int32) for t in self._outputs}
        found = {t.name: np.full((batch, *t.shape), t.never, np.int32) for t in self._tensors}
        self._run(arrays, outputs, batch, list(found.values()))
        inputs = {t.name for t in self._inputs}
        return {name: array for name, array in found.items() if name not in inputs}

    def time_layers(self, input_feed: Mapping[str, NDArray]) -> dict[str, float]:
        """How long each part of a run takes; images run one after the other.

        Args:
            input_feed: as for `run`.

        Returns:
            seconds, all images together: of taking in the inputs under the name of the last input, of each group of
            operators that run together (docs/packed-format.md, section 6) under the name of its last result, and of
            handing back the outputs under "".

        Raises:
            DataError: as `run`.
        """
        batch, arrays = self._feed(input_feed)
        outputs = {t.name: np.empty((batch, *t.shape), np.int32) for t in self._outputs}
        times = np.zeros(len(self._tensors) + 1, np.int64)
        self._run(arrays, outputs, batch, None, times)
        names = [*(t.name for t in self._tensors), OUTPUTS]
        return {names[i]: int(times[i]) / 1e9 for i in np.flatnonzero(times)}

    def _run(
        self,
        inputs: list[NDArray],
        outputs: dict[str, NDArray],
        batch: int,
        tensors: list[NDArray] | None,
        times: NDArray[np.int64] | None = None,
    ) -> None:
        try:
            # One entry an output of the file, which may name a tensor twice.
            self._model.run(inputs, [outputs[t.name] for t in self._outputs], batch, tensors, times)
        except load_runtime().StatusError as error:
            raise ArtifactError("the run failed", where=self._where, got=error.args[1]) from None

    def _feed(self, feed: Mapping[str, NDArray]) -> tuple[int, list[NDArray[np.uint8]]]:
        """Batch size, and contiguous arrays in the order of the inputs."""
        names = [t.name for t in self._inputs]
        if not isinstance(feed, Mapping):
            got, remedy = type(feed).__name__, f"give the array its name: {{{names[0]!r}: array}}"
            raise DataError(
                "the inputs are no mapping", where=self._where, got=got, expected="{name: array}", remedy=remedy
            )
        if unknown := [name for name in feed if name not in names]:
            raise DataError("no such input", where=self._where, got=", ".join(unknown), expected=", ".join(names))
        if missing := [name for name in names if name not in feed]:
            got = ", ".join(feed) or "none"
            raise DataError("an input is missing", where=", ".join(missing), got=got, expected=", ".join(names))
        arrays = [self._check(t, np.asarray(feed[t.name])) for t in self._inputs]
        batches = {t.name: len(array) for t, array in zip(self._inputs, arrays, strict=True)}
        if len(set(batches.values())) > 1:
            raise DataError("the inputs differ in batch size", where=self._where, got=batches, expected="one N for all")
        return len(arrays[0]), arrays

    def _check(self, tensor: _Tensor, array: NDArray) -> NDArray[np.uint8]:
        if array.dtype != np.uint8:
            raise DataError(
                "an input has the wrong type",
                where=tensor.name,
                got=array.dtype,
                expected="uint8",
                remedy="give the pixels 0..255 themselves: normalisation is inside the model",
            )
        if array.shape[1:] != tensor.shape or array.ndim == 0:
            shape = ", ".join(map(str, tensor.shape))
            swapped = array.ndim == 4 and (array.shape[3], *array.shape[1:3]) == tensor.shape
            raise DataError(
                "an input has the wrong shape",
                where=tensor.name,
                got=list(array.shape),
                expected=f"[N, {shape}]",
                remedy="the channels come first: array.transpose(0, 3, 1, 2)" if swapped else None,
            )
        return np.ascontiguousarray(array)

    def _refused(self, status: int, text: str, failed_at: int) -> ArtifactError:
        place = "" if failed_at == WHOLE_FILE else f", at tensor {failed_at} or the operator that makes it"
        return ArtifactError(
            text,
            where=self._where,
            got=f"status {status}{place}",
            expected="a sound .qpk file (docs/packed-format.md)",
            remedy="convert the checkpoint again",
        )


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file: shape without the batch, proven range."""

    name: str
    shape: tuple[int, ...]
    lo: int
    hi: int

    @property
    def never(self) -> int:
        """A value the tensor never has, where there is one: it shows what a run left out."""
        return self.lo - 1 if self.lo > INT32.min else min(self.hi + 1, int(INT32.max))


def load_runtime() -> Any:
    """The C extension, imported when it is needed: everything else in qexport works without."""
    try:
        from qexport import _runtime
    except ImportError as error:
        raise QExportError(
            "the C runtime is not installed",
            where="qexport._runtime",
            got=str(error),
            expected="the extension that is built when qexport is installed (Linux and macOS)",
            remedy="install qexport with pip; in a source tree: pip install -e .",
        ) from error
    return _runtime


def _read(path: str) -> bytes:
    """The file's bytes: a copy, since what was checked must not change afterwards, as a mapped file could."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(
            "no such file", where=path, remedy="qexport convert --format qpk writes model.qpk"
        ) from error
    except OSError as error:
        raise ArtifactError("the file cannot be read", where=path, got=error.strerror) from error


def _choose_isa(runtime: Any, isa: str | None) -> str | None:
    """What the caller named, or the environment; None for the best there is."""
    where, name = ("isa", isa) if isa is not None else (ISA_VARIABLE, os.environ.get(ISA_VARIABLE) or None)
    if name is None:
        return None
    known = dict(runtime.isas())
    here = ", ".join(n for n, available in known.items() if available)
    if name not in known:
        raise OptionError("unknown instruction set", where=where, got=name, expected=f"one of {', '.join(known)}")
    if not known[name]:
        raise OptionError(
            "this processor does not have the instruction set", where=where, got=name, expected=f"one of {here}"
        )
    return name
