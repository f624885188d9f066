"""The tables of `qexport inspect`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from qexport.cli.convert_tables import layer_table
from qexport.cli.tables import byte_size, count, large, level_set, real, say, stdout_console, table

MOST_FLOATS = 8
"""So many float tensors are named."""

MOST_THRESHOLDS = 7
"""Quantizers with more thresholds show the first and the last."""


def print_artifact(found: dict[str, Any]) -> None:
    """Print what describe_onnx found in an ONNX file."""
    console = stdout_console()
    opset = ", ".join(f"{domain} {version}" for domain, version in found["opset"].items())
    written = f"format {found['format']}" if found["format"] else "not written by qexport"
    say(console, f"{found['file']}: {byte_size(found['bytes'])}, {written}, opset {opset}")
    print_origin(console, found["metadata"])
    print_values(console, found)
    if found["layers"]:
        console.print(layer_table({"layers": found["layers"], "sizes": _sizes(found["layers"])}))
    if found["thresholds"]:
        console.print(_threshold_table(found))
    say(console, "operators: " + ", ".join(f"{kind} {n}" for kind, n in found["operators"].items()))
    say(console, f"initializers: {byte_size(found['initializer_bytes'])}")
    say(console, _float_line(found["float_tensors"]))


def print_values(console: Console, found: dict[str, Any]) -> None:
    """Inputs and outputs of an artifact, and what its integers stand for."""
    for kind, values in (("input", found["inputs"]), ("output", found["outputs"])):
        for value in values:
            say(console, f"{kind} {value['name']}: {value['type']} [{', '.join(map(str, value['shape']))}]")
    for output in found["metadata"].get("qexport.outputs", []):
        say(console, f"integer output {output['name']}: real value = integer * {real(output['scale'])}")


def print_origin(console: Console, metadata: dict[str, Any]) -> None:
    """The checkpoint that an artifact was made from."""
    if "qexport.source_file" not in metadata:
        return
    say(
        console,
        f"from {metadata['qexport.source_file']} (sha256 {metadata['qexport.source_sha256'][:16]}...), "
        f"family {metadata['qexport.family']}, {metadata['qexport.architecture']}",
    )
    names = metadata.get("qexport.class_names")
    if names:
        say(console, f"classes: {', '.join(names)}")


def _sizes(layers: list[dict[str, Any]]) -> dict[str, int]:
    weights = sum(layer["weights"] for layer in layers)
    return {
        "weights": weights,
        "float32_bytes": 4 * weights,
        "stored_bytes": sum(layer["stored_bytes"] or 0 for layer in layers),
        "macs": sum(layer["macs"] for layer in layers),
    }


def _threshold_table(found: dict[str, Any]) -> Table:
    bounds = found["metadata"]["qexport.bounds"]
    shown = table(
        "Thresholds as stored, smallest..largest over the channels", ["<quantizer", "steps", "levels", "<thresholds"]
    )
    for row in found["thresholds"]:
        lo, hi = bounds.get(row["name"], (None, None))
        ranges = [_range(*step) for step in row["thresholds"] if step]
        shown.add_row(
            row["name"],
            str(row["steps"]),
            "-" if lo is None else f"{lo}..{hi}",
            "  ".join(ranges if len(ranges) <= MOST_THRESHOLDS else [ranges[0], "...", ranges[-1]]),
        )
    return shown


def _range(lo: float, hi: float) -> str:
    texts = [f"{value:,}" if isinstance(value, int) else f"{value:.6g}" for value in (lo, hi)]
    return texts[0] if lo == hi else "..".join(texts)


def _float_line(names: list[str] | None) -> str:
    if names is None:
        return "float tensors: unknown, the types of the model cannot be inferred"
    if not names:
        return "float tensors: none"
    more = f" and {len(names) - MOST_FLOATS} more" if len(names) > MOST_FLOATS else ""
    return f"float tensors: {len(names)}: {', '.join(names[:MOST_FLOATS])}{more}"


def print_checkpoint(found: dict[str, Any]) -> None:
    """Print what describe_checkpoint found in a checkpoint."""
    console = stdout_console()
    shape = "x".join(map(str, found["input_shape"]))
    network = f"family {found['family']}, {found['architecture']}, input {shape}"
    say(console, f"{found['file']}: {byte_size(found['bytes'])}, {network}")
    for key in ("mean", "std", "temperature"):
        say(console, f"{key}: {'not in the file' if found[key] is None else found[key]}")
    console.print(_checkpoint_layers(found))
    if found["quantizers"]:
        console.print(_checkpoint_quantizers(found["quantizers"]))
    for name in found["unused_quantizers"]:
        say(console, f"Note: the quantizer {name} is never called")
    for note in found["notes"]:
        say(console, f"Note: {note}")


def _checkpoint_layers(found: dict[str, Any]) -> Table:
    totals = found["sizes"]
    footer = [
        "total",
        "",
        count(totals["weights"]),
        "",
        "",
        "",
        large(totals["macs"]),
        byte_size(totals["float32_bytes"]),
    ]
    shown = table(
        "Layers",
        ["<layer", "<kind", "weights", "bits", "<levels", "near", "MACs", "float32"],
        footer=footer,
        caption="near: weights so near a threshold that other arithmetic could move them",
    )
    for layer in found["layers"]:
        shown.add_row(
            layer["name"],
            layer["kind"],
            count(layer["weights"]),
            "float" if layer["weight_bits"] is None else str(layer["weight_bits"]),
            level_set(layer["levels"]),
            count(layer["near_threshold"]),
            large(layer["macs"]),
            byte_size(4 * layer["weights"]),
        )
    return shown


def _checkpoint_quantizers(quantizers: list[dict[str, Any]]) -> Table:
    shown = table(
        "Activation quantizers, frozen", ["<quantizer", "bits", "<levels", "scale", "<spacing", "<thresholds"]
    )
    for quantizer in quantizers:
        thresholds = quantizer["thresholds"]
        texts = [f"{t:.6g}" for t in thresholds]
        shown.add_row(
            quantizer["name"],
            str(quantizer["bits"]),
            level_set(quantizer["levels"]),
            f"{quantizer['scale']:.6g}",
            "uniform" if quantizer["uniform"] else "non-uniform",
            "  ".join(texts if len(texts) <= MOST_THRESHOLDS else [texts[0], "...", texts[-1]]),
        )
    return shown
