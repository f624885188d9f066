"""The page of `qexport embed --target wasm` in headless Chromium: real images, equal outputs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_program import TIMEOUT, chromium, served
from embedded_program import HERE, run
from PIL import Image

from qexport.backends.packed.reader import read_packed
from qexport.conversion import convert
from qexport.embed import embed
from qexport.models.digits_data import load_digits_split
from qexport.reference import interpret

DEMO = HERE.parents[1] / "models" / "checkpoints" / "digits_w2a2.pt"
SHOWN = 8
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the demo's network."""
    folder = tmp_path_factory.mktemp("demo")
    model = convert(DEMO, folder, bits=2, formats=("qpk",)).files["qpk"]
    embed(model, folder / "site", target="wasm", name="digits")
    return folder / "site"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Handwritten digits that the network was not trained on, as PNG files."""
    folder = tmp_path_factory.mktemp("digits")
    pixels, _ = load_digits_split("test")
    paths = [folder / f"{i}.png" for i in range(6)]
    for path, image in zip(paths, pixels, strict=False):
        Image.fromarray(image.reshape(8, 8)).save(path)
    return paths


def until_ready(browser: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, TIMEOUT).until(
        lambda b: b.execute_script("return document.body?.dataset.state === 'ready' && !document.hidden")
    )


@pytest.fixture
def page(browser: Any, demo: Path) -> Iterator[Any]:
    """The demo's page, loaded; no message may be left in the browser's log that a test does not expect."""
    with served(demo) as address:
        browser.get_log("browser")
        browser.get(address)
        until_ready(browser)
        yield browser


def choose(page: Any, control: str, path: Path) -> None:
    page.execute_script("document.body.dataset.state = 'waiting'")
    page.find_element("id", control).send_keys(str(path))
    until_ready(page)


def drop(page: Any, *paths: Path) -> None:
    """Files dropped on the page together."""
    files = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]
    page.execute_script(
        "document.body.dataset.state = 'waiting';"
        "const transfer = new DataTransfer();"
        "for (const [name, bytes] of arguments[0])"
        "  transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));"
        "const how = { bubbles: true, cancelable: true, dataTransfer: transfer };"
        "document.body.dispatchEvent(new DragEvent('drop', how));",
        files,
    )
    until_ready(page)


def shown(page: Any) -> list[tuple[str, int]]:
    """Labels and integers of the classes on the page, in their order."""
    script = "const label = (li) => li.querySelector('.label').textContent;"
    script += "return [...document.querySelectorAll('#classes li')].map((li) => [label(li), li.dataset.integer])"
    return [(label, int(integer)) for label, integer in page.execute_script(script)]


def expected(model: Path, pixels: np.ndarray) -> list[tuple[str, int]]:
    """What the reference says of an image [C, H, W]."""
    packed = read_packed(model)
    graph = packed.to_graph()
    (name,) = graph.inputs
    row = interpret(graph, {name: pixels[None].astype(np.int64)}).outputs[graph.outputs[0]][0]
    names = json.loads(packed.metadata.get("qexport.class_names", "null")) or [f"class {i}" for i in range(len(row))]
    return [(names[i], int(row[i])) for i in np.argsort(-row, kind="stable")[:SHOWN]]


def test_digits(page: Any, demo: Path, images: list[Path]) -> None:
    for path in images:
        choose(page, "choose-image", path)
        assert shown(page) == expected(demo / "digits.qpk", np.asarray(Image.open(path))[None])
    assert " ms a run" in page.find_element("id", "time").text
    assert f"8 {TIMES} 8 pixels, as they are" in page.find_element("id", "note").text
    assert page.get_log("browser") == [], "the page must not complain, its content security policy included"


def test_same_as_the_command(page: Any, demo: Path, images: list[Path]) -> None:
    drop(page, images[0])
    done = run([sys.executable, "-m", "qexport", "run", demo / "digits.qpk", "--input", images[0], "--json"])
    (classes,) = json.loads(done.stdout)
    assert shown(page)[:5] == [(c["name"], c["integer"]) for c in classes]


def test_colour_image_and_another_network(page: Any, data_dir: Path, tmp_path: Path) -> None:
    """A published checkpoint and images of its test set, dropped together."""
    model = convert(
        data_dir / "checkpoints" / "daq" / "cifar10_W1A1.pth",
        tmp_path,
        bits=1,
        formats=("qpk",),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ).files["qpk"]
    with np.load(data_dir / "cifar10" / "test.npz") as file:
        pixels = file["images"][:3]
    for i, image in enumerate(pixels):
        path = tmp_path / f"{i}.png"
        Image.fromarray(image).save(path)
        drop(page, path, *([model] if i == 0 else []))
        assert shown(page) == expected(model, image.transpose(2, 0, 1))
    assert page.get_log("browser") == []


def test_another_size_is_scaled_and_said(page: Any, images: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.open(images[0]).resize((160, 80)).save(large)
    choose(page, "choose-image", large)
    assert f"scaled from 160 {TIMES} 80 to 8 {TIMES} 8 pixels" in page.find_element("id", "note").text
    assert len(shown(page)) == SHOWN


def test_errors_are_shown_and_go_away(page: Any, demo: Path, images: list[Path], tmp_path: Path) -> None:
    damaged, text = tmp_path / "damaged.qpk", tmp_path / "note.txt"
    data = bytearray((demo / "digits.qpk").read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    text.write_text("no image")
    error = page.find_element("id", "error")
    choose(page, "choose-image", images[0])
    before = shown(page)
    drop(page, damaged)
    assert "QXR_ERROR_CRC" in error.text and "checksum" in error.text
    drop(page, text)
    assert "note.txt is neither an image" in error.text
    assert shown(page) == before, "the network from before is still there"
    drop(page, images[1])
    assert not error.is_displayed() and shown(page) != before


def test_needs_no_other_server(page: Any, demo: Path, images: list[Path]) -> None:
    """Everything the page asks for lies in the directory."""
    choose(page, "choose-image", images[0])
    asked = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    origin = page.execute_script("return location.origin + '/'")
    names = {name.removeprefix(origin) for name in asked}
    assert names == {"page.css", "page.js", "qxr.js", "qxr.wasm", "digits.qpk"}
    assert all((demo / name).is_file() for name in names)
