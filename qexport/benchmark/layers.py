"""Where the time of a packed network goes: its groups of operators, with work, rate and share of the machine's peak."""

from __future__ import annotations

from typing import Any

import numpy as np

from qexport.backends.packed.format import JOINS
from qexport.backends.packed.reader import PackedModel
from qexport.ops import Conv2d, Linear
from qexport.session import OUTPUTS


def layer_macs(model: PackedModel) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear layer, one image."""
    found, first = {}, model.sections.inputs
    for name, op, claim in zip(model.names[first:], model.ops, model.claims[first:], strict=True):
        if isinstance(op, Conv2d | Linear):
            found[name] = int(op.weight.array.size) * int(np.prod(claim.shape[1:], dtype=np.int64))
    return found


def layer_rows(model: PackedModel, seconds: dict[str, float], peak: float) -> list[dict[str, Any]]:
    """One row for the inputs, for each group, and for handing back the outputs, in the order they run.

    Args:
        model: the file.
        seconds: of each group under the name of its last tensor, as `InferenceSession.time_layers` gives them.
        peak: products a second that the threads of the run could make together.

    Returns:
        layer (name of the group's first operator), operators, shape (of the result), macs, seconds, share (of the sum
        of all seconds), macs_per_second and peak_share (None without products).
    """
    total = sum(seconds.values())
    macs = layer_macs(model)
    first = model.sections.inputs

    def row(name: str, operators: list[str], shape: tuple[int, ...], last: str, work: int) -> dict[str, Any]:
        spent = seconds.get(last, 0.0)
        rate = work / spent if work and spent else None
        return {
            "layer": name,
            "operators": operators,
            "shape": list(shape),
            "macs": work,
            "seconds": spent,
            "share": spent / total,
            "macs_per_second": rate,
            "peak_share": None if rate is None or not peak else rate / peak,
        }

    rows = [row("inputs", [], model.claims[0].shape, model.names[first - 1], 0)]
    for members in _groups(model):
        names = [model.names[first + k] for k in members]
        operators = [model.ops[k].kind for k in members]
        work = sum(macs.get(name, 0) for name in names)
        rows.append(row(names[0], operators, model.claims[first + members[-1]].shape, names[-1], work))
    rows.append(row("outputs", [], (), OUTPUTS, 0))
    return rows


def _groups(model: PackedModel) -> list[list[int]]:
    """Operators that run together, docs/packed-format.md section 6."""
    groups: list[list[int]] = []
    for k, record in enumerate(model.sections.ops):
        if groups and int(record["flags"]) & JOINS:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups
