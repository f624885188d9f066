"""The README is true: its commands parse, its links exist, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from qexport.cli.main import main
from qexport.cli.options import given
from qexport.conversion.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in README.splitlines() if line.startswith("    qexport ")]
LINKS = re.findall(r"\]\((?!http)([^)#]+)\)", README)
TARGETS = re.findall(r"`make ([a-z-]+)`|^    make ([a-z-]+)$", README, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    assert isinstance(main, click.Group)
    command = main.commands[name]
    context = command.make_context(name, arguments)
    assert context.params
    if name == "convert":
        own = given({k: v for k, v in context.params.items() if k in Settings.__dataclass_fields__})
        Settings(**own)


def test_there_are_commands_for_every_verb() -> None:
    assert {shlex.split(line)[1] for line in COMMANDS} == set(main.commands)


@pytest.mark.parametrize("link", LINKS)
def test_links_exist(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", sorted({a or b for a, b in TARGETS}))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_options_of_the_tables_exist() -> None:
    documented = set(re.findall(r"`(--[a-z-]+)", README))
    known = {option for command in main.commands.values() for p in command.params for option in p.opts}
    assert documented <= known


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both Python blocks, on the demo network and the digits it was not trained on."""
    digits_data = pytest.importorskip("qexport.models.digits_data")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.chdir(tmp_path)
    images, labels = digits_data.load_digits_split("test")
    digits_data.write_npz(tmp_path / "images.npz", images=images[:32], labels=labels[:32])
    (tmp_path / "ckpt.pt").write_bytes((ROOT / "models" / "checkpoints" / "digits_w2a2.pt").read_bytes())
    scope = {"pixels": images[:4].transpose(0, 3, 1, 2)}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, scope)
    assert scope["logits"].shape == (4, 10)  # type: ignore[attr-defined]
