"""Small integer graphs that take each operator of the packed format through its forms; every runtime runs them.

Networks as they are trained leave most of these out: many steps, tables of levels, shifts at both ends, extents of one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qexport.ir import Graph
from qexport.ir.types import INT32_MAX, INT32_MIN, integer
from qexport.ops import (
    Add,
    BorderBias,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Op,
    Pad,
    Rescale,
    Reshape,
    Slice,
    SumPool,
    Threshold,
    Transpose,
    Weight,
)

Build = Callable[[Graph, str, np.random.Generator], object]
"""Adds nodes that read a tensor of 19 channels and 7 x 9 pixels, about 20 bits wide."""

CHANNELS, HEIGHT, WIDTH = 19, 7, 9

OPERATOR_GRAPHS: dict[str, Build] = {}

IMAGES = {"image of one channel": 1, "image of two channels": 2}
"""Rows whose image has not three channels."""


def operator_graph(name: str) -> tuple[Graph, np.ndarray]:
    """The graph of a row, and three images for it: black, white and random."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    graph = Graph()
    n = IMAGES.get(name, 3)
    image = graph.add_input("image", integer((n, HEIGHT, WIDTH), np.zeros(n, np.int64), np.full(n, 255)))
    graph.add("first", conv(rng, CHANNELS, n, 3, peak=127, pads=((1, 1), (1, 1))), image)
    OPERATOR_GRAPHS[name](graph, "first", rng)
    read = {tensor for node in graph.nodes for tensor in node.inputs}
    graph.outputs.extend(node.name for node in graph.nodes if node.name not in read)
    random = rng.integers(0, 256, (1, n, HEIGHT, WIDTH))
    images = np.concatenate([np.zeros_like(random), np.full_like(random, 255), random])
    return graph, images.astype(np.uint8)


def row(name: str) -> Callable[[Build], Build]:
    def enter(build: Build) -> Build:
        assert name not in OPERATOR_GRAPHS, name
        OPERATOR_GRAPHS[name] = build
        return build

    return enter


def only(name: str, op: Callable[[np.random.Generator], Op]) -> None:
    """A row of one operator behind the first."""
    row(name)(lambda graph, x, rng: graph.add("y", op(rng), x))


def conv(rng: np.random.Generator, outputs: int, inputs: int, window: int, peak: int, **options: object) -> Conv2d:
    weight = rng.integers(-peak, peak + 1, (outputs, inputs, window, window)).astype(np.int32)
    weight.reshape(-1)[:2] = -peak, peak
    return Conv2d(Weight(weight), **options)  # type: ignore[arg-type]


def threshold(
    rng: np.random.Generator,
    steps: int,
    shared: bool = False,
    signs: bool = False,
    levels: str = "line",
    span: int = 30000,
    channels: int = CHANNELS,
) -> Threshold:
    rows = 1 if shared else channels
    thresholds = np.sort(rng.integers(-span, span, (rows, steps)), axis=1)
    sign = rng.choice(np.array([-1, 1], np.int8), rows) if signs else np.ones(rows, np.int8)
    table = {
        "line": np.arange(steps + 1),
        "signed": 2 * np.arange(steps + 1) - steps,
        "table": np.sort(rng.choice(np.arange(-100 - steps, 100 + steps), steps + 1, False)),
    }[levels]
    return Threshold(thresholds, sign, table.astype(np.int32))


for name in IMAGES:
    only(name, lambda rng: Clip(0, None))

for steps in (1, 2, 3, 4, 7, 8, 15, 64, 65, 255, 1000):
    for form in ("line", "table"):
        only(f"threshold {steps} {form}", lambda rng, s=steps, f=form: threshold(rng, s, levels=f))  # type: ignore[misc]
