"""Runs a .qpk file as a device does, from docs/packed-format.md: an arena of bytes, groups tile by tile, four slots.

Everything the schedule and the plan can get wrong shows as a wrong value: the arena starts as noise, results go to it
as soon as a tile has them, and the first operator of a group reads the arena as it is when its tile comes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qexport.backends.packed import format as f
from qexport.backends.packed.format import Storage
from qexport.backends.packed.reader import PackedModel

DTYPES = {Storage.U8: np.dtype("u1"), Storage.I16: np.dtype("<i2"), Storage.I32: np.dtype("<i4")}


class Emulator:
    """One run of one sample.

    Attributes:
        values: int64 [C, pixels] of every tensor, by number; those of virtual ones as they were in their slots.
    """

    def __init__(self, model: PackedModel, tiles: int) -> None:
        self.model, self.tiles = model, tiles
        self.records = model.sections.tensors
        self.arena = np.random.default_rng(0).integers(0, 256, int(model.sections.header["arena_size"]), np.uint8)
        self.values: dict[int, NDArray[np.int64]] = {}

    def run(self, images: list[NDArray[np.uint8]]) -> dict[str, NDArray[np.int64]]:
        """Every tensor by name, in its shape; inputs are [C, ...]."""
        for t, image in enumerate(images):
            self.values[t] = image.reshape(len(image), -1).astype(np.int64)
            self.store(t, self.values[t], slice(None))
        first = 0
        ops = self.model.sections.ops
        for k in range(1, len(ops) + 1):
            if k == len(ops) or not ops[k]["flags"] & f.JOINS:
                self.run_group(range(first, k))
                first = k
        shapes = [claim.shape for claim in self.model.claims]
        for t in self.model.sections.outputs:
            assert np.array_equal(self.load(t), self.values[t]), "an output was overwritten"
        return {name: self.values[t].reshape(shapes[t]) for t, name in enumerate(self.model.names)}

    def run_group(self, group: range) -> None:
        pixels = self.pixels(self.model.sections.inputs + group[0])
        for tile in np.array_split(np.arange(pixels), min(self.tiles, pixels)):
            slots: dict[int, tuple[int, NDArray[np.int64]]] = {}
            for k in group:
                self.run_operator(k, group, tile, slots)

    def run_operator(
        self, k: int, group: range, tile: NDArray[np.int64], slots: dict[int, tuple[int, NDArray[np.int64]]]
    ) -> None:
        result = self.model.sections.inputs + k
        arrays = []
        for t in self.model.reads[k]:
            array = np.zeros((self.shape(t)[0], self.pixels(t)), np.int64)
            if t - self.model.sections.inputs in group:
                holder, array[:, tile] = slots[self.slot(t)]
                assert holder == t, "a slot holds another tensor"
            elif k == group[0]:
                array = self.load(t)
            else:
                array[:, tile] = self.load(t)[:, tile]
            arrays.append(array.reshape(1, *self.shape(t)))
        values = self.model.ops[k].evaluate(*arrays).reshape(self.shape(result)[0], -1)
        slots[self.slot(result)] = result, values[:, tile]
        self.values.setdefault(result, np.zeros_like(values))[:, tile] = values[:, tile]
        if self.storage(result) != Storage.VIRTUAL:
            self.store(result, values[:, tile], tile)

    def store(self, t: int, values: NDArray[np.int64], pixels: slice | NDArray[np.int64]) -> None:
        place = self.place(t)  # [pixels, C]
        shifted = (values - self.base(t)).T
        place[pixels] = shifted
        assert np.array_equal(place[pixels], shifted), "a value does not fit its storage"

    def load(self, t: int) -> NDArray[np.int64]:
        return self.place(t).T.astype(np.int64) + self.base(t)

    def place(self, t: int) -> NDArray:
        dtype = DTYPES[self.storage(t)]
        size = self.pixels(t) * self.shape(t)[0] * dtype.itemsize
        start = int(self.records[t]["arena_offset"])
        return self.arena[start : start + size].view(dtype).reshape(self.pixels(t), -1)

    def base(self, t: int) -> int:
        return min(int(self.records[t]["lo"]), 0) if self.storage(t) == Storage.U8 else 0

    def storage(self, t: int) -> Storage:
        return Storage(int(self.records[t]["storage_slot"]) & 15)

    def slot(self, t: int) -> int:
        return int(self.records[t]["storage_slot"]) >> 4

    def shape(self, t: int) -> tuple[int, ...]:
        return self.model.claims[t].shape

    def pixels(self, t: int) -> int:
        return int(np.prod(self.shape(t)[1:], dtype=np.int64))
