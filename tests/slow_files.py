"""Valid and hostile packed files that ask as much of a reader as their size allows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from packed_files import U8, PackedFile, i32

from qexport.backends.packed import format as f

OPS = f.MAX_TENSORS - 1


def alive_to_the_end() -> bytes:
    """8191 tensors, each an output and alive with all others."""
    p = PackedFile()
    t = p.input((1,))
    for _ in range(OPS):
        p.op(f.Opcode.CLIP, [t], first=0, second=255)
        t = p.tensor((1,), 0, 255, U8)
    for index in range(OPS + 1):
        p.output(index)
    return p.to_bytes()


def read_by_one_concat() -> bytes:
    """8190 tensors, the last use of each a concat that names its inputs 65535 times."""
    p = PackedFile()
    image = p.input((1,))
    made = []
    for _ in range(OPS - 1):
        p.op(f.Opcode.CLIP, [image], first=0, second=255)
        made.append(p.tensor((1,), 0, 255, U8))
    inputs = np.resize(np.array(made, "<u2"), 0xFFFF)[::-1]
    p.op(f.Opcode.CONCAT, made, inputs.tobytes(), count=0xFFFF)
    p.output(p.tensor((0xFFFF,), 0, 255, U8))
    return p.to_bytes()


def one_group_in_place() -> bytes:
    """A group behind a concat of 65535 inputs, its 8188 results all in place of what its second operator reads."""
    p = PackedFile()
    under, first = p.input((1, 0xFFFF)), p.input((1, 1))
    p.op(f.Opcode.CONCAT, [first], np.full(0xFFFF, first, "<u2").tobytes(), count=0xFFFF, first=1)
    t = p.tensor((1, 0xFFFF), 0, 255)
    p.op(f.Opcode.ADD, [t, under], flags=f.JOINS)
    t = p.tensor((1, 0xFFFF), 0, 510)
    for _ in range(OPS - 3):
        p.op(f.Opcode.CLIP, [t], flags=f.JOINS, first=0, second=255)
        t = p.tensor((1, 0xFFFF), 0, 255, U8, offset=0)
    p.output(t)
    return p.to_bytes()


def most_channels() -> bytes:
    """As many channels as are looked at, each searched for in 65534 thresholds twice."""
    channels = f.MAX_EFFORT // 3 - 8
    p = PackedFile()
    x = p.input((1,))
    p.op(f.Opcode.PAD, [x], np.array([0, 0, 0, channels - 1, 0, 0], "<u4").tobytes())
    padded = p.tensor((channels,), 0, 255, U8)
    steps = np.sort(np.random.default_rng(0).integers(-1000, 1000, 65534))
    p.op(f.Opcode.THRESHOLD, [padded], i32(*steps), count=65534, second=1)
    p.output(p.tensor((channels,), 0, 65534, f.Storage.I32))
    return p.to_bytes()


SLOW: dict[str, Callable[[], bytes]] = {
    make.__name__: make for make in (alive_to_the_end, read_by_one_concat, one_group_in_place, most_channels)
}
