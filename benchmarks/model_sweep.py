"""Every architecture at every bit pair of the papers: seeded, converted, compared tensor by tensor with both runtimes,
and every code that differs from the frozen float network's explained.

    python benchmarks/model_sweep.py                        # small inputs, the table of docs/models.md
    python benchmarks/model_sweep.py resnet50 --full --pair qn-w2a2   # one architecture at full size, time and memory

Times are CPU time of the process, all threads together: the wall clock of one idle core, whatever else runs.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import torch

from qexport.backends.onnx.session import absorbed_tensors, run_all_tensors
from qexport.checkpoints import save_native
from qexport.conversion import convert
from qexport.errors import QExportError
from qexport.models.papers import PAIRS, SMALL_INPUTS
from qexport.models.registry import architecture
from qexport.models.seeded import random_images, seeded
from qexport.reference import interpret
from qexport.session import InferenceSession
from qexport.validation.explain import Explainer

CALIBRATION_IMAGES, COMPARED_IMAGES, EXPLAINED_IMAGES = 8, 2, 6
"""Images: calibrated on, run by ONNX Runtime and the C runtime, and explained (at full size as many as are run)."""


@dataclass(frozen=True)
class Result:
    """One conversion.

    Attributes:
        layers, tensors: convolutions and linear layers; integer tensors compared, in both runtimes.
        proven: (channel, integer) pairs whose code is proven.
        megabytes: of model.onnx and of model.qpk.
        differing: tensors that ONNX Runtime or the C runtime computes otherwise than the reference.
        changed: codes that differ from the frozen network's (of calibrated quantizers, which that has not, from the
            edge-quantized network's).
        unexplained: codes and fixed-point values beyond the bounds that are proven for them.
        seconds: CPU time of conversion, and of the comparison.
    """

    layers: int
    tensors: int
    proven: int
    megabytes: tuple[float, float]
    differing: int
    changed: int
    unexplained: int
    seconds: tuple[float, float]


def run(name: str, pair: str, *, full: bool) -> Result:
    """Convert and compare one architecture at one bit pair."""
    chosen, small = PAIRS[pair], SMALL_INPUTS[name]
    arch = f"{chosen.scheme}-{name}"
    data = architecture(arch).preprocessing
    shape = data.input_shape if full else small.input_shape
    arguments = {**({} if full else small.arguments), **chosen.arguments}
    model = seeded(arch, input_shape=shape, **arguments)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "seeded.pt"
        save_native(checkpoint, model, arch=arch, arguments=arguments, input_shape=shape, mean=data.mean, std=data.std)
        del model
        torch.manual_seed(1)
        images = random_images(shape, CALIBRATION_IMAGES).numpy()
        started = time.process_time()
        artifact = convert(checkpoint, Path(folder) / "out", formats=("onnx", "qpk"), calibration_data=images)
        converted = time.process_time()
        graph = artifact.built.graph
        loaded, packed = onnx.load(artifact.files["onnx"]), InferenceSession(artifact.files["qpk"])
        explainer = Explainer(artifact.built.lowered, artifact.built.captured.graph)
        differing = 0
        for i, image in enumerate(images[: COMPARED_IMAGES if full else EXPLAINED_IMAGES]):
            feeds = {"image": image[None]}
            expected = interpret(graph, feeds, keep="*").tensors
            runs = (run_all_tensors(loaded, feeds), packed.run_all(feeds)) if i < COMPARED_IMAGES else ()
            for found in runs:
                differing += sum(not np.array_equal(value, expected[name]) for name, value in found.items())
            explainer.add(feeds, expected, explainer.run_free(feeds), explainer.run_frozen(feeds))
        layers, fixed_points = explainer.results()
        trained = {node.name for node in artifact.built.captured.graph.nodes}
        compared = time.process_time()
        return Result(
            layers=sum(n.op.kind in ("conv2d", "linear") for n in graph.nodes),
            tensors=2 * len(graph.nodes) - len(absorbed_tensors(loaded)),
            proven=sum(p.values for p in artifact.built.proofs),
            megabytes=(artifact.files["onnx"].stat().st_size / 1e6, artifact.files["qpk"].stat().st_size / 1e6),
            differing=differing,
            changed=sum(r.frozen_differing if r.name in trained else r.differing for r in layers),
            unexplained=sum(r.unexplained for r in (*layers, *fixed_points)),
            seconds=(converted - started, compared - converted),
        )


def rows(names: tuple[str, ...], pairs: tuple[str, ...], full: bool) -> Iterator[str]:
    """The table, line by line, as it is made."""
    columns = "network", "bits", "layers", "tensors equal", "changed codes explained", "codes proven", "model.onnx"
    yield f"| {' | '.join(columns)} | model.qpk | convert | compare |"
    yield "|" + "---|" * (len(columns) + 3)
    for name in names:
        for pair in pairs:
            try:
                r = run(name, pair, full=full)
            except QExportError as error:
                yield f"| {name} | {pair} | {str(error).splitlines()[0]} | | | | | | | |"
                continue
            equal = f"{r.tensors - r.differing} of {r.tensors}"
            explained = f"all {r.changed:,}" if not r.unexplained else f"{r.unexplained:,} values not"
            convert_time, compare_time = r.seconds
            yield (
                f"| {name} | {pair} | {r.layers} | {equal} | {explained} | {r.proven:.3g} | "
                f"{r.megabytes[0]:.2f} MB | {r.megabytes[1]:.2f} MB | "
                f"{convert_time:.1f} s | {compare_time:.1f} s |"
            )


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(SMALL_INPUTS)))
@click.option("--pair", "pairs", multiple=True, type=click.Choice(list(PAIRS)), help="Bit pairs; all without.")
@click.option("--full", is_flag=True, help="Full input size and width, with peak memory.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch.")
def main(names: tuple[str, ...], pairs: tuple[str, ...], full: bool, threads: int) -> None:
    """Print the table for these architectures, all without names."""
    torch.set_num_threads(threads)
    for line in rows(names or tuple(SMALL_INPUTS), pairs or tuple(PAIRS), full):
        click.echo(line)
    if full:
        click.echo(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
