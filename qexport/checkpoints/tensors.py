"""From the tensors of an untrusted file to a network's state: clean, compare by name and shape, load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from qexport.checkpoints.reading import FileContent
from qexport.errors import CheckpointError

WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

COUNTER = "num_batches_tracked"
"""Batch norm's counter: unused in evaluation, absent from files older than PyTorch 0.4.1."""

_MOST_NAMES = 20


def names_of(names: Iterable[str]) -> str:
    """The names, sorted and comma separated; beyond 20 only their number."""
    ordered = sorted(names)
    rest = len(ordered) - _MOST_NAMES
    return ", ".join(ordered[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def find_state_dict(value: object) -> Mapping[str, object] | None:
    """The mapping from names to tensors inside what a file holds: itself, or under a customary key; None if absent."""
    if not isinstance(value, Mapping):
        return None
    if value and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        return value
    for key in ("state_dict", "model_state_dict", "model", "net"):
        inner = value.get(key)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            return inner
    return None


def clean_state_dict(raw: Mapping[str, object], content: FileContent) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Strip wrapper prefixes, make every tensor contiguous, floats float32.

    Returns:
        (tensors by name, notes in plain words about what was changed).

    Raises:
        CheckpointError: an entry is no dense real CPU tensor, is empty, or claims more elements than the file holds.
    """
    notes = []
    names = list(raw)
    for prefix in WRAPPER_PREFIXES * 2:
        if names and all(isinstance(name, str) and name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
            notes.append(f"removed the prefix {prefix!r} from every tensor name")
    tensors = {name: clean_tensor(value, name, content) for name, value in zip(names, raw.values(), strict=True)}
    kinds = {str(v.dtype) for v in raw.values() if isinstance(v, Tensor) and v.is_floating_point()} - {"torch.float32"}
    if kinds:
        notes.append(f"converted tensors of type {names_of(kinds)} to torch.float32")
    return tensors, tuple(notes)


def clean_tensor(value: object, name: str, content: FileContent) -> Tensor:
    """One tensor of an untrusted file, detached, contiguous, float32 if it is floating point.

    Raises:
        CheckpointError: as for clean_state_dict.
    """
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise CheckpointError(
            "an entry of the state dict is no named tensor",
            where=str(content.path),
            got=f"{name!r}: {type(value).__name__}",
        )
    dense = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not dense or value.is_complex():
        raise CheckpointError(
            "the tensor is not a dense real one",
            where=f"{content.path}: {name}",
            got=f"{value.dtype}, layout {value.layout}, device {value.device}",
            expected="float or integer numbers, dense",
        )
    # A view with stride 0 may claim any shape at no cost in the file; copying it would not be free.
    if value.numel() == 0 or value.numel() * value.element_size() > content.n_bytes:
        raise CheckpointError(
            "the tensor's shape does not fit the file",
            where=f"{content.path}: {name}",
            got=f"shape {list(value.shape)}",
            expected=f"at least one element, and no more than the file's {content.n_bytes} bytes hold",
        )
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).contiguous()


def describe_tensor(tensor: Tensor) -> str:
    """Kind and shape, such as "float [16, 3, 3, 3]"."""
    return f"{'float' if tensor.is_floating_point() else 'integer'} {list(tensor.shape)}"


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError that names every tensor holding NaN or infinity, with their number."""
    bad = {n: int((~torch.isfinite(t)).sum()) for n, t in tensors.items() if t.is_floating_point()}
    found = [f"{name} ({count})" for name, count in bad.items() if count]
    if found:
        raise CheckpointError(
            "tensors hold NaN or infinite values",
            where=where,
            got=names_of(found),
            expected="finite numbers",
            remedy="use a checkpoint from before training diverged",
        )


def fit(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    content: FileContent,
    *,
    file_name: Callable[[str], str] = str,
    unused: Callable[[str], bool] = lambda name: False,
) -> None:
    """Load `tensors` into `model`, exactly: every tensor of the model is set, every tensor of the file is used.

    A model built on the meta device takes the file's tensors over, so that nothing is allocated before all shapes
    were compared.

    Args:
        model: changed in place.
        tensors: clean tensors by the file's names.
        content: the file, for messages.
        file_name: from a name in the model to the name in the file.
        unused: which names of the file may be left over.

    Raises:
        CheckpointError: missing or surplus tensors, or other shapes, by name; NaN or infinity.
    """
    state = model.state_dict()
    wanted = {file_name(name): name for name in state}
    missing = [name for name in wanted if name not in tensors and not name.endswith(COUNTER)]
    surplus = [name for name in tensors if name not in wanted and not name.endswith(COUNTER) and not unused(name)]
    if missing or surplus:
        parts = [f"missing: {names_of(missing)}"] * bool(missing) + [f"surplus: {names_of(surplus)}"] * bool(surplus)
        raise CheckpointError(
            "the tensors in the file are not those of the network",
            where=str(content.path),
            got="; ".join(parts),
            expected=f"the {len(wanted)} tensors of {type(model).__name__}",
            remedy="check --family, --arch or --model: the file seems to belong to another network",
        )
    used = {name: tensors[name] for name in wanted if name in tensors}
    wrong = [
        f"{name} {describe_tensor(tensor)} for {describe_tensor(state[wanted[name]])}"
        for name, tensor in used.items()
        if describe_tensor(tensor) != describe_tensor(state[wanted[name]])
    ]
    if wrong:
        raise CheckpointError(
            "tensors in the file have other shapes or kinds than the network's",
            where=str(content.path),
            got=names_of(wrong),
            remedy="check --arch or the arguments of the network",
        )
    require_finite(used, str(content.path))
    loaded = {model_name: used.get(name, torch.tensor(0)) for name, model_name in wanted.items()}
    model.load_state_dict(loaded, assign=any(tensor.is_meta for tensor in state.values()))
