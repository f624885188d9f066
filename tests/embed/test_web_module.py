"""The WebAssembly module and its JavaScript API, in Node.js: equal outputs, named errors, nothing else imported."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from embedded_program import HERE, expected_outputs, run
from lowering import lowered_case
from networks import CASES
from packed_networks import GOLDEN, pixels
from web_program import ISAS, node, run_script, run_site, write_site

from qexport.embed import embed
from qexport.ir import Graph
from qexport.ops import Clip

ROOT = HERE.parents[1]
MODULE = ROOT / "qexport" / "embed" / "web" / "qxr.wasm"
MOST_BYTES = 60_000

QUICK = {"linear-stack", "two-outputs", "sign-zero-padding"}


def check(graph: Graph, feeds: dict[str, np.ndarray], folder: Path) -> None:
    """Every kernel set gives what the reference gives."""
    site, expected = write_site(graph, folder), expected_outputs(graph, feeds)
    for isa in ISAS:
        assert np.array_equal(run_site(site, isa, [feeds[name] for name in graph.inputs]), expected), isa


@pytest.mark.parametrize("name", GOLDEN)
def test_every_operator_and_form_of_weights(name: str, tmp_path: Path) -> None:
    graph = GOLDEN[name]()
    rng = np.random.default_rng(5)
    check(graph, {n: rng.integers(0, 256, (3, *t.shape)) for n, t in graph.inputs.items()}, tmp_path)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_networks(name: str, tmp_path: Path) -> None:
    low, images = lowered_case(name, 1)
    check(low.graph, {"image": images}, tmp_path)


def test_module_is_small_and_needs_nothing(tmp_path: Path) -> None:
    assert MODULE.stat().st_size < MOST_BYTES
    script = f"const m = new WebAssembly.Module(require('fs').readFileSync({json.dumps(str(MODULE))}));"
    done = run([node(), "-e", script + "console.log(JSON.stringify(WebAssembly.Module.imports(m)))"])
    assert json.loads(done.stdout) == []


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the compiler (ziglang) is not installed")
def test_committed_module_is_built_from_these_sources(tmp_path: Path) -> None:
    """`make wasm` builds it anew."""
    specification = importlib.util.spec_from_file_location("build", ROOT / "runtime" / "wasm" / "build.py")
    assert specification is not None and specification.loader is not None
    builder = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(builder)
    builder.build(tmp_path / "qxr.wasm")
    assert (tmp_path / "qxr.wasm").read_bytes() == MODULE.read_bytes(), "the runtime has changed: make wasm"


def test_names_of_statuses_are_those_of_the_header() -> None:
    header = (ROOT / "runtime" / "include" / "qxr.h").read_text()
    wrapper = (MODULE.parent / "qxr.js").read_text()
    listed = re.search(r"STATUS_NAMES = `(.*?)`", wrapper, re.S)
    assert listed is not None
    names = re.findall(r"^    QXR_(?:ERROR_)?([A-Z_]+?)(?: = 0)?,", header, re.M)
    assert names[0] == "OK" and listed[1].split() == names


DAMAGE = {
    "QXR_ERROR_TRUNCATED": "file().slice(0, 40)",
    "QXR_ERROR_MAGIC": "new Uint8Array(200)",
    "QXR_ERROR_CRC": "file().fill(1, 100, 101)",
    "QXR_ERROR_VERSION": "file().fill(9, 8, 9)",
}


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    site = write_site(GOLDEN["stream"](), tmp_path)
    for status, file in DAMAGE.items():
        script = f"try {{ await load({file}); console.log(0) }} catch (e) "
        script += "{ console.log(JSON.stringify([e instanceof QxrError, e.status, e.tensor, e.message])) }"
        assert run_script(site, script)[:3] == [True, status, None]


def test_failures_name_the_tensor(tmp_path: Path) -> None:
    """A claim that does not hold, with a checksum that does."""
    import zlib

    site = write_site(GOLDEN["stream"](), tmp_path)
    data = bytearray((site / "model.qpk").read_bytes())
    data[64 + 32 + 20 : 64 + 32 + 24] = (1).to_bytes(4, "little")  # hi of the first result
    data[20:24] = bytes(4)
    data[20:24] = zlib.crc32(data).to_bytes(4, "little")
    (site / "model.qpk").write_bytes(data)
    script = "try { await load(file()) } catch (e) { console.log(JSON.stringify([e.status, e.tensor])) }"
    assert run_script(site, script) == ["QXR_ERROR_RANGE", 1]


def test_what_a_model_says_about_itself(tmp_path: Path) -> None:
    outputs = [{"name": "logits", "scale": 0.125}]
    site = write_site(GOLDEN["stream"](), tmp_path, class_names=["a", "b", "c"], outputs=outputs)
    script = (
        "const m = await load(file());"
        "const y = m.run(new Uint8Array(32).fill(7));"
        "const ran = y.map((o) => [o.name, o.scale, o.integers.length]);"
        "console.log(JSON.stringify([m.inputs, m.outputs, m.classNames, ran,"
        " ranked({ ...y[0], integers: [3, 9, 9] }, m.classNames, 2)]))"
    )
    inputs, described, classes, ran, best = run_script(site, script)
    assert inputs == [{"name": "image", "shape": [2, 4, 4], "elements": 32, "range": [0, 255]}]
    assert [(o["name"], o["shape"], o["scale"]) for o in described] == [
        ("logits", [3], 0.125),
        ("narrow", [2, 4, 4], None),
    ]
    assert classes == ["a", "b", "c"] and ran == [["logits", 0.125, 3], ["narrow", None, 32]]
    assert best == [
        {"index": 1, "label": "b", "integer": 9, "value": 1.125},
        {"index": 2, "label": "c", "integer": 9, "value": 1.125},
    ]


REFUSED = {
    "m.run(new Uint8Array(31))": "31 bytes given, expected 32 (2 x 4 x 4)",
    "m.run([])": "0 inputs given, the network takes 1",
    "m.run({ data: new Uint8Array(64), width: 4, height: 4 })": "images have 1, 3 or 4 channels, the network takes 2",
    "m.run({ data: new Uint8Array(64), width: 8, height: 2 })": "an image of 8 x 2, the network takes 4 x 4",
    "(m.free(), m.run(new Uint8Array(32)))": "this model has been freed",
}


@pytest.mark.parametrize("call", REFUSED)
def test_inputs_that_do_not_fit(call: str, tmp_path: Path) -> None:
    site = write_site(GOLDEN["stream"](), tmp_path)
    refused = "console.log(JSON.stringify([e.status, e.message]))"
    script = f"const m = await load(file()); try {{ {call} }} catch (e) {{ {refused} }}"
    status, message = run_script(site, script)
    assert status == "QXR_ERROR_ARGUMENT" and REFUSED[call] in message


def test_unknown_kernels_are_refused(tmp_path: Path) -> None:
    site = write_site(GOLDEN["stream"](), tmp_path)
    script = "try { await load(file(), { isa: 'avx2' }) } catch (e) { console.log(JSON.stringify(e.status)) }"
    assert run_script(site, script) == "QXR_ERROR_ISA"


def test_models_side_by_side_do_not_share_memory(tmp_path: Path) -> None:
    """And a model's earlier outputs stay as they were."""
    site = write_site(GOLDEN["stream"](), tmp_path)
    script = (
        "const a = await load(file()), b = await load(file());"
        "const x = new Uint8Array(32).map((_, i) => 8 * i), y = new Uint8Array(32).fill(3);"
        "const first = a.run(x)[0].integers, kept = [...first], other = b.run(y)[0].integers;"
        "a.run(y);"
        "const all = [kept, first, a.run(x)[0].integers, other, b.run(y)[0].integers];"
        "console.log(JSON.stringify(all.map((one) => [...one])))"
    )
    kept, first, again, other, other_again = run_script(site, script)
    assert kept == first == again and other == other_again and kept != other


