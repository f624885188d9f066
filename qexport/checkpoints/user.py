"""A user's own network: built by their factory, filled from a plain state dict."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from qexport.checkpoints.checkpoint import Loaded, LoadOptions
from qexport.checkpoints.reading import FileContent
from qexport.checkpoints.registry import Family, describe, register
from qexport.checkpoints.tensors import clean_state_dict, find_state_dict, fit, names_of
from qexport.errors import CheckpointError, OptionError
from qexport.models.quantizers import SoftQuantizer

_FORM = "package.module:factory, a callable without arguments that returns an nn.Module"


def _load(content: FileContent, options: LoadOptions) -> Loaded:
    if options.model is None:
        raise OptionError("the family 'user' needs your network", remedy=f"give --model {_FORM}")
    factory = import_factory(options.model) if isinstance(options.model, str) else options.model
    name = options.model if isinstance(options.model, str) else getattr(factory, "__qualname__", type(factory).__name__)
    model = _call(factory, name).float()
    raw = find_state_dict(content.value)
    if raw is None:
        raise CheckpointError(
            "the file has no state dict",
            where=str(content.path),
            got=describe(content.value),
            expected="a dict of tensors, or one under the key state_dict, model_state_dict, model or net",
        )
    tensors, notes = clean_state_dict(raw, content)
    fit(model, tensors, content)
    return Loaded(model=model, arch=name, notes=notes, quantizer_types=quantizer_types(model, options.quantizers))


def import_factory(name: str) -> Callable[[], nn.Module]:
    """Import "package.module:factory"; modules in the working directory are found too.

    Raises:
        OptionError: the name is malformed, or the import fails.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise OptionError("--model is malformed", got=name, expected=_FORM)
    try:
        with _working_directory_importable():
            found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise OptionError(
            "the network's factory cannot be imported",
            where=f"--model {name}",
            got=f"{type(error).__name__}: {error}",
            expected=_FORM,
            remedy="run from the directory that holds the package, or install it",
        ) from error
    if not callable(found):
        raise OptionError(
            "the factory is not callable", where=f"--model {name}", got=type(found).__name__, expected=_FORM
        )
    return found


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """An installed command does not have the working directory on its path, `python -m` does."""
    entry = str(Path.cwd())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _call(factory: Callable[[], nn.Module], name: str) -> nn.Module:
    try:
        model = factory()
    except Exception as error:  # the user's code may fail in any way
        raise OptionError(
            "the network's factory failed",
            where=f"--model {name}",
            got=f"{type(error).__name__}: {error}",
            expected=_FORM,
        ) from error
    if not isinstance(model, nn.Module):
        raise OptionError(
            "the factory returned no network", where=f"--model {name}", got=type(model).__name__, expected=_FORM
        )
    return model


def quantizer_types(model: nn.Module, names: tuple[str, ...]) -> tuple[type[nn.Module], ...]:
    """The classes among the model's modules that `names` mean: Class, module.Class or module:Class.

    Raises:
        OptionError: a name fits no module's class; the message lists the classes there are.
    """
    present = {type(module) for module in model.modules()} - {type(model)}
    found: list[type[nn.Module]] = []
    for name in names:
        dotted = name.replace(":", ".")
        fitting = [kind for kind in present if dotted in (kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}")]
        if not fitting:
            raise OptionError(
                "no module of the network is of this quantizer class",
                where=f"--quantizer {name}",
                expected=f"one of {names_of(f'{kind.__module__}.{kind.__qualname__}' for kind in present)}",
            )
        found += [kind for kind in fitting if not issubclass(kind, SoftQuantizer)]
    return tuple(dict.fromkeys(found))


register(
    Family(
        name="user",
        sign="never recognised by itself; chosen by --model package.module:factory",
        recognises=lambda content: False,
        load=_load,
        options=frozenset({"model", "quantizers"}),
    )
)
