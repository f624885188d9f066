"""Time and peak memory of `qexport convert` beside plain torch.onnx.export, each in its own process.

    python benchmarks/conversion.py [--repeat N]

torch.onnx.export only serializes the float graph; qexport also freezes, lowers and proves. Prints ratios to it.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

NETWORKS = ("resnet20", "resnet18")
EXPORTERS = ("qexport", "torch")
SHAPES = {"resnet20": (3, 32, 32), "resnet18": (3, 224, 224)}


def make_checkpoint(network: str, folder: Path) -> Path:
    """A seeded checkpoint file of the network."""
    import torch

    path = folder / f"{network}.pt"
    torch.save(_network(network).state_dict(), path)
    return path


def _network(name: str):  # type: ignore[no-untyped-def]
    if name == "resnet18":
        from resnet18_like import build

        return build()
    import torch

    from qexport.models.registry import build as build_architecture

    torch.manual_seed(0)
    return build_architecture("daq-resnet20", weight_bits=1, act_bits=1).eval()


def resnet20() -> object:
    """Factory for --model."""
    return _network("resnet20")


def resnet18() -> object:
    """Factory for --model."""
    return _network("resnet18")


def measure(exporter: str, network: str, checkpoint: Path, folder: Path) -> dict[str, float]:
    """Run one export in this process; seconds after imports, peak MiB of the process."""
    import torch

    shape = SHAPES[network]
    if exporter == "qexport":
        from qexport.conversion import convert

        start = time.perf_counter()
        convert(checkpoint, folder, model=f"conversion:{network}", input_shape=shape, mean=(0.0,), std=(1.0,))
    else:
        import onnxscript  # noqa: F401  imported before the clock starts, as qexport's modules are

        start = time.perf_counter()
        module = _network(network)
        module.load_state_dict(torch.load(checkpoint, weights_only=True))
        torch.onnx.export(module, (torch.zeros(1, *shape),), folder / "float.onnx", dynamo=True, verbose=False)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run_child(exporter: str, network: str, checkpoint: Path) -> dict[str, float]:
    """The same in a fresh process, so that peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", exporter, network, str(checkpoint), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"{exporter} on {network} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


@click.command()
@click.option("--repeat", default=3, show_default=True, help="interleaved runs of each exporter")
def main(repeat: int) -> None:
    """Compare conversion with torch.onnx.export."""
    click.echo(
        "| network | qexport s | torch s | ratio | qexport MiB | torch MiB | ratio |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            checkpoint = make_checkpoint(network, Path(folder))
            runs = [{e: run_child(e, network, checkpoint) for e in EXPORTERS} for _ in range(repeat)]
            ours, theirs = (
                {key: statistics.median(r[e][key] for r in runs) for key in ("seconds", "mib")} for e in EXPORTERS
            )
            columns = [f"{ours[k]:.1f} | {theirs[k]:.1f} | {ours[k] / theirs[k]:.2f}" for k in ("seconds", "mib")]
            click.echo(f"| {network} | {' | '.join(columns)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        exporter, network, checkpoint, folder = sys.argv[2:]
        print(json.dumps(measure(exporter, network, Path(checkpoint), Path(folder))))
    else:
        main()
