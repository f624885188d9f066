"""The extension module: buffers, statuses, threads; what qexport.InferenceSession is made of."""

from __future__ import annotations

import gc
import json
import mmap
import os
import struct
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lowering import lowered_case

from qexport import _runtime
from qexport.backends.packed.reader import parse_packed
from qexport.backends.packed.writer import to_packed
from qexport.reference import interpret

Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def network() -> tuple[bytes, np.ndarray, dict[str, np.ndarray]]:
    """A file, 16 images, and every integer of the reference on them."""
    low, x = lowered_case("shared-module")
    return to_packed(low.graph, metadata={}), x, interpret(low.graph, {"image": x}, keep="*").tensors


def names_in(file: bytes) -> list[str]:
    """Of all tensors, in the order of the file."""
    stored = _runtime.Model(file).metadata
    return json.loads(json.loads(stored if stored[:1] == b"{" else zlib.decompress(stored))["qexport.tensors"])


@pytest.fixture(scope="module")
def file(network: tuple[bytes, np.ndarray, dict[str, np.ndarray]]) -> bytes:
    return network[0]


@pytest.fixture(scope="module")
def arrays(network: tuple[bytes, np.ndarray, dict[str, np.ndarray]], file: bytes) -> Arrays:
    """Images, and the one output the reference gives."""
    _, x, tensors = network
    return x, tensors[names_in(file)[_runtime.Model(file).outputs[0][3]]].astype(np.int32)


def run(model: _runtime.Model, x: np.ndarray) -> np.ndarray:
    found = np.full((len(x), *model.outputs[0][0]), -1, np.int32)
    model.run([x], [found], len(x))
    return found


@pytest.mark.parametrize(
    "hold",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: memoryview(b"x" + data)[1:],
        lambda data: np.frombuffer(bytearray(b"xyz" + data), np.uint8)[3:],
    ],
    ids=["bytes", "bytearray", "memoryview", "array", "misaligned", "misaligned and writable"],
)
def test_any_buffer_holds_a_file(hold: Callable[[bytes], object], file: bytes, arrays: Arrays) -> None:
    x, expected = arrays
    assert np.array_equal(run(_runtime.Model(hold(file)), x), expected)


def test_a_mapped_file(file: bytes, arrays: Arrays, tmp_path: Path) -> None:
    x, expected = arrays
    (tmp_path / "model.qpk").write_bytes(file)
    with (tmp_path / "model.qpk").open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    model = _runtime.Model(mapped)
    with pytest.raises(BufferError):
        mapped.close()  # the model reads it in place
    assert np.array_equal(run(model, x), expected)
    del model
    gc.collect()
    mapped.close()


def test_the_buffer_lives_as_long_as_the_model(file: bytes, arrays: Arrays) -> None:
    x, expected = arrays
    held = np.frombuffer(bytes(bytearray(file)), np.uint8)
    seen = weakref.ref(held)
    model = _runtime.Model(held)
    del held
    gc.collect()
    assert seen() is not None and np.array_equal(run(model, x), expected)
    del model
    gc.collect()
    assert seen() is None


def test_what_was_checked_cannot_change(file: bytes, arrays: Arrays) -> None:
    x, expected = arrays
    writable = bytearray(file)
    model = _runtime.Model(writable)
    writable[64:-64] = bytes(len(writable) - 128)
    writable.clear()  # no buffer is held either
    assert np.array_equal(run(model, x), expected)


@pytest.mark.parametrize("isa", [name for name, available in _runtime.isas() if available])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [0, 1, 3, 16])
def test_batches_and_threads(file: bytes, arrays: Arrays, isa: str, threads: int, batch: int) -> None:
    x, expected = arrays
    model = _runtime.Model(file, isa=isa, threads=threads)
    assert (model.isa, model.threads) == (isa, threads)
    for _ in range(3):
        assert np.array_equal(run(model, x[:batch]), expected[:batch])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_tap_gives_every_tensor(
    network: tuple[bytes, np.ndarray, dict[str, np.ndarray]], arrays: Arrays, threads: int
) -> None:
    file, x, tensors = network
    model = _runtime.Model(file, threads=threads)
    found = [np.full((len(x), *shape), hi + 1, np.int32) for shape, _, hi, _ in model.tensors]
    model.run([x], [np.empty_like(arrays[1])], len(x), found)
    assert (found[0] == 256).all(), "inputs stay as they were"
    for name, array in zip(names_in(file)[1:], found[1:], strict=True):
        assert np.array_equal(array, tensors[name]), name


