"""Types of the C extension (runtime/python/); its docstrings say more."""

from collections.abc import Sequence
from typing import final

from typing_extensions import Buffer

Info = tuple[tuple[int, ...], int, int, int]
"""(extents, smallest value, largest value, index of the tensor in the file)."""

class StatusError(Exception):
    """args: (status, text, operator or tensor index)."""

@final
class Model:
    def __new__(cls, file: Buffer, isa: str | None = None, threads: int = 1) -> Model: ...
    @property
    def inputs(self) -> list[Info]: ...
    @property
    def outputs(self) -> list[Info]: ...
    @property
    def tensors(self) -> list[Info]: ...
    @property
    def metadata(self) -> bytes: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def arena_size(self) -> int: ...
    def run(
        self,
        inputs: Sequence[Buffer],
        outputs: Sequence[Buffer],
        batch: int,
        tensors: Sequence[Buffer] | None = None,
        times: Buffer | None = None,
    ) -> None: ...

def peak_products(isa: str, least: int) -> int: ...
def isas() -> list[tuple[str, bool]]: ...