only("threshold shared", lambda rng: threshold(rng, 3, shared=True))
only("threshold shared, sign", lambda rng: threshold(rng, 5, shared=True, signs=True, levels="signed"))
only("threshold signs", lambda rng: threshold(rng, 3, signs=True, levels="signed"))
only("threshold one step, signs", lambda rng: threshold(rng, 1, signs=True, levels="signed"))
only("threshold signs, table", lambda rng: threshold(rng, 6, signs=True, levels="table"))
only("threshold unreachable", lambda rng: threshold(rng, 4, span=INT32_MAX))


def rescale(rng: np.random.Generator, bits: int, shift: int, shared: bool = False, **limits: int) -> Rescale:
    n = 1 if shared else CHANNELS
    multiplier = rng.integers(-(2**bits), 2**bits + 1, n)
    addend = rng.integers(-(2 ** min(shift, 60)), 2 ** min(shift, 60) + 1, n)
    return Rescale(multiplier, addend, shift, **limits)


only("rescale shift 0", lambda rng: rescale(rng, 8, 0))
only("rescale shift 1", lambda rng: rescale(rng, 9, 1))
only("rescale shift 15, saturating", lambda rng: rescale(rng, 14, 15, lo=-5000, hi=4000))
only("rescale shift 31", lambda rng: rescale(rng, 30, 31, shared=True))
only("rescale shift 40", lambda rng: rescale(rng, 30, 40))
only("rescale shift 62", lambda rng: rescale(rng, 30, 62))
only("clip", lambda rng: Clip(-1000, 2500))
only("clip open", lambda rng: Clip(0, None))


@row("add in every place")
def _(graph: Graph, x: str, rng: np.random.Generator) -> None:
    a = graph.add("a", Clip(-900, 900), x)
    b = graph.add("b", rescale(rng, 10, 12), x)
    c = graph.add("c", Add(), a, b)
    d = graph.add("d", Add(), c, c)
    e = graph.add("e", Add(), b, d)
    graph.add("f", Add(), x, e)
    graph.add("g", MaxPool((2, 2), (1, 1)), d)


@row("border bias")
def _(graph: Graph, x: str, rng: np.random.Generator) -> None:
    values = rng.integers(-5000, 5000, (CHANNELS, 3, 4))
    rows, columns = rng.integers(0, 3, HEIGHT), rng.integers(0, 4, WIDTH)
    graph.add("y", BorderBias(values, rows, columns), x)


def narrow(graph: Graph, x: str, rng: np.random.Generator, bits: int) -> str:
    """x as a tensor the arena holds in u8 (with a base), i16 or i32."""
    limit = {8: (-100, 155), 16: (-30000, 30000), 32: (INT32_MIN, INT32_MAX)}[bits]
    return graph.add("narrow", Clip(*limit), x)


for bits in (8, 16, 32):
    for name, op in {
        "max pool": MaxPool((3, 2), (2, 1), ((1, 1), (1, 0))),
        "max pool dilated": MaxPool((2, 3), (1, 2), ((0, 1), (2, 2)), (3, 2)),
        "sum pool": SumPool((3, 3), (2, 2), ((1, 1), (1, 1))),
        "sum pool global": SumPool((HEIGHT, WIDTH), (1, 1)),
        "sum pool factors": SumPool((3, 3), (2, 2), ((1, 1), (1, 1)), ((3, 2, 2, 3), (3, 2, 2, 2, 3))),
        "pad": Pad(((2, 3), (1, 0), (0, 2))),
        "slice": Slice(((1, 18, 1), (0, 7, 2), (1, 9, 3))),
        "slice of channels": Slice(((2, 19, 5), (0, 7, 1), (0, 9, 1))),
        "reshape flat": Reshape((CHANNELS, HEIGHT, WIDTH), (CHANNELS * HEIGHT * WIDTH,)),
        "reshape across channels": Reshape((CHANNELS, HEIGHT, WIDTH), (HEIGHT, CHANNELS, WIDTH)),
        "reshape to lines": Reshape((CHANNELS, HEIGHT, WIDTH), (CHANNELS * HEIGHT, WIDTH)),
        "transpose 0 2 1": Transpose((CHANNELS, HEIGHT, WIDTH), (0, 2, 1)),
        "transpose 1 2 0": Transpose((CHANNELS, HEIGHT, WIDTH), (1, 2, 0)),
        "transpose 2 0 1": Transpose((CHANNELS, HEIGHT, WIDTH), (2, 0, 1)),
        "l2 norm": L2Norm(),
    }.items():
        row(f"{name}, {bits} bits")(
            lambda graph, x, rng, op=op, bits=bits: graph.add("y", op, narrow(graph, x, rng, bits))  # type: ignore[misc]
        )

