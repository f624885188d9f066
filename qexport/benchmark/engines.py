"""The engines: each opens a file and runs it on images. One worker process has one of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.errors import OptionError

Run = Callable[[], Any]
"""Runs the network once, on images given before; returns its outputs."""


@dataclass(frozen=True)
class Job:
    """What a worker opens.

    Attributes:
        path: .qpk or ONNX file.
        threads: of one run.
        batch: images of one run.
        shapes: input -> shape of one image; the order is that of the file.
        pixels: images are bytes, else float32.
    """

    path: str
    threads: int
    batch: int
    shapes: dict[str, list[int]]
    pixels: bool

    def images(self) -> dict[str, NDArray]:
        """Seeded images of the inputs."""
        random = np.random.default_rng(0)
        if self.pixels:
            return {n: random.integers(0, 256, (self.batch, *s)).astype(np.uint8) for n, s in self.shapes.items()}
        return {n: random.normal(0, 1, (self.batch, *s)).astype(np.float32) for n, s in self.shapes.items()}


@dataclass(frozen=True)
class Engine:
    """An engine.

    Attributes:
        what: for people: network and configuration.
        package: which must be installed; also the name of what pip installs.
        prepare: imports everything and starts what outlives a session, before the clock and the memory meter.
        open: loads the file; a run follows.
        network: "own" for the file the user gave, else which form of the network it runs: "int8" or "float32".
    """

    what: str
    package: str
    prepare: Callable[[Job], None]
    open: Callable[[Job, dict[str, NDArray]], Run]
    network: str


def _open_runtime(job: Job, images: dict[str, NDArray]) -> Run:
    from qexport.session import InferenceSession

    session = InferenceSession(job.path, threads=job.threads)
    return lambda: session.run(None, images)


def _open_onnx(job: Job, images: dict[str, NDArray]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("N", job.batch)
    session = onnxruntime.InferenceSession(job.path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, images)


def _prepare_openvino(job: Job) -> None:
    import openvino

    openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin


def _open_openvino(job: Job, images: dict[str, NDArray]) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(job.path)
    model.reshape({name: list(array.shape) for name, array in images.items()})
    compiled = core.compile_model(
        model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": job.threads, "NUM_STREAMS": 1}
    )
    request = compiled.create_infer_request()
    for name, array in images.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def run() -> list[NDArray]:
        request.infer()
        return [request.get_output_tensor(i).data for i in range(len(compiled.outputs))]

    return run


def _open_torch(job: Job, images: dict[str, NDArray]) -> Run:
    from qexport.benchmark.torch_network import TorchNetwork

    return TorchNetwork(job.path, job.threads).on(images)


def _importing(*modules: str) -> Callable[[Job], None]:
    def prepare(job: Job) -> None:
        for module in modules:
            importlib.import_module(module)

    return prepare


ENGINES: dict[str, Engine] = {
    "qexport": Engine(
        "the packed file in qexport.InferenceSession", "qexport", _importing("qexport.session"), _open_runtime, "own"
    ),
    "qexport-onnx": Engine(
        "the ONNX file in ONNX Runtime, exact on every processor",
        "onnxruntime",
        _importing("qexport.backends.onnx.session"),
        _open_onnx,
        "own",
    ),
    "onnxruntime": Engine(
        "int8 QDQ (uint8 activations, int8 weights per channel) in ONNX Runtime, all optimizations",
        "onnxruntime",
        _importing("onnxruntime"),
        _open_onnx,
        "int8",
    ),
    "onnxruntime-fp32": Engine(
        "float32 in ONNX Runtime, all optimizations",
        "onnxruntime",
        _importing("onnxruntime"),
        _open_onnx,
        "float32",
    ),
    "openvino": Engine(
        "the int8 QDQ file in OpenVINO, latency hint, fixed batch",
        "openvino",
        _prepare_openvino,
        _open_openvino,
        "int8",
    ),
    "torch": Engine(
        "float32 in torch, eager, channels last",
        "torch",
        _importing("torch", "qexport.benchmark.torch_network"),
        _open_torch,
        "float32",
    ),
}
"""Every engine by its name; those that do not run the user's own file may be named in --against."""

PEERS = tuple(name for name, engine in ENGINES.items() if engine.network != "own")


def require(names: tuple[str, ...]) -> None:
    """Refuse peers that are unknown or not installed, before any work is done.

    Raises:
        OptionError: naming the package to install.
    """
    for name in names:
        if name not in PEERS:
            raise OptionError("unknown engine", where="--against", got=name, expected=", ".join(PEERS))
        package = ENGINES[name].package
        if find_spec(package) is None:
            raise OptionError(
                f"{name} is not installed",
                where="--against",
                got=f"no Python package {package}",
                remedy=f"pip install {package}, or pip install 'qexport[bench]' for all of them",
            )


def installed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of some engines whose package is here."""
    return tuple(name for name in names if find_spec(ENGINES[name].package) is not None)


def describe(name: str) -> str:
    """The engine with the version of its package."""
    package = ENGINES[name].package
    return f"{ENGINES[name].what}; {package} {version(package)}"


def own_engine(path: str | os.PathLike[str]) -> str:
    """Which engine runs a file of qexport."""
    return "qexport" if Path(path).suffix.lower() == ".qpk" else "qexport-onnx"
