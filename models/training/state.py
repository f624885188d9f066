"""The state of an interrupted training, in a file."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qexport.errors import CheckpointError, OptionError, OutputError

FORMAT = "qexport-training-state-1"


@dataclass(frozen=True, eq=False)
class State:
    """Where a training stands after an epoch.

    Attributes:
        phase: index of the phase.
        epoch: of the phase, counted from 1, finished.
        model, optimizer: their state dicts.
        generator: state of the generator of batches.
        torch_generator: state of torch's own one.
    """

    phase: int
    epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    generator: Tensor
    torch_generator: Tensor


def write_state(path: Path, identity: Mapping[str, Any], state: State) -> None:
    """Write or replace a state file; whole or not at all.

    Args:
        path: its directory must exist.
        identity: what makes a training the same, as plain values.
        state: see State.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = stream.name
            # vars, not asdict: that would copy every tensor.
            torch.save({"format": FORMAT, "identity": dict(identity), "state": vars(state)}, stream)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError("the training state cannot be written", where=str(path), got=error) from error


def read_state(path: Path, identity: Mapping[str, Any]) -> State | None:
    """The state in the file, None where there is no file.

    Raises:
        CheckpointError: the file is no training state.
        OptionError: it is that of another training; the message names what differs.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known, state = dict(content["identity"]), dict(content["state"])
        if content["format"] != FORMAT or set(state) != {f.name for f in fields(State)}:
            raise ValueError("another format")
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            "not a training state", where=str(path), got=str(error).splitlines()[0], remedy="remove the file"
        ) from error
    other = sorted(k for k in {*known, *identity} if known.get(k) != identity.get(k))
    if other:
        raise OptionError(
            "the training state is that of another training",
            where=str(path),
            got="; ".join(f"{k} {known.get(k)}" for k in other),
            expected="; ".join(f"{k} {identity.get(k)}" for k in other),
            remedy="repeat the options it was started with, or remove the file",
        )
    return State(**state)
