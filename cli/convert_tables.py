"""The tables of `qexport convert`, from the contents of report.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qexport.cli.tables import (
    accumulator,
    byte_size,
    count,
    large,
    level_set,
    ratio,
    real,
    say,
    stdout_console,
    table,
)

FLOAT32_BYTES = 4

MOST_NAMES = 3
"""So many layers are named in one remark."""


def print_conversion(report: dict[str, Any], output: Path) -> None:
    """Print what was converted, layer by layer, and what was written.

    Args:
        report: contents of report.json.
        output: directory of the files.
    """
    console = stdout_console()
    source = report["checkpoint"]
    shape = "x".join(map(str, report["settings"]["input_shape"]))
    say(console, f"{source['file']}: family {source['family']}, {source['architecture']}, input {shape} uint8")
    console.print(layer_table(report))
    say(console, proof_line(report["proof"]))
    _print_remarks(console, report)
    for name, size in {**report["files"], "report.json": None}.items():
        say(console, f"wrote {output / name}" + (f"  {byte_size(size)}" if size is not None else ""))


def layer_table(report: dict[str, Any]) -> Table:
    """One row per convolution and linear layer of the integer network, totals below."""
    totals = report["sizes"]
    shown = table(
        "Integer layers",
        ["<layer", "<kind", "weights", "bits", "<levels", "input", "accum.", "MACs", "stored", "vs float32"],
        footer=[
            "total",
            "",
            count(totals["weights"]),
            *[""] * 4,
            large(totals["macs"]),
            byte_size(totals["stored_bytes"]),
            ratio(totals["float32_bytes"], totals["stored_bytes"]),
        ],
    )
    for layer in report["layers"]:
        shown.add_row(
            layer["name"],
            layer["kind"],
            count(layer["weights"]),
            str(layer["weight_bits"]),
            "edge" if layer["edge"] else level_set(layer["levels"]),
            layer["input"],
            accumulator(layer["accumulator"]),
            large(layer["macs"]),
            byte_size(layer["stored_bytes"]),
            ratio(FLOAT32_BYTES * layer["weights"], layer["stored_bytes"]),
        )
    return shown


def proof_line(proof: dict[str, int]) -> str:
    """What was proven about the folded thresholds, in one sentence."""
    by_intervals = proof["values"] - proof["enumerated"]
    text = (
        f"{proof['quantizers']} quantizers proven: {count(proof['enumerated'])} accumulator values checked one by one"
    )
    if by_intervals:
        text += f", {count(by_intervals)} more by intervals"
    if proof["tied_thresholds"]:
        text += f"; {count(proof['tied_thresholds'])} thresholds off within their stated error (saturated rescales)"
    return text + "."


def gap_line(temperature: float, gaps: dict[str, dict[str, Any]]) -> str:
    """How far the soft quantizers still are from what they froze to: the mean of each kind, and its worst quantizer."""
    parts = []
    for kind in ("weights", "activations"):
        means = {name: gap["mean"] for name, gap in gaps.items() if gap["of"] == kind}
        if means:
            worst = max(means, key=means.__getitem__)
            mean = sum(means.values()) / len(means)
            parts.append(f"{kind} {small_share(mean)} of a step (most {worst}, {small_share(means[worst])})")
    return f"Soft quantizers at temperature {temperature:g} are off their frozen form by: {'; '.join(parts)}."


def small_share(share: float) -> str:
    """In percent, two digits; float rounding alone is not spelt out."""
    return f"{100 * share:.2g} %" if share >= 1e-5 else "below 0.001 %"


def _print_remarks(console: Console, report: dict[str, Any]) -> None:
    """Fixed point, outputs, calibration, weights near a threshold, and notes."""
    widths = Counter(point["bits"] for point in report["fixed_points"])
    if widths:
        parts = " and ".join(f"{n} tensors in {b}-bit fixed point" for b, n in sorted(widths.items()))
        say(console, f"{parts}.")
    if report["quantizer_gaps"]:
        say(console, gap_line(report["temperature"], report["quantizer_gaps"]))
    for output in report["outputs"]:
        say(
            console,
            f"Output {output['name']}: real value = integer * {real(output['scale'])}, "
            f"error at most {real(output['error_bound'])}.",
        )
    if report["settings"]["calibration"]:
        say(console, f"Ranges of float activations: {report['settings']['calibration']}.")
    near = {name: w["near_threshold"] for name, w in report["frozen_weights"].items() if w["near_threshold"]}
    if near:
        named = _some([f"{name} {near[name]}" for name in sorted(near, key=lambda name: -near[name])])
        total = count(sum(near.values()))
        say(console, f"{total} weights lie so near a threshold that other arithmetic could move them: {named}.")
    for note in (*report["checkpoint"]["notes"], *grouped(report["notes"])):
        say(console, f"Note: {note}")


def grouped(notes: list[str]) -> list[str]:
    """Notes "layer: remark", those of one remark joined: "remark: layer, layer and 3 more"."""
    layers: dict[str, list[str]] = {}
    for note in notes:
        layer, _, remark = note.partition(": ")
        layers.setdefault(remark or note, []).extend([layer] if remark else [])
    return [f"{remark}: {_some(names)}" if names else remark for remark, names in layers.items()]


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
