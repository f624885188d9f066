"""Which modules of a network are quantizers, and what each of them is called with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qexport.errors import FreezeError
from qexport.models.quantizers.base import SoftQuantizer


def find_quantizers(model: nn.Module, quantizer_types: Sequence[type[nn.Module]]) -> dict[str, nn.Module]:
    """Quantizers by module name, in module order; what lies inside a quantizer is its own business.

    Raises:
        FreezeError: one of `quantizer_types` does not occur.
    """
    wanted: tuple[type[nn.Module], ...] = (SoftQuantizer, *quantizer_types)
    for kind in quantizer_types:
        if not any(isinstance(module, kind) for module in model.modules()):
            raise FreezeError(
                f"no module of the network is a {kind.__name__}",
                got=sorted({type(module).__name__ for module in model.modules()}),
                expected="the class of a quantizer in this network",
                remedy="name the class the quantizers are made from; modules kept outside nn.Module attributes, "
                "nn.ModuleList and nn.ModuleDict are not seen",
            )
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, wanted) and module not in inside:
            found[name] = module
            inside.update(module.modules())
    return found


@dataclass
class QuantizerCalls:
    """What one quantizer was called with during a forward pass.

    Attributes:
        weights: (weight as given, result), once for each distinct weight tensor.
        shape: shape of the last tensor it was given, None if it was never called.
        takes_activations: whether it was given anything but weights.
    """

    weights: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    shape: tuple[int, ...] | None = None
    takes_activations: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether one weight tensor is all it was ever given."""
        return len(self.weights) == 1 and not self.takes_activations

    @property
    def described(self) -> str:
        return f"{len(self.weights)} weight tensors" + (" and activations" if self.takes_activations else "")


def observe(
    model: nn.Module, quantizers: dict[str, nn.Module], example: Tensor
) -> tuple[dict[str, QuantizerCalls], object]:
    """Run `model` on `example` and record the calls of its quantizers.

    An input that is a parameter or buffer of the network, or a view of one, is a weight; all else are activations.

    Returns:
        (calls by quantizer name, the network's output).

    Raises:
        FreezeError: the network fails, a quantizer takes more than a tensor, or changes its own state.
    """
    calls = {name: QuantizerCalls() for name in quantizers}
    constants = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()}
    states = {name: _state(quantizer) for name, quantizer in quantizers.items()}
    hooks = [
        quantizer.register_forward_hook(_recorder(calls[name], constants, name), with_kwargs=True)
        for name, quantizer in quantizers.items()
    ]
    try:
        with torch.no_grad():
            output = model(example.clone())  # the network may work in place
    except FreezeError:
        raise
    except Exception as error:  # the network is the user's code and may raise anything
        raise FreezeError(
            f"the network failed on an input of shape {list(example.shape)}",
            got=f"{type(error).__name__}: {error}",
            remedy="give the input shape the network was trained with (--input-shape C,H,W)",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    for name, quantizer in quantizers.items():
        _refuse_changed_state(states[name], _state(quantizer), name)
    return calls, output


def _recorder(calls: QuantizerCalls, constants: set[int], name: str) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        inputs = (*args, *kwargs.values())
        given = inputs[0] if len(inputs) == 1 else None
        if not isinstance(given, Tensor) or not isinstance(output, Tensor):
            raise FreezeError(
                "the quantizer is not called as a function of one tensor",
                where=name,
                got=f"({', '.join(type(i).__name__ for i in inputs)}) -> {type(output).__name__}",
                expected="(Tensor) -> Tensor",
                remedy="make its parameters attributes of the module",
            )
        calls.shape = tuple(given.shape)
        if not given.numel() or _storage(given) not in constants:
            calls.takes_activations = True
        elif not any(_same_view(given, seen) for seen, _ in calls.weights):
            calls.weights.append((given, output))

    return record


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _same_view(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def _state(quantizer: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in (*quantizer.named_parameters(), *quantizer.named_buffers())}


def _refuse_changed_state(before: dict[str, Tensor], after: dict[str, Tensor], name: str) -> None:
    changed = [
        key
        for key in sorted(before.keys() | after.keys())
        if key not in before or key not in after or not _equal(before[key], after[key])
    ]
    if changed:
        raise FreezeError(
            "the quantizer changes its own state in evaluation mode",
            where=name,
            got=f"{', '.join(changed)} changed during a forward pass",
            expected="fixed parameters",
            remedy="it initialises itself from its first input, so the checkpoint holds no trained values for it: "
            "check that they were saved and loaded, and the flag that says it is initialised with them",
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.all((a == b) | ((a != a) & (b != b))))
