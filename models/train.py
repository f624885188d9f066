"""Train a soft-quantized network and write a native checkpoint.

    python -m qexport.models.train --arch digits --scheme qn --weight-levels=-1,0,1 --act-bits 2 -o FILE.pt

The committed demo network, models/checkpoints/digits_w2a2.pt, is the output of

    python -m qexport.models.train --arch digits --scheme qn --weight-levels=-1,0,1 --act-bits 2 --data digits \\
        --epochs 120 --temperature-step 1 --seed 1 --threads 2 -o models/checkpoints/digits_w2a2.pt

Held-out accuracy varies by about a point with the seed and even with the number of threads, which decides the order of
sums; seed 1 is a good one, not a typical one. The other committed network and the recipes: docs/training.md.
"""

from __future__ import annotations

import inspect
import shlex
import sys
from pathlib import Path

import click
from tqdm import tqdm

from qexport.checkpoints import save_native
from qexport.errors import OptionError, OutputError, QExportError
from qexport.models.registry import builder
from qexport.models.training import DAQScheme, QNScheme, Scheme, Settings, Trained, TrainingData, open_data, train
from qexport.models.training.evaluate import accuracy, detections
from qexport.models.training.task import detector_of
from qexport.validation.detection import mean_average_precision


def _levels(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of integers such as -1,0,1") from error


def make_scheme(
    scheme: str, weight_levels: tuple[int, ...] | None, weight_bits: int | None, act_bits: int | None, step: float
) -> Scheme:
    """The scheme of that name.

    Raises:
        OptionError: an option the scheme does not take.
    """
    if scheme == "qn":
        if weight_bits is not None:
            raise OptionError("this scheme names its levels", where="--weight-bits", remedy="give --weight-levels")
        return QNScheme(weight_levels, None if act_bits is None else tuple(range(2**act_bits)), step)
    if weight_levels is not None:
        raise OptionError("DAQ levels follow from the bits", where="--weight-levels", remedy="give --weight-bits")
    return DAQScheme(weight_bits, act_bits)


@click.command()
@click.option("--arch", default="digits", show_default=True, help="Network: digits, resnet20 ...")
@click.option("--scheme", type=click.Choice(["qn", "daq"]), default="qn", show_default=True)
@click.option("--weight-levels", callback=_levels, metavar="L,L,L", help="Integer weight levels (qn).")
@click.option("--weight-bits", type=click.IntRange(1, 8), help="Bits of the weights (daq).")
@click.option("--act-bits", type=click.IntRange(1, 8), help="Bits of the activations; float without.")
@click.option(
    "--data",
    default="digits",
    show_default=True,
    metavar="digits|scenes|FILE.npz|DIR",
    help="What to train on: scikit-learn's digits, scenes of them, an .npz, or one folder of images per class.",
)
@click.option("--epochs", type=click.IntRange(1), default=120, show_default=True, help="In all phases together.")
@click.option("--temperature-step", default=1.0, show_default=True, help="k of T = k * epoch (qn).")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
@click.option("--learning-rate", default=0.003, show_default=True)
@click.option("--max-shift", type=click.IntRange(0), default=0, show_default=True, help="Random shift, pixels.")
@click.option("--optimizer", type=click.Choice(["adam", "sgd"]), default="adam", show_default=True)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Part of the result, as the seed."
)
@click.option("--hard-norms/--no-hard-norms", help="Measure batch norm again with hard quantizers, at the end.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to keep the state of training in; where it exists, training goes on from it.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Checkpoint file to write.")
def main(output: Path, arch: str, scheme: str, data: str, state: Path | None, **options: object) -> None:
    """Train from random weights and write a native checkpoint."""
    try:
        if not output.parent.is_dir():  # before minutes of training, not after
            raise OutputError("no such directory", where=str(output.parent), remedy="create it, or correct --output")
        _run(output, arch, scheme, data, state, options)
    except QExportError as error:
        raise click.ClickException(str(error)) from error


def _run(output: Path, arch: str, scheme: str, data: str, state: Path | None, options: dict[str, object]) -> None:
    names = ("weight_levels", "weight_bits", "act_bits", "temperature_step")
    recipe = make_scheme(scheme, *(options.pop(name) for name in names))  # type: ignore[arg-type]
    settings = Settings(**options)  # type: ignore[arg-type]
    samples = open_data(data)
    with tqdm(total=settings.epochs, unit="epoch", disable=not sys.stderr.isatty()) as bar:

        def report(phase: str, epoch: int, loss: float) -> None:
            bar.set_postfix_str(f"{phase}, loss {loss:.4f}")
            bar.update()

        trained = train(arch, recipe, samples, settings, report, state)
    detects = samples.held_out.objects is not None
    save_native(
        output,
        trained.model,
        arch=trained.arch,
        arguments={**_defaults(trained.arch), **trained.arguments},
        input_shape=samples.input_shape,
        mean=samples.mean,
        std=samples.std,
        temperature=trained.temperature,
        class_names=samples.class_names,
        detector=detector_of(trained.model, trained.arch) if detects else None,
    )
    soft, hard = (_judged(trained, samples, soft=s) for s in (True, False))
    name = "mAP@0.5" if detects else "top-1"
    click.echo(f"held-out {name}: soft {soft:.2f} %, hard {hard:.2f} %; written to {output}")
    click.echo(f"again: {_command(click.get_current_context())}")


def _judged(trained: Trained, data: TrainingData, *, soft: bool) -> float:
    """Top-1, or mAP at an overlap of 0.5, on the held-out samples, percent."""
    if data.held_out.objects is None:
        return 100 * accuracy(trained.model, data, data.held_out, soft=soft)
    found = detections(trained.model, data, data.held_out, soft=soft)
    return mean_average_precision(found, data.held_out.objects).voc


def _command(context: click.Context) -> str:
    """The command with every option written out, so that it stays true when a default changes."""
    words = []
    for parameter in context.command.params:
        value = context.params[parameter.name or ""]
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"{max(parameter.opts, key=len)}={text}")
    return shlex.join(["python", "-m", "qexport.models.train", *words])


def _defaults(arch: str) -> dict[str, object]:
    """Every argument of the architecture, so that the file stays readable when a default changes."""
    parameters = inspect.signature(builder(arch)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


if __name__ == "__main__":
    main()