for channels in (3, 8, 13, 16, 27, 32, 51, 96):

    @row(f"max pool of codes, {channels} channels")
    def _(graph: Graph, x: str, rng: np.random.Generator, channels: int = channels) -> None:
        codes = graph.add("wide", conv(rng, channels, CHANNELS, 1, peak=3), x)
        thresholds = np.sort(rng.integers(-60000, 60000, (channels, 3)), axis=1)
        levels = np.array([-90, -7, 3, 110], np.int32)
        codes = graph.add("codes", Threshold(thresholds, np.ones(channels, np.int8), levels), codes)
        graph.add("three", MaxPool((3, 3), (2, 2), ((1, 1), (1, 1))), codes)
        graph.add("two", MaxPool((2, 2), (2, 2)), codes)
        graph.add("dilated", MaxPool((2, 3), (1, 2), ((0, 1), (2, 2)), (3, 2)), codes)
        graph.add("all", MaxPool((HEIGHT, WIDTH), (1, 1)), codes)
        graph.add("each", MaxPool((1, 1), (1, 1)), codes)
        graph.add("again", MaxPool((3, 3), (1, 1)), graph.add("before", MaxPool((2, 2), (1, 1)), codes))


for axis in range(3):

    @row(f"concat axis {axis}")
    def _(graph: Graph, x: str, rng: np.random.Generator, axis: int = axis) -> None:
        parts = [narrow(graph, x, rng, 8), graph.add("wide", Clip(-20000, 20000), x), x]
        ranges = [(0, n, 1) for n in (CHANNELS, HEIGHT, WIDTH)]
        ranges[axis] = (1, 5, 1)
        parts.append(graph.add("part", Slice(tuple(ranges)), x))
        graph.add("y", Concat(axis), *parts)


