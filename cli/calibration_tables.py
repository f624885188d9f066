"""Tables of a calibration: the ranges, and what each integer choice costs."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from qexport.calibration import Calibration
from qexport.calibration.calibration import Cost
from qexport.cli.tables import percent, real, say, table

KINDS = {"activation": "activation", "weights": "weights", "stream": "16-bit sum"}


def print_calibration(console: Console, found: Calibration) -> None:
    """Ranges, costs where they were measured, and what all of it was measured on."""
    if found.ranges:
        console.print(range_table(found))
    else:
        say(console, "No activation needs a range: training quantized them all.")
    if found.sensitivity:
        console.print(sensitivity_table(found.sensitivity))
    say(console, f"Measured on {found.describe()}.")


def range_table(found: Calibration) -> Table:
    """One row per calibrated activation."""
    shown = table("Ranges of float activations", ["<activation", "bits", "from", "to"])
    for name, (lo, hi) in found.ranges.items():
        shown.add_row(name, str(found.bits(name)), real(lo), real(hi))
    return shown


def sensitivity_table(costs: tuple[Cost, ...]) -> Table:
    """One row per integer choice, worst first."""
    shown = table(
        "What each integer choice costs by itself, worst first",
        ["<choice", "<of", "bits", "layer", "output", "same", "<remedy"],
        caption="layer, output: signal to quantization noise in dB, of the layers concerned and of the network's "
        "output; same: predictions that stay",
    )
    for cost in costs:
        shown.add_row(
            cost.name,
            KINDS[cost.kind],
            str(cost.bits),
            _decibels(cost.sqnr_db),
            _decibels(cost.output_db),
            percent(cost.agreement),
            cost.remedy,
        )
    return shown


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
