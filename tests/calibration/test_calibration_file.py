"""calibration.json: exact, readable, and refused where it does not belong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexport.calibration import Calibration
from qexport.calibration.calibration import Cost, Source
from qexport.errors import ArtifactError, OptionError

SOURCE = Source("net.pth", "ab" * 32, (3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FULL = Calibration(
    ranges={"relu": (0.0, 0.1 + 0.2), "layer.add": (-1e-30, 2.5)},
    streams={"sum": (-3.0, 1 / 3)},
    act_bits=8,
    bits_of={"relu": 4},
    method="mse",
    images=256,
    source=SOURCE,
    sensitivity=(
        Cost("activation", "relu", 4, 20.5, 31.25, 98.4, "--act-bits 5"),
        Cost("weights", "fc", 8, None, None, None, ""),
    ),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
RANGES = st.dictionaries(st.text(), st.tuples(FINITE, FINITE).map(lambda r: (min(r), max(r))))


def test_the_text_is_read_back_as_it_was() -> None:
    assert Calibration.from_json(FULL.to_json()) == FULL
    bare = Calibration({}, {}, 8)
    assert Calibration.from_json(bare.to_json()) == bare


@given(RANGES, RANGES, st.integers(1, 8), st.integers(0, 10**6))
def test_any_range_keeps_its_exact_value(ranges: dict, streams: dict, bits: int, images: int) -> None:
    calibration = Calibration(ranges, streams, bits, method="max", images=images)
    assert Calibration.from_json(calibration.to_json()) == calibration


def test_it_is_small_and_readable() -> None:
    lines = FULL.to_json().splitlines()
    assert '  "relu": {"lo": 0.0, "hi": 0.30000000000000004, "bits": 4},' in lines
    assert '  "sum": {"lo": -3.0, "hi": 0.3333333333333333}' in lines
    assert len(lines) < 24 and json.loads(FULL.to_json())["source"]["sha256"] == SOURCE.sha256


def test_bits_and_origin() -> None:
    assert (FULL.bits("relu"), FULL.bits("layer.add")) == (4, 8)
    assert FULL.describe() == "256 images, method mse"


DAMAGE = {
    "no object": ("[]", "a JSON list where an object belongs"),
    "no JSON": ("{", "Expecting property name"),
    "empty": ("", "Expecting value"),
    "no format": ("{}", "no entry 'format'"),
    "deep": ("[" * 100_000, ""),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_texts_that_are_no_calibration(name: str) -> None:
    text, reason = DAMAGE[name]
    with pytest.raises(ArtifactError, match="the calibration file cannot be read") as caught:
        Calibration.from_json(text)
    assert reason in str(caught.value) and "remedy:   write it with qexport calibrate" in str(caught.value)


CHANGES = {
    "another format": ({"format": "qpk"}, "format 'qpk', version 1"),
    "a later version": ({"version": 2}, "version 2"),
    "bits beyond 8": ({"ranges": {"a": {"lo": 0, "hi": 1, "bits": 9}}}, "9 bits"),
    "bits that are no number": ({"act_bits": "8"}, "'8' bits"),
    "bits that are a truth value": ({"act_bits": True}, "True bits"),
    "a reversed range": ({"ranges": {"a": {"lo": 1, "hi": 0, "bits": 8}}}, "a range from 1.0 to 0.0"),
    "an infinite range": ({"streams": {"a": {"lo": 0, "hi": float("inf")}}}, "a range from 0.0 to inf"),
    "a range without an end": ({"streams": {"a": {"lo": 0}}}, "no entry 'hi'"),
    "ranges in a list": ({"ranges": [1]}, "'ranges' is no JSON object"),
    "a range of texts": ({"streams": {"a": {"lo": "0", "hi": "1"}}}, "the range of 'a' needs numbers"),
    "a source without hash": ({"source": {"file": "x"}}, "input_shape"),
    "an unknown entry of the source": (
        {"source": {"more": 1, "input_shape": [], "mean": [], "std": []}}, "unexpected keyword"
    ),
    "a cost without a name": ({"sensitivity": [{}]}, "missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    change, reason = CHANGES[name]
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(json.loads(FULL.to_json()) | change))
    with pytest.raises(ArtifactError) as caught:
        Calibration.load(path)
    assert f"{path}: the calibration file cannot be read" in str(caught.value)
    assert reason in str(caught.value), caught.value


def test_it_fits_its_own_checkpoint_only() -> None:
    FULL.check_source(SOURCE)
    FULL.check_source(replace(SOURCE, file="copy.pth"))
    with pytest.raises(OptionError, match="made from another checkpoint") as caught:
        FULL.check_source(replace(SOURCE, sha256="cd" * 32))
    for part in ("--calibration: ", "net.pth, sha256 abababab", "cdcdcdcd", "remedy:   calibrate this checkpoint"):
        assert part in str(caught.value)
    for name, value in {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "input_shape": (3, 64, 64)}.items():
        with pytest.raises(OptionError, match=f"another {name.replace('_', ' ')}"):
            FULL.check_source(replace(SOURCE, **{name: value}))


def test_a_model_in_memory_has_no_hash_to_compare() -> None:
    from_memory = replace(FULL, source=replace(SOURCE, file="", sha256=""))
    from_memory.check_source(SOURCE)
    with pytest.raises(OptionError, match="another mean"):
        from_memory.check_source(replace(SOURCE, mean=(0.0, 0.0, 0.0)))