def test_information(file: bytes) -> None:
    model = _runtime.Model(file)
    assert model.inputs == [((3, 8, 8), 0, 255, 0)] and model.inputs == model.tensors[:1]
    assert [index for *_, index in model.tensors] == list(range(len(model.tensors)))
    assert all(lo <= hi for _, lo, hi, _ in model.tensors)
    assert set(model.outputs) <= set(model.tensors)
    assert len(names_in(file)) == len(model.tensors)
    assert model.arena_size > 0


def test_one_binary_for_every_python() -> None:
    assert Path(_runtime.__file__).name == "_runtime.abi3.so"
    assert _runtime.isas()[0] == ("scalar", True)


def damaged(file: bytes, offset: int, value: int) -> bytes:
    """The file with one byte changed, and the checksum that fits."""
    data = bytearray(file)
    data[offset] = value
    data[20:24] = bytes(4)
    data[20:24] = struct.pack("<I", zlib.crc32(data))
    return bytes(data)


def test_refused_files(file: bytes) -> None:
    def refused(data: bytes) -> tuple[int, str, int]:
        with pytest.raises(_runtime.StatusError) as caught:
            _runtime.Model(data)
        return caught.value.args

    whole = [refused(data) for data in (b"", b"x" * 100, damaged(file, 8, 9), file[:-5], file[:-1] + b"?")]
    assert {at for *_, at in whole} == {2**32 - 1}, "the file as a whole"
    claimed = refused(damaged(file, 64 + 32 + 19, 0x7F))  # the smallest value tensor 1 claims is beyond the largest
    assert claimed[2] == 1
    assert len({status for status, *_ in (*whole, claimed)}) == 5, "short ones share a status"


def test_wrong_arguments(file: bytes, arrays: Arrays) -> None:
    x, expected = arrays
    model = _runtime.Model(file)
    y = np.empty_like(expected)
    size = x[0].size
    for call, error, text in (
        (lambda: model.run([], [y], 16), ValueError, "got 0 inputs, expected 1"),
        (lambda: model.run([x], [y, y], 16), ValueError, "got 2 outputs, expected 1"),
        (lambda: model.run([x], [y], 15), ValueError, f"input 0 has {16 * size} bytes, expected 15 samples of {size}"),
        (lambda: model.run([x[:, :, :, ::2]], [y], 16), ValueError, "contiguous"),
        (lambda: model.run([x], [bytes(y.nbytes)], 16), BufferError, "writable"),
        (lambda: model.run([x], [np.empty(y.nbytes + 1, np.uint8)[1:]], 16), ValueError, "output 0 is not aligned"),
        (lambda: model.run([x], [y], -1), ValueError, "batch is negative"),
        (lambda: model.run([x], [y], 16, [y]), ValueError, "got 1 tensors"),
        (lambda: model.run(3, [y], 16), TypeError, "len"),
        (lambda: model.run([3], [y], 16), TypeError, "bytes-like"),
        (lambda: _runtime.Model("model.qpk"), TypeError, "bytes-like"),
        (lambda: _runtime.Model(file, isa="mmx"), _runtime.StatusError, "instruction set"),
    ):
        with pytest.raises(error, match=text):
            call()


def test_one_model_in_several_threads(file: bytes, arrays: Arrays) -> None:
    check_side_by_side([_runtime.Model(file, threads=2)] * 4, arrays)


def test_several_models_in_threads(file: bytes, arrays: Arrays) -> None:
    check_side_by_side([_runtime.Model(file, threads=n) for n in (1, 1, 2, 3)], arrays)


