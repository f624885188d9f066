"""The tables of `qexport bench`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from qexport.cli.tables import byte_size, large, percent, real, say, stdout_console, table


def print_benchmark(report: dict[str, Any], *, layers: bool) -> None:
    """Print what `bench` found.

    Args:
        report: its result.
        layers: whether to print the table of layers, where there is one.
    """
    console = stdout_console()
    for line in _heading(report):
        say(console, line)
    console.print(time_table(report))
    console.print(load_table(report))
    for engine in report["engines"]:
        say(console, f"{engine['name']}: {engine['what']}")
    if any(engine["same_outputs"] is False for engine in report["engines"]):
        say(console, f"WARNING: outputs differ from those of {report['base']}: {_differing(report)}")
    if layers and "layers" in report:
        say(console, "")
        console.print(layer_table(report))


def _heading(report: dict[str, Any]) -> list[str]:
    machine, settings, network = report["machine"], report["settings"], report["network"]
    shapes = ", ".join("x".join(map(str, shape)) for shape in network["inputs"].values())
    cores = settings["pinned_to"]
    pinned = "not pinned" if cores is None else f"pinned to core{'s' * (len(cores) > 1)} {', '.join(map(str, cores))}"
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    return [
        f"{network['architecture']}, input {shapes}, {large(network['macs'])} multiply-accumulates",
        f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['flags'])}; {caches}",
        f"batch {settings['batch']}, threads {settings['threads']}, {pinned}, {settings['rounds']} rounds in turn; "
        f"load of the machine {machine['load']}",
    ]


def _differing(report: dict[str, Any]) -> str:
    return ", ".join(engine["name"] for engine in report["engines"] if engine["same_outputs"] is False)


def time_table(report: dict[str, Any]) -> Table:
    """One row an engine: milliseconds of a run, and ratios to the first row."""
    shown = table(
        "Time of a run",
        ["<engine", "median ms", "fastest", "CPU ms", "GMAC/s", "x time", "x CPU"],
        caption="CPU: processor time, all threads, which other programs hardly touch; "
        f"x: times {report['base']}, the median ratio of the rounds",
    )
    for e in report["engines"]:
        ratios = e["ratio"]
        shown.add_row(
            e["name"],
            *(real(1e3 * e[key]) for key in ("median", "minimum", "processor")),
            real(e["macs_per_second"] / 1e9),
            *(times(ratios[key]) for key in ("median", "processor")),
        )
    return shown


def load_table(report: dict[str, Any]) -> Table:
    """One row an engine: loading, the first run after it, memory, and ratios to the first row."""
    shown = table(
        "Load and memory",
        ["<engine", "load ms", "first run ms", "memory", "x load", "x first", "x memory"],
        caption="memory: growth of the resident set by session and runs, at its peak",
    )
    for e in report["engines"]:
        shown.add_row(
            e["name"],
            *(real(1e3 * e[key]) for key in ("load", "first")),
            byte_size(e["memory"]),
            *(times(e["ratio"][key]) for key in ("load", "first", "memory")),
        )
    return shown


def layer_table(report: dict[str, Any]) -> Table:
    """One row a group of operators that run together."""
    peak, rows = report["peak"], report["layers"]
    rate = peak["products_per_second"] * peak["threads"] / 1e9
    work, spent = sum(row["macs"] for row in rows), sum(row["seconds"] for row in rows)
    shown = table(
        f"Layers, one image, {peak['isa']}",
        ["<layer", "<operators", "<result", "MACs", "ms", "share", "GMAC/s", "of peak"],
        footer=[
            "total",
            "",
            "",
            large(work),
            real(1e3 * spent),
            "",
            real(work / spent / 1e9),
            percent(100 * work / spent / 1e9 / rate),
        ],
        caption=f"peak: {real(rate)} GMAC/s of uint8 x int8, measured with registers and first-level cache alone; "
        "layers of 1- to 4-bit codes may exceed it, since their sums fit 16 bits for longer",
    )
    for row in rows:
        quick = row["macs_per_second"]
        shown.add_row(
            row["layer"],
            " ".join(row["operators"]),
            "x".join(map(str, row["shape"])),
            large(row["macs"] or None),
            real(1e3 * row["seconds"]),
            percent(100 * row["share"]),
            "-" if quick is None else real(quick / 1e9),
            "-" if row["peak_share"] is None else percent(100 * row["peak_share"]),
        )
    return shown


def times(value: float | None) -> str:
    """1.00, 4.42, 55.3, 108; a dash for None."""
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
