"""The tables of docs/benchmarks.md: `qexport bench` on a fixed set of networks, batch sizes and threads.

    python benchmarks/speed.py [--write docs/benchmarks.md] [--rounds N] [--networks DIR] [--json FILE] [--reports FILE]

Seeded networks at full size, but for the real CIFAR-10 network of the test data, where that is present. With --networks
they are kept in DIR, and taken from there the next time. On a machine with more instruction sets the first network is
measured once more with the better ones forced off, in OpenVINO likewise; ONNX Runtime has no such switch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from qexport.benchmark.bench import bench
from qexport.benchmark.statistics import paired
from qexport.session import ISA_VARIABLE, available_isas

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- speed: begin, written by make bench -->", "<!-- speed: end -->"

FILES = ("model.qpk", "model.onnx", "model.qdq.onnx", "model.qdq8.onnx")
FORMATS = "onnx,onnx-qdq,onnx-qdq8,qpk"
PEERS = ("openvino", "onnxruntime", "onnxruntime-fp32", "torch")
INT8_PEERS = PEERS[:2]
TITLES = {
    "openvino": "OpenVINO int8",
    "onnxruntime": "ORT int8",
    "onnxruntime-fp32": "ORT float32",
    "torch": "torch float32",
}

ONEDNN_VARIABLE = "ONEDNN_MAX_CPU_ISA"
ONEDNN_NAMES = {"avx512vnni": "AVX512_CORE_VNNI", "avx2": "AVX2"}
"""What holds OpenVINO to the instruction set of the same name."""


@dataclass(frozen=True)
class Network:
    """A network of the fixed set.

    Attributes:
        title: for the tables.
        pair, architecture: a seeded network of qexport.models.
        real: checkpoint below the test data that takes its place, with its `options`; its title is then real_title.
        images: file below the test data that the real checkpoint is calibrated with; without the data the network is
            left out.
    """

    title: str
    pair: str
    architecture: str
    real: str | None = None
    real_title: str = ""
    options: tuple[str, ...] = ()
    images: str | None = None


_DAQ = Network(
    "CIFAR ResNet-20 W1A1 (DAQ)",
    "daq-w1a1",
    "resnet20",
    "checkpoints/daq/cifar10_W1A1.pth",
    "CIFAR ResNet-20 W1A1 (real DAQ)",
    ("--bits", "1", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--input-shape", "3,32,32"),
)

NETWORKS = {
    "resnet18-w2a2": Network("ResNet-18 W2A2", "qn-w2a2", "resnet18"),
    "resnet18-w1a2": Network("ResNet-18 W1A2", "qn-w1a2", "resnet18"),
    "resnet18-w1a1": Network("ResNet-18 W1A1", "qn-w1a1", "resnet18"),
    "resnet50-w2a2": Network("ResNet-50 W2A2", "qn-w2a2", "resnet50"),
    "resnet20-w1a1": _DAQ,
    "resnet20-w1a1-calibrated": replace(
        _DAQ,
        real_title="CIFAR ResNet-20 W1A1 (real DAQ), residual sums calibrated",
        images="cifar10/calibration.npz",
    ),
}
EDGE_BITS = ("--edge-bits", "8")
"""The peers' first and last layers have 8-bit weights, so those of the networks here have, too."""

SIZES = ((1, 1), (1, 2), (8, 1), (8, 2))
"""(batch, threads); two threads only where there are two cores."""


def data_dir() -> Path:
    """The test data."""
    return Path(os.environ.get("QEXPORT_TEST_DATA", ROOT.parent / "shared" / "data"))


def is_real(network: Network) -> bool:
    return network.real is not None and (data_dir() / network.real).is_file()