def test_grey_images_as_pillow_makes_them(tmp_path: Path) -> None:
    from PIL import Image

    site = write_site(GOLDEN["stream"](), tmp_path)
    colours = np.random.default_rng(1).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    colours[..., 3] = 255
    (site / "colours.raw").write_bytes(colours.tobytes())
    script = (
        "const data = new Uint8ClampedArray(fs.readFileSync('colours.raw'));"
        "const of = (n) => [...pixelsOf({ data, width: 16, height: 16 }, [n, 16, 16])];"
        "console.log(JSON.stringify([of(1), of(3)]))"
    )
    grey, rgb = run_script(site, script)
    image = Image.fromarray(colours[..., :3])
    assert grey == np.asarray(image.convert("L")).ravel().tolist()
    assert rgb == colours[..., :3].transpose(2, 0, 1).ravel().tolist()


def test_texts_of_the_metadata_stay_texts(tmp_path: Path) -> None:
    """No file of the directory but the network itself holds them as they are."""
    graph = pixels(3, 2, 2)
    graph.add("</script><b>", Clip(1, 200), "image")
    graph.outputs = ["</script><b>"]
    site = write_site(graph, tmp_path, architecture="<script>alert(1)</script>", class_names=["<b>bold</b>"])
    for file in site.iterdir():
        if file.suffix not in (".qpk", ".wasm"):
            text = file.read_text(encoding="utf-8")
            assert "<script>alert" not in text and "<b>" not in text, file.name


def test_equal_files_give_equal_directories(tmp_path: Path) -> None:
    model = write_site(GOLDEN["stream"](), tmp_path) / "network.qpk"
    for name in ("a", "b"):
        values = embed(model, tmp_path / name, target="wasm")
        assert sorted(values["files"]) == sorted(file.name for file in (tmp_path / name).iterdir())
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