def convolution(name: str, bits: int, peak: int, outputs: int, window: int, groups: int = 1, **options: object) -> None:
    """A row of a convolution of 18 channels, of an input stored in 8, 16 or 32 bits."""

    def build(graph: Graph, x: str, rng: np.random.Generator) -> None:
        first = graph.add("eighteen", Slice(((0, 18, 1), (0, HEIGHT, 1), (0, WIDTH, 1))), narrow(graph, x, rng, bits))
        graph.add("y", conv(rng, outputs, 18 // groups, window, peak, groups=groups, **options), first)

    row(name)(build)


SAME = ((1, 1), (1, 1))
for bits, peak in ((8, 1), (8, 3), (8, 127), (8, 100000), (16, 7), (16, 500), (32, 7), (32, 10)):
    convolution(f"conv {bits} bits, weights to {peak}", bits, peak, 21, 3, pads=SAME)
convolution("conv pointwise", 8, 3, 33, 1)
convolution("conv strided", 8, 3, 16, 3, stride=(2, 3), pads=((1, 0), (0, 2)))
convolution("conv dilated", 8, 3, 16, 3, dilation=(2, 3), pads=((2, 2), (3, 3)))
convolution("conv groups", 8, 7, 24, 3, 3, pads=SAME)
convolution("conv groups, 16 bits", 16, 7, 24, 3, 2, pads=SAME)
convolution("conv depthwise", 8, 7, 18, 3, 18, pads=SAME)
convolution("conv depthwise strided, 16 bits", 16, 127, 18, 3, 18, stride=(2, 2), pads=SAME)
convolution("conv depthwise, weights to 40000", 8, 40000, 18, 3, 18, pads=SAME)
convolution("conv depthwise multiplied", 8, 7, 36, 3, 18, pads=SAME)


@row("linear")
def _(graph: Graph, x: str, rng: np.random.Generator) -> None:
    flat = graph.add("flat", SumPool((HEIGHT, WIDTH), (1, 1)), narrow(graph, x, rng, 8))
    line = graph.add("line", Reshape((CHANNELS, 1, 1), (CHANNELS,)), flat)
    for name, outputs, peak in (("ten", 10, 127), ("one", 1, 1000), ("many", 700, 7)):
        graph.add(name, Linear(Weight(rng.integers(-peak, peak + 1, (outputs, CHANNELS)).astype(np.int32))), line)


def near_words(rng: np.random.Generator, channels: int, peak: int, shift: int) -> Rescale:
    """A rescale of values up to a peak to 16 bits, and beyond; channel 16 has the largest multiplier there is."""
    most = min(2**31 - 1, 3 * 2 ** (15 + shift) // peak)
    multiplier = rng.integers(-most, most + 1, channels)
    multiplier[16:17] = 2**31 - 1
    return Rescale(
        multiplier, rng.integers(-(2 ** (shift + 14)), 2 ** (shift + 14), channels), shift, lo=-32768, hi=32767
    )


def words(name: str, channels: int, outputs: int, steps: int, book: tuple[int, ...], shift: int, clips: bool) -> None:
    """A convolution of few bits whose result joins a stream; values lie at the ends of 16 bits, and beyond."""

    def build(graph: Graph, x: str, rng: np.random.Generator) -> None:
        levels = np.arange(steps + 1, dtype=np.int32)
        stream = graph.add("wide", conv(rng, outputs, CHANNELS, 1, peak=3), x)
        stream = graph.add("stream", near_words(rng, outputs, 2**20, 24), stream)
        thresholds = np.sort(rng.integers(-30000, 30000, (channels, steps)), axis=1)
        codes = graph.add("before", conv(rng, channels, CHANNELS, 1, peak=3), x)
        codes = graph.add("codes", Threshold(thresholds, np.ones(channels, np.int8), levels), codes)
        weight = Weight(rng.choice(np.array(book, np.int32), (outputs, channels, 3, 3)), level_set=book)
        y = graph.add("y", Conv2d(weight, pads=SAME), codes)
        y = graph.add("rescaled", near_words(rng, outputs, 9 * channels * steps, shift), y)
        y = graph.add("sum", Add(), graph.add("rectified", Clip(0, None), stream) if clips else stream, y)
        y = graph.add("clipped", Clip(-32767, 32767), y) if clips else y
        ends = rng.choice([-32767, -32766, -1, 0, 1, 32766, 32767], (outputs, steps))
        ends[32:] = rng.choice([-32769, -32768, 32768], ends[32:].shape)
        sign = rng.choice(np.array([-1, 1], np.int8), outputs) if clips else np.ones(outputs, np.int8)
        graph.add("end", Threshold(np.sort(ends, axis=1), sign, levels), y)

    row(f"words {name}")(build)


words("one bit", 16, 16, 1, (-1, 1), 24, clips=True)
words("one bit, saturating", 32, 32, 1, (-1, 1), 20, clips=False)
words("one bit, 64 channels", 64, 64, 1, (-1, 1), 25, clips=True)
words("one bit, weights to 3", 24, 64, 1, (-1, 3), 16, clips=False)
words("two bits", 16, 32, 3, (-3, -1, 1, 3), 22, clips=True)
words("two bits, saturating", 32, 16, 3, (-1, 0, 1), 18, clips=False)
words("two bits, shift 14", 32, 16, 3, (-1, 0, 1), 14, clips=True)


@row("words that move")
def _(graph: Graph, x: str, rng: np.random.Generator) -> None:
    def to_words(channels: int) -> Rescale:
        return Rescale(rng.integers(-900, 900, channels), rng.integers(-99, 99, channels), 16, lo=-32768, hi=32767)

    some = graph.add("some", Slice(((0, 16, 1), (0, HEIGHT, 1), (0, WIDTH, 1))), x)
    sixteen = graph.add("sixteen", to_words(16), some)
    graph.add(
        "rectified", Clip(0, None), graph.add("part", Slice(((0, 16, 1), (1, HEIGHT, 2), (0, WIDTH, 3))), sixteen)
    )
    graph.add("padded", to_words(32), graph.add("pad", Pad(((8, 8), (1, 0), (0, 2))), sixteen))


def scaled(rng: np.random.Generator, peak: int, channels: int, shift: int) -> Rescale:
    """A rescale of values up to a peak to about 29 bits."""
    most = min(2**31 - 1, 2 ** (29 + shift) // peak)
    addend = rng.integers(-(2 ** (shift + 25)), 2 ** (shift + 25), channels)
    return Rescale(rng.integers(-most, most + 1, channels), addend, shift)


def few_steps(rng: np.random.Generator, channels: int, steps: int, signs: bool) -> Threshold:
    """Thresholds for 29 bits, some of which nothing reaches, or everything."""
    thresholds = rng.integers(-(2**27), 2**27, (channels, steps))
    thresholds[rng.integers(0, channels, 5)] = INT32_MIN
    thresholds[rng.integers(0, channels, 5), -1] = INT32_MAX
    sign = rng.choice(np.array([-1, 1], np.int8), channels) if signs else np.ones(channels, np.int8)
    return Threshold(np.sort(thresholds, axis=1), sign, np.arange(steps + 1, dtype=np.int32) - 70)


def to_codes(graph: Graph, x: str, rng: np.random.Generator, channels: int, book: tuple[int, ...]) -> tuple[str, int]:
    """A convolution of two-bit codes, and the largest of its results."""
    codes = graph.add("before", conv(rng, 16, CHANNELS, 1, peak=3), x)
    thresholds = np.sort(rng.integers(-60000, 60000, (16, 3)), axis=1)
    codes = graph.add("codes", Threshold(thresholds, np.ones(16, np.int8), np.arange(4, dtype=np.int32)), codes)
    weight = Weight(rng.choice(np.array(book, np.int32), (channels, 16, 3, 3)), level_set=book)
    return graph.add("made", Conv2d(weight, pads=SAME), codes), 9 * 16 * 3 * max(abs(level) for level in book)


def sum_to_bytes(
    name: str, channels: int, steps: int, book: tuple[int, ...], bits: int, shifts: tuple[int | None, int | None]
) -> None:
    """Thresholds of the sum of a convolution and a stream of 8 or 16 bits, each rescaled, or as it is."""

    def build(graph: Graph, x: str, rng: np.random.Generator) -> None:
        stream = graph.add("wide", conv(rng, channels, CHANNELS, 1, peak=3), x)
        limits = {8: (-100, 155), 16: (-30000, 30000)}[bits]
        to_bits = Rescale(rng.integers(-512, 513, channels), np.zeros(channels, np.int64), 34 - bits, *limits)
        stream = graph.add("stream", to_bits, stream)
        made, peak = to_codes(graph, x, rng, channels, book)
        if shifts[0] is not None:
            made = graph.add("rescaled", scaled(rng, peak, channels, shifts[0]), made)
        if shifts[1] is not None:
            one = 1 if steps == 1 else channels
            stream = graph.add("rescaled stream", scaled(rng, limits[1], one, shifts[1]), stream)
        y = graph.add("sum", Add(), *((made, stream) if steps == 3 else (stream, made)))
        graph.add("end", few_steps(rng, channels, steps, signs=channels > 16), y)

    row(f"sum to bytes, {name}")(build)


TWO_BITS, WIDE = (-3, -1, 1, 3), (-700, -1, 1, 699)


@row("two bits to words alone, and to bytes")
def _(graph: Graph, x: str, rng: np.random.Generator) -> None:
    to_codes(graph, x, rng, 32, TWO_BITS)
    for steps in (1, 3):
        wide = graph.add(f"wide {steps}", conv(rng, 24, CHANNELS, 3, peak=50), x)
        graph.add(f"end {steps}", few_steps(rng, 24, steps, signs=True), wide)


sum_to_bytes("bytes", 24, 3, TWO_BITS, 8, (11, 0))
sum_to_bytes("bytes, one step", 32, 1, TWO_BITS, 8, (9, 0))
sum_to_bytes("bytes, shifted", 32, 3, TWO_BITS, 8, (0, 20))
sum_to_bytes("bytes, shifted, one step", 16, 1, TWO_BITS, 8, (8, 10))
sum_to_bytes("words, shifted", 48, 3, TWO_BITS, 16, (11, 9))
sum_to_bytes("words, one step", 32, 1, TWO_BITS, 16, (31, 0))
sum_to_bytes("as they are", 16, 3, TWO_BITS, 8, (None, None))
sum_to_bytes("stream as it is", 32, 1, TWO_BITS, 16, (7, None))
sum_to_bytes("wide, bytes", 30, 3, WIDE, 8, (5, 0))
sum_to_bytes("wide, bytes, one step", 17, 1, WIDE, 8, (13, 0))
sum_to_bytes("wide, bytes, shifted", 16, 3, WIDE, 8, (1, 15))
sum_to_bytes("wide, words", 33, 1, WIDE, 16, (12, 12))
sum_to_bytes("wide, as they are", 40, 3, WIDE, 8, (None, None))


def border_to_bytes(name: str, channels: int, steps: int, book: tuple[int, ...], scale: bool, widths: int) -> None:
    """Thresholds of a convolution, times a number, with the bias of a border of which `widths` columns are alike."""

    def build(graph: Graph, x: str, rng: np.random.Generator) -> None:
        made, peak = to_codes(graph, x, rng, channels, book)
        if scale:
            made = graph.add("rescaled", scaled(rng, peak, channels, 0), made)
        values = rng.integers(-(2**27), 2**27, (channels, 3, 4))
        rows, columns = np.array([0, 1, 1, 1, 1, 1, 2]), rng.integers(0, 4, WIDTH)
        columns[WIDTH - widths :] = 3
        biased = graph.add("biased", BorderBias(values, rows, columns), made)
        graph.add("end", few_steps(rng, channels, steps, signs=channels > 16), biased)

    row(f"border to bytes, {name}")(build)


border_to_bytes("three steps", 40, 3, WIDE, scale=True, widths=7)
border_to_bytes("one step", 16, 1, WIDE, scale=True, widths=9)
border_to_bytes("as it is", 21, 3, WIDE, scale=False, widths=8)
border_to_bytes("words", 32, 1, TWO_BITS, scale=True, widths=3)
border_to_bytes("words as they are", 16, 3, TWO_BITS, scale=False, widths=1)


def stream_to_bytes(name: str, channels: int, steps: int, book: tuple[int, ...], clips: bool) -> None:
    """Thresholds of the sum of a convolution and a stream of 32 bits, which goes on."""

    def build(graph: Graph, x: str, rng: np.random.Generator) -> None:
        stream = graph.add("stream", conv(rng, channels, CHANNELS, 3, peak=10, pads=SAME), x)
        made, peak = to_codes(graph, x, rng, channels, book)
        made = graph.add("rescaled", scaled(rng, peak, channels, 9), made)
        clipped = graph.add("rectified", Clip(-1000, None), stream) if clips else stream
        y = graph.add("sum", Add(), *((made, clipped) if steps == 3 else (clipped, made)))
        graph.add("end", few_steps(rng, channels, steps, signs=channels > 16), y)
        graph.add("goes on", MaxPool((2, 2), (1, 1)), y)
        graph.add("goes on, too", MaxPool((2, 2), (1, 1)), stream)

    row(f"stream to bytes, {name}")(build)


stream_to_bytes("two bits", 32, 3, TWO_BITS, clips=True)
stream_to_bytes("two bits, one step", 16, 1, TWO_BITS, clips=False)
stream_to_bytes("wide", 21, 1, WIDE, clips=True)
stream_to_bytes("wide, three steps", 40, 3, WIDE, clips=False)


def behind_blocks(
    name: str,
    *,
    steps: int | None,
    shift: int | None = None,
    limits: tuple[int, int] | None = None,
    shortcut: str = "",
    border: bool = False,
    clip: tuple[int | None, int | None] | None = None,
    levels: str = "line",
    span: int = 2**27,
    channels: int = 64,
) -> None:
    """What may follow a convolution of whole blocks of 32 channels, done on its sums where an instruction set can.

    Args:
        name: of the row.
        steps: of the thresholds; None: there are none.
        shift: of a rescale of the sums, within `limits`; None: there is none.
        shortcut: what is added: "codes", "words" or "wide", rescaled by channel if " each" is appended, by a number if
            " all" is.
        border: whether a border has a bias.
        clip: bounds in front of the thresholds.
        levels, span: see `threshold`.
        channels: of the convolution.
    """

    def build(graph: Graph, x: str, rng: np.random.Generator) -> None:
        made, peak = to_codes(graph, x, rng, channels, TWO_BITS)
        if shift is not None:
            bounds = limits or (INT32_MIN, INT32_MAX)
            rescale = replace(scaled(rng, peak, channels, shift), lo=bounds[0], hi=bounds[1])
            made = graph.add("rescaled", rescale, made)
        if border:
            values = rng.integers(-(2**27), 2**27, (channels, 3, 3))
            rows, columns = np.array([0, 1, 1, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 1, 1, 1, 1, 2])
            made = graph.add("biased", BorderBias(values, rows, columns), made)
        if shortcut:
            kind, _, by = shortcut.partition(" ")
            peak = {"codes": 3, "words": 30000, "wide": 2**20}[kind]
            narrow = Rescale(rng.integers(0, 512, channels), np.zeros(channels, np.int64), 15, -peak, peak)
            stream = graph.add("stream", narrow, graph.add("wide", conv(rng, channels, CHANNELS, 1, peak=3), x))
            if by:
                stream = graph.add("rescaled stream", scaled(rng, peak, channels if by == "each" else 1, 9), stream)
            made = graph.add("sum", Add(), *((made, stream) if by == "all" else (stream, made)))
        if clip is not None:
            made = graph.add("clipped", Clip(*clip), made)
        if steps is not None:
            graph.add("end", threshold(rng, steps, channels=channels, levels=levels, span=span), made)

    row(f"behind blocks, {name}")(build)


behind_blocks("bytes alone", steps=None, shift=9, limits=(-90, 100))
behind_blocks("words alone", steps=None)
behind_blocks("wide alone", steps=None, shift=3)
behind_blocks("clipped alone", steps=None, shift=3, clip=(0, 2**20))
for count in (1, 2, 3, 7, 15, 16):
    behind_blocks(f"{count} thresholds", steps=count, span=200, levels="table" if count % 2 == 0 else "line")
    behind_blocks(f"{count} thresholds, rescaled", steps=count, shift=8, clip=(-(2**20), None))
behind_blocks("rescaled from afar", steps=3, shift=33, span=100)
behind_blocks("rescaled within bounds", steps=3, shift=8, limits=(-5000, 7000), span=6000)
behind_blocks("border", steps=3, shift=8, border=True)
behind_blocks("border, as it is", steps=7, border=True)
behind_blocks("border and shortcut", steps=3, shift=8, border=True, shortcut="codes all")
for source in ("codes", "words", "wide"):
    for by in ("", " all", " each"):
        behind_blocks(f"shortcut, {source}{by}", steps=3, shift=8, shortcut=source + by, clip=(0, None))
        behind_blocks(f"shortcut, {source}{by}, one step", steps=1, shift=0, shortcut=source + by, channels=32)
behind_blocks("shortcut of many bits", steps=None, shift=8, shortcut="wide all")
