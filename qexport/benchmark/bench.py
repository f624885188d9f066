"""The benchmark: every engine runs the same network, in rounds, each in a process of its own on the same cores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from qexport import __version__
from qexport.backends.packed.reader import PackedModel, read_packed
from qexport.benchmark import engines
from qexport.benchmark.engines import Job
from qexport.benchmark.layers import layer_macs, layer_rows
from qexport.benchmark.machine import cores_for, describe_machine, usable_cores
from qexport.benchmark.statistics import Samples, by_layer, compare
from qexport.benchmark.workers import WorkerProcess, started
from qexport.errors import ArtifactError, DataError, OptionError
from qexport.session import is_packed

DEFAULT_ROUNDS = 15
REOPENED = 5
LAYER_RUNS = 30
TRIAL_RUNS = 2
TURN_SECONDS = 0.15
LEAST_RUNS, MOST_RUNS = 2, 200
"""Runs of a turn: about TURN_SECONDS, so that slow and fast engines see the same noise."""

PACKED_NAME = "model.qpk"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Entry:
    """An engine of this benchmark: label in the report, name in ENGINES, file."""

    label: str
    engine: str
    job: Job


def bench(
    models: Sequence[str | Path],
    *,
    against: Sequence[str] = ("onnxruntime",),
    threads: int = 1,
    batch: int = 1,
    rounds: int = DEFAULT_ROUNDS,
    progress: Progress = lambda stage: None,
) -> dict[str, Any]:
    """Measure files of one conversion, and the same network in other engines.

    Args:
        models: .qpk and ONNX files of one conversion; the first is what the others are compared with. If none is a
            .qpk file, model.qpk must lie beside the first: it says which network it is.
        against: other engines, of `engines.PEERS`.
        threads: of every engine, pinned to as many cores.
        batch: images of a run.
        rounds: how often every engine has its turn.
        progress: told what is measured next.

    Returns:
        the report, of plain JSON types (docs/benchmarks.md).

    Raises:
        OptionError: an engine is unknown or not installed; more threads than cores.
        ArtifactError: a file is unreadable, not one of ours, or of another network; an engine refuses it.
    """
    _check(threads, batch, rounds)
    engines.require(tuple(against))
    packed_path = _packed_path(models)
    network = read_packed(packed_path)
    for model in models:
        _require_same(network, packed_path, Path(model))
    cores = cores_for(threads)
    with tempfile.TemporaryDirectory(prefix="qexport-bench-") as folder:
        progress("preparing the network for the other engines")
        entries = _entries(network, models, against, Path(folder), threads, batch)
        with started([(e.label, e.engine, e.job) for e in entries], cores) as workers:
            found = _measure(workers, rounds, progress)
    return _report(network, entries, found, threads=threads, batch=batch, rounds=rounds, cores=cores)


def _check(threads: int, batch: int, rounds: int) -> None:
    for name, value, most in (("threads", threads, usable_cores()), ("batch", batch, None), ("rounds", rounds, None)):
        if value < 1 or (most is not None and value > most):
            expected = "at least 1" if most is None else f"1 to {most}, the cores this process may use"
            raise OptionError(f"the number of {name} is out of range", where=name, got=value, expected=expected)


def _packed_path(models: Sequence[str | Path]) -> Path:
    """The .qpk file that says which network it is."""
    if not models:
        raise OptionError("no model was given", expected="a .qpk or ONNX file of qexport convert")
    for path in map(Path, models):
        if not path.is_file():
            raise DataError("no such file", where=str(path), remedy="qexport convert --format qpk writes model.qpk")
        if path.suffix.lower() not in (".qpk", ".onnx"):
            raise ArtifactError("not a model", where=str(path), expected="a .qpk or .onnx file of qexport convert")
        if is_packed(path):
            return path
    beside = Path(models[0]).with_name(PACKED_NAME)
    if not beside.is_file():
        raise ArtifactError(
            "an ONNX file alone does not say which float network it stands for",
            where=str(models[0]),
            got=f"no {PACKED_NAME} beside it",
            remedy="convert with --format onnx,qpk, or name the .qpk file as well",
        )
    return beside


def _require_same(network: PackedModel, packed: Path, model: Path) -> None:
    """Refuse files of different conversions."""
    if is_packed(model):
        properties = read_packed(model).metadata
    else:
        from qexport.backends.onnx.reader import read_onnx

        properties = read_onnx(model)[1]
    for key in ("qexport.source_sha256", "qexport.settings"):
        if properties.get(key) != network.metadata.get(key):
            raise ArtifactError(
                "the files are not of one conversion",
                where=str(model),
                got=f"another {key} than {packed}",
                remedy="convert with all formats at once, such as --format onnx,onnx-qdq,qpk",
            )


def _entries(
    network: PackedModel, models: Sequence[str | Path], against: Sequence[str], folder: Path, threads: int, batch: int
) -> list[_Entry]:
    shapes = {network.names[t]: list(network.claims[t].shape) for t in range(network.sections.inputs)}
    names = [Path(model).name for model in models]
    labels = names if len(set(names)) == len(names) else [str(model) for model in models]
    own = [
        _Entry(label, engines.own_engine(model), Job(str(model), threads, batch, shapes, True))
        for label, model in zip(labels, models, strict=True)
    ]
    files = _peer_files(network, {engines.ENGINES[name].network for name in against}, folder)
    peers = [Job(str(files[engines.ENGINES[name].network]), threads, batch, shapes, False) for name in against]
    return own + [_Entry(name, name, job) for name, job in zip(against, peers, strict=True)]


def _peer_files(network: PackedModel, wanted: set[str], folder: Path) -> dict[str, Path]:
    """The float network and its int8 form, as far as anybody wants them."""
    if not wanted:
        return {}
    import onnx

    from qexport.benchmark.float_network import float_onnx

    files = {"float32": folder / "float32.onnx"}
    onnx.save(float_onnx(network.to_graph()), files["float32"])
    if "int8" in wanted:
        from qexport.benchmark.quantized_network import quantize

        files["int8"] = folder / "int8.onnx"
        quantize(files["float32"], files["int8"])
    return files


@dataclass(frozen=True)
class _Found:
    """What the workers told.

    Attributes:
        samples: of each worker, in order.
        digests: of their integer outputs.
        peak: isa and products a second of one thread; None without a .qpk file.
        layers: seconds of each group; None without a .qpk file.
    """

    samples: list[Samples]
    digests: list[str | None]
    peak: dict[str, Any] | None
    layers: dict[str, float] | None


def _measure(workers: list[WorkerProcess], rounds: int, progress: Progress) -> _Found:
    opened = []
    for worker in workers:
        progress(f"opening {worker.label}")
        opened.append(worker.ask("open"))
    trials = [median(worker.ask("turn", runs=TRIAL_RUNS)["seconds"]) for worker in workers]
    runs = [min(max(round(TURN_SECONDS / seconds), LEAST_RUNS), MOST_RUNS) for seconds in trials]
    turns: list[list[dict[str, Any]]] = [[] for _ in workers]
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        order = range(len(workers)) if number % 2 == 0 else reversed(range(len(workers)))
        for i in order:
            turns[i].append(workers[i].ask("turn", runs=runs[i]))
    memory = [worker.ask("memory")["bytes"] for worker in workers]
    progress("opening again")
    again = [[worker.ask("reopen") for worker in workers] for _ in range(REOPENED)]
    times = [opened, *again]
    samples = [
        Samples(
            rounds=[turn["seconds"] for turn in turns[i]],
            processor=[turn["processor"] for turn in turns[i]],
            loads=[time[i]["load"] for time in times],
            firsts=[time[i]["first"] for time in times],
            memory=memory[i],
        )
        for i in range(len(workers))
    ]
    return _Found(samples, [one["outputs"] for one in opened], *_layers(workers, progress))


def _layers(workers: list[WorkerProcess], progress: Progress) -> tuple[dict[str, Any] | None, dict[str, float] | None]:
    packed = [worker for worker in workers if worker.engine == "qexport"]
    if not packed:
        return None, None
    progress("layers and the machine's peak")
    layers = by_layer(packed[0].ask("layers", runs=LAYER_RUNS)["seconds"])
    return packed[0].ask("peak"), layers


def _report(
    network: PackedModel,
    entries: list[_Entry],
    found: _Found,
    *,
    threads: int,
    batch: int,
    rounds: int,
    cores: list[int] | None,
) -> dict[str, Any]:
    properties = network.metadata
    macs = sum(layer_macs(network).values())
    report: dict[str, Any] = {
        "qexport": __version__,
        "machine": describe_machine(),
        "settings": {"threads": threads, "batch": batch, "rounds": rounds, "pinned_to": cores},
        "network": {
            "architecture": properties.get("qexport.architecture"),
            "source": properties.get("qexport.source_file"),
            "inputs": {network.names[t]: list(network.claims[t].shape) for t in range(network.sections.inputs)},
            "macs": macs,
        },
        "base": entries[0].label,
        "engines": [_engine_row(i, entries, found, macs * batch) for i in range(len(entries))],
    }
    if found.layers is not None and found.peak is not None:
        report["peak"] = {**found.peak, "threads": threads}
        report["layers"] = layer_rows(network, found.layers, found.peak["products_per_second"] * threads)
    return report


def _engine_row(i: int, entries: list[_Entry], found: _Found, macs: int) -> dict[str, Any]:
    entry, samples, base = entries[i], found.samples[i], found.digests[0]
    digest = found.digests[i]
    return {
        "name": entry.label,
        "engine": entry.engine,
        "what": engines.describe(entry.engine),
        "median": samples.median,
        "processor": samples.processor_median,
        "minimum": samples.minimum,
        "round_medians": samples.medians,
        "round_processor_medians": samples.processor_medians,
        "runs": sum(map(len, samples.rounds)),
        "macs_per_second": macs / samples.median,
        "load": median(samples.loads),
        "load_once": samples.loads[0],
        "first": median(samples.firsts),
        "first_once": samples.firsts[0],
        "memory": samples.memory,
        "ratio": asdict(compare(found.samples[0], samples)),
        "same_outputs": None if base is None or digest is None else digest == base,
    }
