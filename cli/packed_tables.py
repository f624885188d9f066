"""The tables of `qexport inspect` for .qpk files."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from qexport.cli.inspect_tables import print_origin, print_values
from qexport.cli.tables import accumulator, byte_size, count, large, say, stdout_console, table


def print_packed(found: dict[str, Any]) -> None:
    """Print what describe_packed found."""
    console = stdout_console()
    features = ", ".join(name.lower().replace("_", " ") for name in found["features"]) or "none"
    say(console, f"{found['file']}: {byte_size(found['bytes'])}, format qpk {found['version']}, features: {features}")
    print_origin(console, found["metadata"])
    print_values(console, found)
    if found["layers"]:
        console.print(_layer_table(found["layers"]))
    console.print(_arena_table(found["arena"]))
    say(console, "file: " + ", ".join(f"{part} {byte_size(size)}" for part, size in found["sections"].items()))
    say(console, "operators: " + ", ".join(f"{kind} {n}" for kind, n in found["operators"].items()))


def _layer_table(layers: list[dict[str, Any]]) -> Table:
    weights, stored = (sum(layer[key] for layer in layers) for key in ("weights", "stored_bytes"))
    entropy = sum(layer["entropy"] * layer["weights"] for layer in layers) / weights
    totals = [count(weights), "", f"{8 * stored / weights:.2f}", f"{entropy:.2f}", "", ""]
    shown = table(
        "Layers",
        ["<layer", "<kind", "weights", "<coding", "bits/weight", "entropy", "accum.", "MACs", "stored"],
        footer=["total", "", *totals, byte_size(stored)],
        caption="bits/weight: as stored, with codebook; entropy: what the frequencies of the levels would allow",
    )
    for layer in layers:
        shown.add_row(
            layer["name"],
            layer["kind"],
            count(layer["weights"]),
            layer["coding"],
            f"{layer['bits_per_weight']:.2f}",
            f"{layer['entropy']:.2f}",
            accumulator(layer["accumulator"]),
            large(layer["macs"]),
            byte_size(layer["stored_bytes"]),
        )
    return shown


def _arena_table(arena: dict[str, Any]) -> Table:
    live = arena["largest_live_set"]
    shown = table(
        f"Arena of {count(arena['bytes'])} bytes",
        ["<tensor", "<type", "<values", "bytes", "<at", "<alive"],
        caption="alive: first to last operator; of two in one place at one time, the later is written over the other, "
        f"value by value. At most {count(live)} bytes are alive at once, the arena has {arena['bytes'] / live:.2f} "
        f"times as many; {count(arena['virtual'])} more tensors are never stored",
    )
    for tensor in arena["tensors"]:
        shown.add_row(
            tensor["name"],
            tensor["type"],
            "..".join(f"{value:,}" for value in tensor["range"]),
            count(tensor["bytes"]),
            f"{tensor['offset']:,}..{tensor['offset'] + tensor['bytes'] - 1:,}",
            f"{tensor['first']}..{tensor['last']}",
        )
    return shown
