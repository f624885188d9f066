"""The C loader refuses every hostile file with its own status, reads nothing beyond any file, and never looks away."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hostile_files import HOSTILE
from loader_program import Verdict, status_names
from packed_files import every_operator, seal
from slow_files import SLOW

from qexport.backends.packed import format as f
from qexport.backends.packed.reader import parse_packed
from qexport.errors import ArtifactError

NOT_BY_CONTENT = {"OK", "ARGUMENT", "BIG_ENDIAN", "ALIGNMENT", "ISA", "ARENA_SIZE", "PREPACK_SIZE"}
"""What no file can cause. `check_files` itself tries null pointers and a misaligned address with every file."""


def test_the_base_of_all_is_accepted(check_files) -> None:
    assert check_files([every_operator().to_bytes()]) == [Verdict("OK", -1)]


def test_each_is_refused_with_its_status(check_files) -> None:
    verdicts = check_files([hostile.make() for hostile in HOSTILE.values()])
    got = {name: (v.status, v.failed_at) for name, v in zip(HOSTILE, verdicts, strict=True)}
    assert got == {name: (hostile.status, hostile.failed_at) for name, hostile in HOSTILE.items()}


def test_every_status_is_reached() -> None:
    assert {hostile.status for hostile in HOSTILE.values()} == set(status_names()) - NOT_BY_CONTENT


def test_no_prefix_is_accepted(check_files) -> None:
    """Cut anywhere, as it is and with a header that claims the shorter size."""
    whole = every_operator().to_bytes()
    cut = [whole[:n] for n in range(len(whole))]
    assert {v.status for v in check_files(cut)} == {"TRUNCATED"}
    claimed = [seal(d[:16] + len(d).to_bytes(4, "little") + d[20:]) for d in cut[f.HEADER_SIZE :]]
    assert "OK" not in {v.status for v in check_files(claimed)}


FREE = {
    ("header", "minor"),  # readers accept any
    ("header", "arena_size"),  # more than the plan needs
    ("tensor", "storage_slot"),  # another slot, or a wider storage where there is room
    ("tensor", "lo"),  # a wider claim that everything behind can live with
    ("tensor", "hi"),
    ("tensor", "arena_offset"),  # another free place
    ("operator", "flags"),  # a group cut where nothing is virtual
    ("operator", "window"),  # geometry that gives the same extents
    ("operator", "stride"),
    ("operator", "dilation"),
    ("operator", "padding"),
    ("operator", "parameter"),  # a larger shift
    ("operator", "first"),  # levels and limits within the claims
    ("operator", "second"),
}
"""Fields where a changed byte may leave a valid file, of another network. The rest of the file implies all others."""


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_changed_byte_is_noticed(check_files, flip: int) -> None:
    """With the checksum put right: wherever the file says one thing twice, the loader compares."""
    whole = every_operator().to_bytes()
    changed = [seal(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :]) for i in range(len(whole))]
    verdicts = check_files(changed)
    in_records = range(field_places(whole)[-1][0] + 1)
    accepted = {field_at(whole, i) for i in in_records if verdicts[i].status == "OK" and changed[i] != whole}
    assert accepted <= FREE
    assert sum(v.status == "OK" for v in verdicts) < len(whole) // 2


def field_places(data: bytes) -> list[tuple[int, str, str]]:
    """(last byte, record, field) of every field of header, tensor and operator records, in order."""
    header = np.frombuffer(data[: f.HEADER_SIZE], f.HEADER)[0]
    kinds = [
        ("header", f.HEADER, 1),
        ("tensor", f.TENSOR, header["tensor_count"]),
        ("operator", f.OPERATOR, header["op_count"]),
    ]
    places, start = [], 0
    for kind, dtype, count in kinds:
        for _ in range(count):
            for name in dtype.names or ():
                of_field, offset = dtype.fields[name][:2]
                places.append((start + offset + of_field.itemsize - 1, kind, name))
            start += dtype.itemsize
    return places


def field_at(data: bytes, at: int) -> tuple[str, str]:
    return next((kind, name) for last, kind, name in field_places(data) if at <= last)


def test_the_reader_in_python_refuses_the_same() -> None:
    parse_packed(every_operator().to_bytes())
    accepted = []
    for name, hostile in HOSTILE.items():
        try:
            parse_packed(hostile.make())
        except ArtifactError:
            continue
        accepted.append(name)
    assert accepted == []


@pytest.mark.parametrize("make", SLOW.values(), ids=SLOW)
def test_no_small_file_takes_long(plain_check_files, make: Callable[[], bytes]) -> None:
    """Files of less than a megabyte that ask for the most comparisons; seconds on a slow processor."""
    data = make()
    assert len(data) < 1 << 20
    began = time.monotonic()
    assert plain_check_files([data]) == [Verdict("OK", -1)]
    assert time.monotonic() - began < 20