def converted(name: str, folder: Path) -> tuple[str, Path]:
    """Title of a network, and the folder with its three files; where they are missing, another process makes them."""
    network, output = NETWORKS[name], folder / name
    if not all((output / file).is_file() for file in FILES):
        checkpoint, options = f"{output}.pt", list(EDGE_BITS)
        if is_real(network):
            checkpoint = str(data_dir() / str(network.real))
            options += network.options
        else:
            run_python(__file__, "--seed", name, checkpoint)
        if network.images:
            options += ["--calibration-data", str(data_dir() / network.images)]
        run_python("-m", "qexport", "convert", checkpoint, "--format", FORMATS, *options, "-o", str(output))
    return network.real_title if is_real(network) else f"{network.title}, seeded", output


def run_python(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def save_seeded(name: str, path: Path) -> None:
    """Write a seeded checkpoint."""
    from qexport.checkpoints import save_native
    from qexport.models.papers import PAIRS
    from qexport.models.registry import architecture
    from qexport.models.seeded import seeded

    network, pair = NETWORKS[name], PAIRS[NETWORKS[name].pair]
    arch = f"{pair.scheme}-{network.architecture}"
    data, arguments = architecture(arch).preprocessing, dict(pair.arguments)
    model = seeded(arch, **arguments)
    shape = data.input_shape
    save_native(path, model, arch=arch, arguments=arguments, input_shape=shape, mean=data.mean, std=data.std)


@contextmanager
def limited_to(isa: str | None) -> Iterator[None]:
    """Hold our runtime and OpenVINO to an instruction set."""
    if isa is None:
        yield
        return
    os.environ.update({ISA_VARIABLE: isa, ONEDNN_VARIABLE: ONEDNN_NAMES[isa]})
    try:
        yield
    finally:
        del os.environ[ISA_VARIABLE], os.environ[ONEDNN_VARIABLE]


@dataclass(frozen=True)
class Measured:
    """A report of `bench`, for the tables.

    Attributes:
        title: of the network.
        isa: instruction set that was forced, or None.
        report: of `bench`.
    """

    title: str
    isa: str | None
    report: dict[str, Any]

    def engine(self, name: str) -> dict[str, Any] | None:
        return next((e for e in self.report["engines"] if e["name"] == name), None)

    @property
    def clock(self) -> str:
        """What is compared: processor time of one thread, since other programs hardly touch it, else the wall clock."""
        return "processor" if self.size[1] == 1 else "median"

    def times(self, name: str, base: str = "model.qpk") -> str:
        """How many times as long as the base, as the median of the rounds."""
        theirs, ours = self.engine(name), self.engine(base)
        if theirs is None or ours is None:
            return ""
        rounds = "round_processor_medians" if self.clock == "processor" else "round_medians"
        return f"{paired(ours[rounds], theirs[rounds]):.2f}"

    @property
    def size(self) -> tuple[int, int]:
        return self.report["settings"]["batch"], self.report["settings"]["threads"]


def measure(folder: Path, names: tuple[str, ...], sizes: list[tuple[int, int]], rounds: int) -> Iterator[Measured]:
    """Every network at every size, and the first one with instruction sets forced off."""
    isas = available_isas()
    forced = [isa for isa in reversed(isas[:-1]) if isa in ONEDNN_NAMES]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    for number, name in enumerate(names):
        if NETWORKS[name].images and not is_real(NETWORKS[name]):
            continue
        title, files = converted(name, folder)
        for isa in [None, *(forced if number == 0 else [])]:
            for batch, threads in sizes if isa is None else sizes[:1]:
                if threads > cores:
                    continue
                peers = PEERS if batch == 1 else INT8_PEERS
                chosen = FILES if (batch, threads) == (1, 1) else FILES[:1]
                with limited_to(isa):
                    report = bench(
                        [files / file for file in chosen], against=peers, batch=batch, threads=threads, rounds=rounds
                    )
                click.echo(f"{title} batch {batch} threads {threads} {isa or isas[-1]}: {brief(report)}", err=True)
                yield Measured(title, isa, report)


def brief(report: dict[str, Any]) -> str:
    base = report["engines"][0]
    others = (
        f"{e['name']} {e['ratio']['median']:.2f} x, CPU {e['ratio']['processor']:.2f} x" for e in report["engines"][1:]
    )
    return ", ".join([f"{1e3 * base['median']:.2f} ms", *others])


def speed_table(found: list[Measured]) -> Iterator[str]:
    peers = " | ".join(TITLES[p] for p in PEERS)
    yield f"| network | batch | threads | qexport ms | fastest | GMAC/s | {peers} | OpenVINO, fastest runs |"
    yield "|---" * (7 + len(PEERS)) + "|"
    for m in found:
        ours = m.report["engines"][0]
        forced = f", {m.isa} forced" if m.isa else ""
        macs = m.report["network"]["macs"] * m.size[0]
        figures = f"{1e3 * ours[m.clock]:.2f} | {1e3 * ours['minimum']:.2f} | {macs / ours[m.clock] / 1e9:.0f}"
        peers = " | ".join(m.times(peer) for peer in PEERS)
        openvino = m.engine("openvino")
        fastest = f"{openvino['ratio']['minimum']:.2f}" if openvino else ""
        yield f"| {m.title}{forced} | {m.size[0]} | {m.size[1]} | {figures} | {peers} | {fastest} |"


def thread_table(found: list[Measured]) -> Iterator[str]:
    """Two threads against one, of the same network and batch."""
    yield "| network | batch | qexport | OpenVINO int8 | ORT int8 |"
    yield "|---|---|---|---|---|"
    plain = {(m.title, *m.size): m for m in found if m.isa is None}
    for (title, batch, threads), two in plain.items():
        one = plain.get((title, batch, 1))
        if threads != 2 or one is None:
            continue
        engines = [(one.engine(name), two.engine(name)) for name in ("model.qpk", *INT8_PEERS)]
        gains = " | ".join(f"{a['minimum'] / b['minimum']:.2f}" if a and b else "" for a, b in engines)
        yield f"| {title} | {batch} | {gains} |"


def onnx_table(found: list[Measured]) -> Iterator[str]:
    titles = " | ".join([*FILES[1:], *(f"{file}, x int8" for file in FILES[1:])])
    yield f"| network | ORT int8 ms | {titles} |"
    yield "|---" * (2 * len(FILES)) + "|"
    for m in single_images(found):
        times = " | ".join(
            f"{1e3 * engine['processor']:.1f}" for engine in map(m.engine, ("onnxruntime", *FILES[1:])) if engine
        )
        ratios = " | ".join(m.times(file, "onnxruntime") for file in FILES[1:])
        yield f"| {m.title} | {times} | {ratios} |"


def memory_table(found: list[Measured]) -> Iterator[str]:
    yield "| network | engine | load ms | first run ms | peak memory MiB | x load | x memory |"
    yield "|---|---|---|---|---|---|---|"
    for m in single_images(found):
        for e in m.report["engines"]:
            ratio, memory = e["ratio"], e["memory"]
            amount = "" if memory is None else f"{memory / 2**20:.1f}"
            more = "" if ratio["memory"] is None else f"{ratio['memory']:.1f}"
            title = TITLES.get(e["name"], e["name"])
            figures = f"{1e3 * e['load']:.1f} | {1e3 * e['first']:.1f} | {amount} | {ratio['load']:.2f} | {more}"
            yield f"| {m.title} | {title} | {figures} |"


def layer_table(m: Measured) -> Iterator[str]:
    peak = m.report["peak"]
    rate = f"{peak['products_per_second'] / 1e9:.0f} GMAC/s of uint8 x int8"
    yield f"{m.title}, one image, one thread, {peak['isa']}, whose peak here is {rate}."
    yield ""
    yield "| layer | operators | result | ms | share | GMAC/s | of peak |"
    yield "|---|---|---|---|---|---|---|"
    for row in m.report["layers"]:
        rate = "" if row["macs_per_second"] is None else f"{row['macs_per_second'] / 1e9:.0f}"
        share = "" if row["peak_share"] is None else f"{row['peak_share']:.0%}"
        shape = "x".join(map(str, row["shape"]))
        figures = f"{1e3 * row['seconds']:.3f} | {row['share']:.1%} | {rate} | {share}"
        yield f"| {row['layer']} | {' '.join(row['operators'])} | {shape} | {figures} |"


def single_images(found: list[Measured]) -> list[Measured]:
    return [m for m in found if m.size == (1, 1) and m.isa is None]


def machine_text(found: list[Measured]) -> str:
    rounds = min(m.report["settings"]["rounds"] for m in found)
    machine = found[0].report["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    loads = " to ".join(str(pick(m.report["machine"]["load"] for m in found)) for pick in (min, max))
    versions = sorted({e["what"].rpartition("; ")[2] for m in found for e in m.report["engines"]})
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}; caches {caches}; "
        f"{machine['memory'] / 2**30:.0f} GiB; {machine['system']}, Python {machine['python']}; {', '.join(versions)}. "
        f"{rounds} rounds. With one thread times are processor time, which is what the wall clock shows on an idle "
        f"core; with two they are wall-clock time. Load of the machine meanwhile: {loads}."
    )


