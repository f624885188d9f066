"""The parts of the generated C file as they are collected."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

TYPES = {
    np.dtype(np.int8): "int8_t",
    np.dtype(np.uint8): "uint8_t",
    np.dtype(np.int16): "int16_t",
    np.dtype(np.int32): "int32_t",
    np.dtype(np.uint32): "uint32_t",
    np.dtype(np.int64): "int64_t",
}
LINE = 116


@cache
def environment() -> Environment:
    """The templates of this package."""
    found = Environment(
        loader=PackageLoader("qexport.embed"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    found.filters["c_string"] = c_string
    return found


def c_string(text: str) -> str:
    """A C string literal; what is not printable ASCII becomes octal UTF-8."""
    return (
        '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()) + '"'
    )


def comment(text: str) -> str:
    """Text that is safe in comments, in Kconfig and in library.properties, wherever the file came from."""
    return re.sub(r"[^A-Za-z0-9_ .,;:()\[\]+-]", "_", text)


def number(value: int) -> str:
    """A C constant of a 32-bit number; the smallest one has no literal."""
    return str(value) if value != -(1 << 31) else "-2147483647 - 1"


class Source:
    """Constants, kernels and functions of one program, equal ones only once.

    Attributes:
        constants: declarations.
        constant_bytes: their size.
        kernels: texts, each behind what it calls.
        functions: one for every group.
    """

    def __init__(self) -> None:
        self.constants: list[str] = []
        self.constant_bytes = 0
        self.kernels: list[str] = []
        self.functions: list[str] = []
        self._names: dict[tuple[str, str], str] = {}
        self._kernels: set[str] = set()

    def kernel(self, file: str, needs: Iterable[str] = (), **values: str) -> str:
        """Include a kernel; returns the end of its name, such as _u8."""
        for other in needs:
            self.kernel(other)
        key = "_".join((file, *values.values()))
        if key not in self._kernels:
            self._kernels.add(key)
            template = environment().get_template(f"kernels/{file}.c.j2")
            self.kernels.append(template.render(**values).strip("\n") + "\n")
        return "_".join(("", *values.values()))

    def array(self, name: str, values: NDArray) -> str:
        """Declare a constant array; returns its name, or that of an equal one."""
        kind = TYPES[values.dtype]
        flat = values.ravel().tolist()
        if kind == "int64_t":
            literals = [f"INT64_C({v})" for v in flat]
        elif kind == "uint32_t":
            literals = [f"0x{v:X}u" for v in flat]
        else:
            literals = [number(v) for v in flat]
        declarator = f"MODEL_ALIGNED static const {kind} {{}}[{len(flat)}]"
        return self._declare(name, declarator, literals, values.nbytes)

    def struct(self, name: str, kind: str, values: Iterable[int | str], words: int) -> str:
        """Declare a constant structure of `words` 32-bit fields; returns & and its name."""
        return "&" + self._declare(
            name, f"static const {kind} {{}}", [v if isinstance(v, str) else number(v) for v in values], 4 * words
        )

    def _declare(self, name: str, declarator: str, values: list[str], size: int) -> str:
        body = wrapped(values)
        key = (declarator, body)
        if key not in self._names:
            self._names[key] = name
            self.constants.append(f"{declarator.format(name)} MODEL_CONST = {{\n{body}}};\n")
            self.constant_bytes += size
        return self._names[key]


def wrapped(values: list[str]) -> str:
    """Values of an initializer, several to a line."""
    lines, line = [], "   "
    for value in values:
        if len(line) + len(value) + 2 > LINE:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return "\n".join([*lines, line]) + "\n"
