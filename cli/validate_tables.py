"""The tables of `qexport validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from qexport.cli.convert_tables import proof_line
from qexport.cli.tables import count, percent, real, say, stdout_console, table

if TYPE_CHECKING:
    from qexport.validation import Report


def print_validation(report: Report) -> None:
    """Print every level, layer and artifact, and the verdict last."""
    console = stdout_console()
    console.print(detection_table(report) if report.detects else level_table(report))
    if report.outputs:
        console.print(output_table(report))
    if report.layers:
        console.print(layer_table(report))
    if report.fixed_points:
        console.print(fixed_point_table(report))
    console.print(artifact_table(report))
    say(console, proof_line(report.proof))
    if report.changed:
        pairs = ", ".join(f"{before} -> {after} ({n})" for before, after, n in report.changed)
        say(console, f"Predictions changed from frozen to integer: {pairs}.")
    for note in report.notes:
        say(console, f"Note: {note}.")
    console.print(verdict(report))


def level_table(report: Report) -> Table:
    """Accuracy and agreement of every level of the network."""
    title = f"Levels on {count(report.images)} images" + ("" if report.labelled else " (no labels)")
    caption = "p: of McNemar's exact test; below 0.05, top-1 differs from the frozen network's by more than chance"
    columns = ["<network", "top-1", "top-5", "same as above", "same as frozen", "p"]
    shown = table(title, columns, caption=caption if report.labelled else "")
    for level in report.levels:
        shown.add_row(
            level.name,
            percent(level.top1),
            percent(level.top5),
            percent(level.agreement),
            percent(level.agreement_frozen),
            "-" if level.p_value is None else f"{level.p_value:.2f}",
        )
    return shown


def detection_table(report: Report) -> Table:
    """Mean average precision and common boxes of every level of a detector."""
    shown = table(
        f"Levels on {count(report.images)} images" + ("" if report.labelled else " (no objects)"),
        ["<network", "mAP@0.5", "VOC 11 points", "COCO mAP", "same as above", "same as frozen"],
        caption="same: boxes scored above 0.5 that both networks find",
    )
    for level in report.levels:
        found = level.mean_ap
        shown.add_row(
            level.name,
            *(["-"] * 3 if found is None else map(percent, (found.voc, found.voc_11, found.coco))),
            percent(level.agreement),
            percent(level.agreement_frozen),
        )
    return shown


def output_table(report: Report) -> Table:
    """Every output of a network with several."""
    shown = table("Outputs against the frozen network", ["<output", "<network", "largest difference", "SQNR dB"])
    for output in report.outputs:
        sqnr = "-" if output.sqnr_db is None else f"{output.sqnr_db:.1f}"
        shown.add_row(output.output, output.level, real(output.largest), sqnr)
    return shown


def layer_table(report: Report) -> Table:
    """Codes of every quantizer, integer against edge-quantized float."""
    shown = table(
        "Codes that differ from the edge-quantized float network, and from the frozen one",
        ["<quantizer", "codes", "differ", "ties", "prop.", "unexpl.", "farthest", "bound", "frozen", "edges"],
        caption="ties: within the bound of a threshold; prop.: right for its own, already differing inputs; farthest: "
        "distance of a tie from its threshold; frozen: differ from the frozen network; edges: of those, moved by "
        "rounding float layers or by calibrated quantizers",
    )
    for layer in report.layers:
        shown.add_row(
            layer.name,
            count(layer.codes),
            count(layer.differing),
            count(layer.ties),
            count(layer.propagated),
            count(layer.unexplained),
            real(layer.largest),
            real(layer.bound),
            count(layer.frozen_differing),
            count(layer.edges),
            style="red" if layer.unexplained else None,
        )
    return shown


def fixed_point_table(report: Report) -> Table:
    """Error of every fixed-point tensor against its bound."""
    shown = table(
        "Fixed-point tensors against their real values",
        ["<tensor", "bits", "step", "bound", "error/bound", "unexpl.", "saturated", "SQNR dB"],
    )
    for point in report.fixed_points:
        shown.add_row(
            point.name,
            str(point.bits),
            real(point.step),
            real(point.bound),
            f"{point.largest_error / point.bound:.2f}" if point.bound else "-",
            count(point.unexplained),
            count(point.saturated),
            "-" if point.sqnr_db is None else f"{point.sqnr_db:.1f}",
            style="red" if point.unexplained else None,
        )
    return shown


def artifact_table(report: Report) -> Table:
    """Every artifact against the integer reference."""
    shown = table("Artifacts against the integer reference", ["<file", "<promise", "layers", "images", "<result"])
    for artifact in report.artifacts:
        if not artifact.exact:
            result = "compared by its predictions above"
        elif artifact.differing:
            result = f"{len(artifact.differing)} tensors differ"
        else:
            result = f"equal, all layers on {count(artifact.images_all_tensors)} images: {'; '.join(artifact.paths)}"
        shown.add_row(
            artifact.file,
            "equality" if artifact.exact else "none",
            count(artifact.tensors),
            count(artifact.images),
            result,
            style="red" if artifact.differing else None,
        )
    return shown


def verdict(report: Report) -> Text:
    """PASS, or FAIL with its reasons."""
    if report.passed:
        differing = sum(layer.differing for layer in report.layers)
        explained = f"all {count(differing)} differing codes explained" if differing else "no code differs"
        return Text(f"PASS: {explained}, 0 unexplained.", style="bold green")
    return Text("\n".join(["FAIL:", *(f"  {reason}" for reason in report.failures)]), style="bold red")
