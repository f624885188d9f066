"""qexport bench: speed, load time and memory beside other engines."""

from __future__ import annotations

from pathlib import Path

import click

from qexport.cli.options import NameList
from qexport.cli.progress import StageLine

PEERS = ("onnxruntime", "onnxruntime-fp32", "openvino", "torch")
"""Names of engines; the library's own, which is imported only when a command runs."""

DEFAULT_PEERS = PEERS[:3]
"""Those of them that are installed; torch in float32 is nobody's choice for speed."""


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--against",
    type=NameList(),
    metavar="E,E",
    help=f"Other engines: {', '.join(PEERS)}, or none.  [default: all but torch, if installed]",
)
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Threads of every engine.")
@click.option("--batch", type=int, default=1, show_default=True, metavar="N", help="Images of a run.")
@click.option("--rounds", type=int, metavar="N", help="How often every engine has its turn.  [default: 15]")
@click.option("--layers/--no-layers", default=True, show_default=True, help="Show where the time of a .qpk file goes.")
@click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path), help="Write everything as JSON.")
def bench(
    models: tuple[str, ...],
    against: tuple[str, ...] | None,
    threads: int,
    batch: int,
    rounds: int | None,
    layers: bool,
    json_file: Path | None,
) -> None:
    """Measure a converted network beside other engines that run the same network.

    MODEL is a .qpk file, or an ONNX file with model.qpk beside it; several files of one conversion are compared with
    the first. The others run the same shapes and operators as int8 or float32. Every engine has a process of its own on
    the same cores, and they take turns, so that noise hits all alike: trust the ratios.
    """
    from qexport.benchmark.bench import DEFAULT_ROUNDS
    from qexport.benchmark.bench import bench as measure
    from qexport.benchmark.engines import installed
    from qexport.cli.bench_tables import print_benchmark

    if against is None:
        against = installed(DEFAULT_PEERS)
    elif against == ("none",):
        against = ()
    with StageLine() as stage:
        report = measure(
            models,
            against=against,
            threads=threads,
            batch=batch,
            rounds=DEFAULT_ROUNDS if rounds is None else rounds,
            progress=stage,
        )
    if json_file is not None:
        from qexport.cli.json_text import json_text
        from qexport.conversion.output import write_text

        write_text(json_file, json_text(report))
    print_benchmark(report, layers=layers)