def document(found: list[Measured]) -> str:
    """The generated part of docs/benchmarks.md."""
    isas = available_isas()
    missing = [isa for isa in ("avx512vnni", "amx") if isa not in isas]
    parts = [machine_text(found)]
    if missing:
        parts.append(
            f"This processor has no {' and no '.join(missing)}: their rows are missing; `make bench` on a machine that "
            "has them adds them. Their kernels are tested in emulation only, where speed says nothing."
        )
    sections = [
        ("### Speed: qexport in milliseconds, the others as multiples of its time", speed_table(found)),
    ]
    if singles := single_images(found):
        sections += [
            ("### The ONNX files in ONNX Runtime, one image, one thread", onnx_table(found)),
            ("### Load time and memory, one image, one thread", memory_table(found)),
            ("### Where the time goes", layer_table(singles[0])),
        ]
    if any(m.size[1] == 2 for m in found):
        sections.append(("### Two threads: how many times as fast as one", thread_table(found)))
    else:
        parts.append("Two threads were not measured: other programs had the second core.")
    parts += [f"{title}\n\n" + "\n".join(lines) for title, lines in sections]
    return "\n\n".join(parts)


def insert(text: str, path: Path) -> None:
    """Put the tables between their marks."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"{path} lacks the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


@click.command()
@click.option("--rounds", default=9, show_default=True, help="Turns of every engine.")
@click.option("--only", multiple=True, type=click.Choice(list(NETWORKS)), help="Networks; all without.")
@click.option("--batch", "batches", multiple=True, type=int, help="Batch sizes; 1 and 8 without.")
@click.option("--threads", "counts", multiple=True, type=int, help="Threads; 1 and 2 without.")
@click.option("--networks", type=click.Path(path_type=Path), help="Folder for the converted networks, used again.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for all reports.")
@click.option(
    "--reports", multiple=True, type=click.Path(path_type=Path), help="Make the tables of such files; measure nothing."
)
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Markdown file to put the tables into.")
def main(
    rounds: int,
    only: tuple[str, ...],
    batches: tuple[int, ...],
    counts: tuple[int, ...],
    networks: Path | None,
    json_file: Path | None,
    reports: tuple[Path, ...],
    write: Path | None,
) -> None:
    """Measure and print the tables."""
    if reports:
        entries = [Measured(**entry) for file in reports for entry in json.loads(file.read_text())]
        titles = [m.title for m in entries]
        found = sorted(entries, key=lambda m: (titles.index(m.title), m.size))
    else:
        sizes = [(b, t) for b, t in SIZES if b in (batches or (1, 8)) and t in (counts or (1, 2))]
        with tempfile.TemporaryDirectory() as scratch:
            folder = networks or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            found = list(measure(folder, only or tuple(NETWORKS), sizes, rounds))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(m) for m in found], indent=1) + "\n")
    text = document(found)
    click.echo(text)
    if write is not None:
        insert(text, write)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seed"]:
        save_seeded(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