def check_side_by_side(models: list[_runtime.Model], arrays: Arrays) -> None:
    x, expected = arrays
    wrong: list[str] = []
    start = threading.Barrier(len(models))

    def work(number: int, model: _runtime.Model) -> None:
        start.wait()
        for turn in range(20):
            first, batch = (turn + number) % 8, 1 + (turn * 3 + number) % 8
            if not np.array_equal(run(model, x[first : first + batch]), expected[first : first + batch]):
                wrong.append(f"thread {number}, turn {turn}")

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_gil_is_released(file: bytes, arrays: Arrays) -> None:
    """While run is between its first and its last image this thread looks at the output: with the GIL it could not.

    The longer the batch, the surer this thread gets a turn in between; so it grows until that has happened.
    """
    x, expected = arrays
    never = int(expected.max()) + 1
    model = _runtime.Model(file)
    for repeats in (64, 256, 1024, 4096):
        images = np.tile(x, (repeats, 1, 1, 1))
        found = np.full((len(images), *expected.shape[1:]), never, np.int32)
        first, last = found[0].reshape(-1)[-1:], found[-1].reshape(-1)[-1:]
        thread = threading.Thread(target=model.run, args=([images], [found], len(images)))
        thread.start()
        seen = False
        while last[0] == never:
            seen = seen or (first[0] != never and last[0] == never)
            time.sleep(0)
        thread.join()
        assert np.array_equal(found[-16:], expected)
        if seen:
            return
    pytest.fail("no other thread ran during a run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_process_runs_a_session_of_its_parent(file: bytes, arrays: Arrays, tmp_path: Path) -> None:
    """Threads do not survive fork; a child that waited for them would never end."""
    x, expected = arrays
    (tmp_path / "model.qpk").write_bytes(file)
    np.savez(tmp_path / "arrays.npz", x=x, expected=expected)
    program = """
import os, sys, signal
import numpy as np
from qexport import _runtime
model = _runtime.Model(open("model.qpk", "rb").read(), threads=3)
arrays = np.load("arrays.npz")
x, expected = arrays["x"], arrays["expected"]
def check():
    y = np.zeros_like(expected)
    model.run([x], [y], len(x))
    return np.array_equal(y, expected)
assert check()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if check() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not check())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, check=True, timeout=120)


def test_nothing_leaks(file: bytes, arrays: Arrays) -> None:
    """References of what is passed in are given back, in success and failure."""
    x, expected = arrays
    y = np.empty_like(expected)
    model = _runtime.Model(file, threads=2)
    whole = bytes(bytearray(file))
    before = [sys.getrefcount(o) for o in (x, y, whole)]
    for _ in range(50):
        model.run([x], [y], 16)
        with pytest.raises(ValueError, match="expected 3 samples"):
            model.run([x], [y], 3)
        _runtime.Model(whole, threads=2).run([x], [y], 16)
        with pytest.raises(_runtime.StatusError):
            _runtime.Model(whole[:-1])
    assert [sys.getrefcount(o) for o in (x, y, whole)] == before


@pytest.mark.parametrize("threads", [1, 3])
def test_times_are_added_to_the_last_tensor_of_each_group(file: bytes, arrays: Arrays, threads: int) -> None:
    x, expected = arrays
    model = _runtime.Model(file, threads=threads)
    count = len(model.tensors)
    times, found = np.zeros(count + 1, np.int64), np.empty_like(expected)
    model.run([x], [found], len(x), times=times)
    assert np.array_equal(found, expected)
    groups = {len(model.inputs) - 1, *last_of_groups(file), count}
    assert set(np.flatnonzero(times).tolist()) <= groups
    assert times[times > 0].size > 2
    before = times.copy()
    model.run([x], [found], len(x), times=times)
    assert np.all(times[before > 0] > before[before > 0]), "a second run adds"


def last_of_groups(file: bytes) -> list[int]:
    """Tensors whose operator the next one does not join, from the records of the file (docs/packed-format.md)."""
    sections = parse_packed(file).sections
    joins = [bool(record["flags"] & 1) for record in sections.ops] + [False]
    return [sections.inputs + k for k in range(len(sections.ops)) if not joins[k + 1]]


def test_an_array_for_times_of_the_wrong_size_is_refused(file: bytes, arrays: Arrays) -> None:
    x, expected = arrays
    model = _runtime.Model(file)
    with pytest.raises(ValueError, match="times 0 has"):
        model.run([x], [np.empty_like(expected)], len(x), times=np.zeros(len(model.tensors), np.int64))


@pytest.mark.parametrize("isa", [name for name, available in _runtime.isas() if available])
def test_every_instruction_set_has_a_peak(isa: str) -> None:
    done = _runtime.peak_products(isa, 1_000_000)
    assert 1_000_000 <= done < 2_000_000


def test_a_peak_of_an_instruction_set_that_is_not_here_is_refused() -> None:
    with pytest.raises(ValueError, match="no_such_set is not available"):
        _runtime.peak_products("no_such_set", 1)
