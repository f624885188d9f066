"""C of each group of operators: a loop over tiles of whole pixels, one call an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qexport.backends.packed.format import Opcode, aligned
from qexport.embed.layout import Layout, Tensor
from qexport.embed.products import Product, window
from qexport.embed.source import Source, comment, number
from qexport.ir.types import INT32_MAX, INT32_MIN
from qexport.ops import BorderBias, Clip, Conv2d, Linear, MaxPool, Pad, Rescale, Slice, SumPool, Threshold, Transpose

TILE = 512
"""Elements of a tile: large enough that calls cost little, small enough for memory of microcontrollers."""

COMMENT = 100


@dataclass(frozen=True)
class Call:
    """One operator about to be written.

    Attributes:
        op: its attributes.
        x: stored tensors it reads, or values in slots.
        y: its result.
        operands: of an elementwise operator, the variables that hold the operands' tiles.
        to: the variable for the result's tile.
        name: prefix of its constants.
    """

    source: Source
    op: Any
    x: list[Tensor]
    y: Tensor
    operands: list[str]
    to: str
    name: str


def write_group(layout: Layout, members: range, source: Source) -> int:
    """Append the function of a group to `source`; returns the bytes of scratch memory it needs behind the arena."""
    first = layout.result(members.start)
    op = layout.model.ops[members.start]
    product = Product(op, _input(layout, members.start), first) if isinstance(op, Conv2d | Linear) else None
    pixels = _tile_pixels(first, product)
    lines: list[str] = []
    for k in members:
        lines += _operator(layout, k, members, product, source)
    text = "\n".join(lines)
    slots = [s for s in ("s0", "s1", "s2", "s3", "spare") if f"{s}," in text or f"{s})" in text]
    tile = aligned(4 * pixels * first.channels)
    base = layout.arena
    declared = [f"int32_t *{s} = (int32_t *)(void *)(arena + {base + i * tile});" for i, s in enumerate(slots)]
    size = len(slots) * tile
    scratch = aligned(product.scratch(pixels)) if product else 0
    if scratch:
        declared.append(f"uint8_t *scratch = arena + {base + size};")
    whole = first.pixels == pixels
    declared.append("uint32_t p;" if not whole else "const uint32_t p = 0;")
    count = (
        f"{pixels}u"
        if first.pixels % pixels == 0
        else f"{first.pixels}u - p < {pixels}u ? {first.pixels}u - p : {pixels}u"
    )
    names = ", ".join(layout.result(k).name for k in members)
    about = comment(names if len(names) < COMMENT else names[:COMMENT] + " ...")
    body = [f"/* {about} */", f"static void group_{members.start}(uint8_t *arena)", "{"]
    body += [f"    {line}" for line in declared]
    if whole:
        body += [f"    const uint32_t n = {count};", "    (void)p;", "    (void)n;", *(f"    {line}" for line in lines)]
    else:
        body += [
            f"    for (p = 0; p < {first.pixels}u; p += {pixels}u) {{",
            f"        const uint32_t n = {count};",
            "        (void)n;",
        ]
        body += [*(f"        {line}" for line in lines), "    }"]
    source.functions.append("\n".join([*body, "}"]) + "\n")
    return size + scratch


def _tile_pixels(first: Tensor, product: Product | None) -> int:
    most = max(1, min(first.pixels, TILE // first.channels))
    if product:
        most = min(most, product.tile_limit)
    divisor = next(n for n in range(most, 0, -1) if first.pixels % n == 0)
    return divisor if 2 * divisor > most else most


def _input(layout: Layout, k: int, index: int = 0) -> Tensor:
    return layout.tensors[layout.model.reads[k][index]]


def _operator(layout: Layout, k: int, members: range, product: Product | None, source: Source) -> list[str]:
    """Statements that compute and store a tile of one result."""
    y, op = layout.result(k), layout.model.ops[k]
    to, name, lines = f"s{y.slot}", f"op{k}", []
    x = [layout.tensors[t] for t in layout.model.reads[k]]
    if product and k == members.start:
        lines.append(product.call(source, name, "scratch", to))
    else:
        operands: list[str] = []
        if layout.opcode(k) in _ELEMENTWISE:
            operands, lines = _operands(layout, k, members, source)
        lines += _WRITERS[layout.opcode(k)](Call(source, op, x, y, operands, to, name))
    if y.storage == "planes":
        source.kernel("store_planes")
        at = f"arena + {y.offset} + p * {y.pixel_bytes}u"
        lines.append(f"store_planes({at}, {y.planes}u, {y.pixels * y.pixel_bytes}u, n * {y.channels}u, {to});")
    elif y.storage:
        suffix = source.kernel("store", storage=y.storage)
        lines.append(f"store{suffix}({_at(y)}, n * {y.channels}u, {y.base}, {to});")
    return lines


def _at(tensor: Tensor) -> str:
    return f"arena + {tensor.offset} + p * {tensor.pixel_bytes}u"


def _operands(layout: Layout, k: int, members: range, source: Source) -> tuple[list[str], list[str]]:
    """(variables, statements that load them): values made in the group lie in slots, others come from the arena, where
    possible into the slot of the result, which nothing else needs any more."""
    to, inputs = f"s{layout.result(k).slot}", layout.inputs
    reads = layout.model.reads[k]
    here = [t - inputs in members and t - inputs < k for t in reads]
    found = [f"s{layout.tensors[t].slot}" if made else "" for t, made in zip(reads, here, strict=True)]
    room, lines = "spare" if to in found else to, []
    for i, t in enumerate(reads):
        if found[i]:
            continue
        x = layout.tensors[t]
        count = f"n * {x.channels}u"
        if x.storage == "planes":
            source.kernel("load_planes")
            lines.append(f"load_planes({_at(x)}, {x.planes}u, {x.pixels * x.pixel_bytes}u, {count}, {room});")
        else:
            lines.append(f"load{source.kernel('load', storage=x.storage)}({_at(x)}, {count}, {x.base}, {room});")
        found[i], room = room, "spare"
    return found, lines


def _border_bias(c: Call) -> list[str]:
    op: BorderBias = c.op
    c.source.kernel("border_bias")
    values = c.source.array(f"{c.name}_values", op.values.transpose(1, 2, 0).astype(np.int32))
    rows, columns = (
        c.source.array(f"{c.name}_{axis}", classes.astype(np.uint8))
        for axis, classes in (("rows", op.rows), ("columns", op.cols))
    )
    classes = op.values.shape[2]
    x = c.operands[0]
    return [f"border_bias({values}, {rows}, {columns}, {classes}u, {c.y.width}u, {c.y.channels}u, p, n, {x}, {c.to});"]


def _threshold(c: Call) -> list[str]:
    op: Threshold = c.op
    thresholds = op.thresholds.astype(np.int32)
    signs = "NULL"
    if np.any(op.sign < 0):
        signs = c.source.array(f"{c.name}_signs", np.packbits(op.sign < 0, bitorder="little"))
    steps, shared = thresholds.shape[1], int(len(thresholds) == 1)
    size = f"{c.y.channels}u, n"
    if steps == 1 and shared and signs == "NULL":
        size, shared = f"1u, n * {c.y.channels}u", 0  # one channel that is as long as all of them
    if steps == 1 and not shared:
        c.source.kernel("one_step")
        t = c.source.array(f"{c.name}_thresholds", thresholds)
        low, high = (number(int(v)) for v in op.levels)
        return [f"one_step({t}, {signs}, {low}, {high}, {size}, {c.operands[0]}, {c.to});"]
    c.source.kernel("threshold")
    t = c.source.array(f"{c.name}_thresholds", thresholds.T if steps else np.zeros(1, np.int32))
    gaps, table, first, step = np.diff(op.levels.astype(np.int64)), "NULL", int(op.levels[0]), 0
    if len(set(gaps.tolist())) > 1:
        table, first = c.source.array(f"{c.name}_levels", op.levels), 0
    elif len(gaps):
        step = int(np.array(gaps[0] & 0xFFFFFFFF, np.uint32).view(np.int32))
    levels = f"{table}, {number(first)}, {number(step)}"
    return [f"threshold({t}, {steps}u, {shared}u, {signs}, {levels}, {size}, {c.operands[0]}, {c.to});"]


def _rescale(c: Call) -> list[str]:
    op: Rescale = c.op
    c.source.kernel("rescale")
    multiplier = c.source.array(f"{c.name}_multiplier", op.multiplier.astype(np.int32))
    addend = c.source.array(f"{c.name}_addend", op.addend.astype(np.int64))
    shared = int(len(op.multiplier) == 1)
    bounds = f"{op.shift}u, {number(op.lo)}, {number(op.hi)}"
    return [f"rescale({multiplier}, {addend}, {bounds}, {shared}u, {c.y.channels}u, n, {c.operands[0]}, {c.to});"]


def _add(c: Call) -> list[str]:
    c.source.kernel("add")
    return [f"add({c.operands[0]}, {c.operands[1]}, n * {c.y.channels}u, {c.to});"]


def _clip(c: Call) -> list[str]:
    op: Clip = c.op
    c.source.kernel("clip")
    lo, hi = (INT32_MIN if op.lo is None else int(op.lo)), (INT32_MAX if op.hi is None else int(op.hi))
    return [f"clip({number(lo)}, {number(hi)}, n * {c.y.channels}u, {c.operands[0]}, {c.to});"]


def _pool(c: Call) -> list[str]:
    op: MaxPool | SumPool = c.op
    (x,) = c.x
    geometry = window(c.source, c.name, op, x, c.y)
    kind = "max" if isinstance(op, MaxPool) else "sum"
    c.source.kernel("pool", kind=kind, storage=x.storage)
    lines = [f"{kind}_pool_{x.storage}({geometry}, arena + {x.offset}, {x.base}, p, n, {c.to});"]
    if isinstance(op, SumPool) and op.factors is not None:
        c.source.kernel("factors")
        rows, columns = (
            c.source.array(f"{c.name}_{axis}", np.array(values, np.int32))
            for axis, values in zip(("rows", "columns"), op.factors, strict=True)
        )
        lines.append(f"factors({rows}, {columns}, {c.y.width}u, {c.y.channels}u, p, n, {c.to});")
    return lines


def _move(c: Call, x: Tensor, name: str, first: list[int], count: list[int], offset: int, strides: list[int]) -> str:
    """Fill the box [first, first + count) of the result; axes are channel, row, column."""
    suffix = c.source.kernel("move", needs=("box",), storage=x.storage)
    triples = ["{" + ", ".join(map(str, v)) + "}" for v in (first, count, strides)]
    fields = (c.y.width, c.y.channels, triples[0], triples[1], offset, triples[2])
    box = c.source.struct(name, "model_box", fields, 12)
    return f"move{suffix}({box}, arena + {x.offset}, {x.base}, p, n, {c.to});"


def _strides(x: Tensor) -> list[int]:
    """Elements between neighbours of each axis as they are stored."""
    return [1, x.width * x.channels, x.channels]


def _three(values: Any, rest: Any) -> list[Any]:
    return [*values, rest, rest][:3]


def _pad(c: Call) -> list[str]:
    op: Pad = c.op
    (x,) = c.x
    before = [b for b, _ in _three(op.pads, (0, 0))]
    move = _move(c, x, f"{c.name}_box", before, [x.channels, x.height, x.width], 0, _strides(x))
    return [f"memset({c.to}, 0, n * {4 * c.y.channels}u);", move]


def _slice(c: Call) -> list[str]:
    op: Slice = c.op
    (x,) = c.x
    parts = _three(op.ranges, (0, 1, 1))
    offset = sum(start * stride for (start, _, _), stride in zip(parts, _strides(x), strict=True))
    strides = [step * stride for (_, _, step), stride in zip(parts, _strides(x), strict=True)]
    return [_move(c, x, f"{c.name}_box", [0, 0, 0], [c.y.channels, c.y.height, c.y.width], offset, strides)]


def _transpose(c: Call) -> list[str]:
    op: Transpose = c.op
    (x,) = c.x
    axes = [*op.axes, *range(len(op.axes), 3)]
    strides = [_strides(x)[a] for a in axes]
    return [_move(c, x, f"{c.name}_box", [0, 0, 0], [c.y.channels, c.y.height, c.y.width], 0, strides)]


def _concat(c: Call) -> list[str]:
    lines, first = [], [0, 0, 0]
    for i, x in enumerate(c.x):
        extents = [x.channels, x.height, x.width]
        lines.append(_move(c, x, f"{c.name}_box{i}", list(first), extents, 0, _strides(x)))
        first[c.op.axis] += extents[c.op.axis]
    return lines


def _reshape(c: Call) -> list[str]:
    (x,) = c.x
    suffix = c.source.kernel("reshape", storage=x.storage)
    sizes = f"{x.channels}u, {x.pixels}u, {c.y.channels}u, {c.y.pixels}u"
    return [f"reshape{suffix}(arena + {x.offset}, {x.base}, {sizes}, p, n, {c.to});"]


def _l2_norm(c: Call) -> list[str]:
    (x,) = c.x
    suffix = c.source.kernel("l2_norm", storage=x.storage)
    return [f"l2_norm{suffix}(arena + {x.offset}, {x.base}, {x.channels}u, p, n, {c.to});"]


_ELEMENTWISE: dict[Opcode, Callable[[Call], list[str]]] = {
    Opcode.BORDER_BIAS: _border_bias,
    Opcode.THRESHOLD: _threshold,
    Opcode.RESCALE: _rescale,
    Opcode.ADD: _add,
    Opcode.CLIP: _clip,
}
_WRITERS = _ELEMENTWISE | {
    Opcode.MAX_POOL: _pool,
    Opcode.SUM_POOL: _pool,
    Opcode.PAD: _pad,
    Opcode.SLICE: _slice,
    Opcode.TRANSPOSE: _transpose,
    Opcode.CONCAT: _concat,
    Opcode.RESHAPE: _reshape,
    Opcode.L2_NORM: _l2_norm,
}
"""Opcode -> function that gives the statements for a tile of its result."""
