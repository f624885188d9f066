"""The training loop: phases of a scheme, one optimizer each, the rate following half a cosine."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.errors import DataError, OptionError
from qexport.models.quantizers import SoftQuantizer, set_soft, set_temperature
from qexport.models.registry import build, builder
from qexport.models.training.data import Samples, TrainingData
from qexport.models.training.scheme import Phase, Scheme

INITIALISATION_IMAGES = 1000
"""Images whose activations initialise the quantizers, the number of the Quantization Networks paper."""

EVALUATION_BATCH = 500

MAX_GRADIENT_NORM = 1.0
"""A sharp sigmoid's gradient is 0 nearly everywhere and up to T / 4 on a threshold: unclipped, training diverges."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        epochs: in all phases together.
        seed: of the weights, the order of the images, and their shifts.
        batch_size: images a step; the images of an epoch are divided evenly, so most steps see somewhat fewer.
        optimizer: "adam" (decoupled weight decay) or "sgd" (Nesterov momentum 0.9).
        learning_rate: at the start of a phase.
        weight_decay: of convolution and linear weights only.
        max_shift: each image is moved by up to so many pixels, filled with 0.
        threads: of torch. The order of a sum depends on their number, and so does every bit of the result; small
            networks are fastest with one.
    """

    epochs: int
    seed: int = 0
    batch_size: int = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 0.003
    weight_decay: float = 1e-4
    max_shift: int = 0
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and what it takes to build it again.

    Attributes:
        model: in evaluation mode, with the last epoch's weights.
        arch: a name of qexport.models.registry.
        arguments: of that architecture.
        temperature: the last one.
    """

    model: nn.Module
    arch: str
    arguments: Mapping[str, Any]
    temperature: float


def train(
    arch: str, scheme: Scheme, data: TrainingData, settings: Settings, report: Callable[[str, int, float], None]
) -> Trained:
    """Train `arch` from random weights, through all phases of `scheme`. Held-out samples are not looked at.

    Args:
        arch: name without the scheme's prefix, such as "digits" or "resnet20".
        scheme: quantizers and recipe.
        data: samples; only the training ones are used.
        settings: how.
        report: called after each epoch with the phase's name, its epoch (from 1) and the mean loss.

    Raises:
        OptionError: unknown architecture, or one that does not fit the data.
        DataError: a quantizer cannot be initialised, or training diverged.
    """
    name = f"{scheme.family}-{arch}"
    fixed = _data_arguments(name, data)
    generator = torch.Generator().manual_seed(settings.seed)
    state: dict[str, Tensor] = {}
    with _reproducible(settings):
        for phase in scheme.phases(settings.epochs):
            model = build(name, **fixed, **phase.arguments)
            fresh = frozenset(model.load_state_dict(state, strict=False).missing_keys)
            chosen = torch.randperm(len(data.train.images), generator=generator)[:INITIALISATION_IMAGES]
            scheme.initialise(model.eval(), fresh, data.normalised(data.train.images[chosen]))
            _train_phase(model, phase, scheme.quantizer_rate, data, settings, generator, report)
            state = model.state_dict()
    return Trained(model.eval(), name, {**fixed, **phase.arguments}, phase.temperature(phase.epochs))


@contextmanager
def _reproducible(settings: Settings) -> Iterator[None]:
    """torch with the settings' seed and threads; both are the process's, so the caller gets its own back."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def accuracy(model: nn.Module, data: TrainingData, samples: Samples, *, soft: bool = False) -> float:
    """Share of `samples` the network puts in their class, 0..1.

    Args:
        model: switched to evaluation mode.
        data: whose normalisation applies.
        samples: uint8 images and labels.
        soft: soft quantizers at their present temperature, instead of steps.
    """
    model.eval()
    set_soft(model, soft)
    with torch.no_grad():
        batches = zip(samples.images.split(EVALUATION_BATCH), samples.labels.split(EVALUATION_BATCH), strict=True)
        n_right = sum(int((model(data.normalised(x)).argmax(dim=1) == y).sum()) for x, y in batches)
    set_soft(model, False)
    return n_right / len(samples.labels)


def _train_phase(
    model: nn.Module,
    phase: Phase,
    quantizer_rate: float,
    data: TrainingData,
    settings: Settings,
    generator: torch.Generator,
    report: Callable[[str, int, float], None],
) -> None:
    """Train `model`, in place, for the epochs of one phase.

    Raises:
        DataError: the loss is no longer finite.
    """
    optimizer = _optimizer(model, quantizer_rate, settings)
    rates = [group["lr"] for group in optimizer.param_groups]
    model.train()
    for epoch in range(1, phase.epochs + 1):
        set_temperature(model, phase.temperature(epoch))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * (epoch - 1) / phase.epochs)) / 2
        losses = []
        for images, labels in _batches(data.train, settings, generator):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(data.normalised(images)), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            losses.append(float(loss.detach()))
        mean_loss = sum(losses) / len(losses)
        if not math.isfinite(mean_loss):
            raise DataError(
                "training diverged", where=f"phase {phase.name}, epoch {epoch}", remedy="lower --learning-rate"
            )
        report(phase.name, epoch, mean_loss)


def _optimizer(model: nn.Module, quantizer_rate: float, settings: Settings) -> torch.optim.Optimizer:
    """Three groups: quantizers (own rate, no decay), convolution and linear weights (decay), the rest (no decay)."""
    quantizer_names = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, SoftQuantizer)
        for name, _ in module.named_parameters()
    }
    quantizers: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name in quantizer_names or name.endswith("output_scale"):
            quantizers.append(parameter)
        else:
            (weights if parameter.ndim > 1 else rest).append(parameter)
    rate = settings.learning_rate
    groups = [
        {"params": quantizers, "lr": rate * quantizer_rate, "weight_decay": 0.0},
        {"params": weights, "lr": rate, "weight_decay": settings.weight_decay},
        {"params": rest, "lr": rate, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups)


def _batches(samples: Samples, settings: Settings, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """All samples once, in random order, in equal batches: a last one of a single image would upset batch norm."""
    n = len(samples.labels)
    for chosen in torch.randperm(n, generator=generator).tensor_split(math.ceil(n / settings.batch_size)):
        images = samples.images[chosen]
        yield shifted(images, settings.max_shift, generator) if settings.max_shift else images, samples.labels[chosen]


def shifted(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `max_shift` pixels up, down, left and right; zeros come in. [N, C, H, W] -> same."""
    n, _, h, w = images.shape
    padded = functional.pad(images, (max_shift,) * 4)
    offsets = torch.randint(0, 2 * max_shift + 1, (2, n, 1), generator=generator)
    rows = (offsets[0] + torch.arange(h))[:, :, None]  # [N, H, 1]
    columns = (offsets[1] + torch.arange(w))[:, None, :]  # [N, 1, W]
    # Indices on both sides of the slice: the result is [N, H, W, C].
    return padded[torch.arange(n)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def _data_arguments(name: str, data: TrainingData) -> dict[str, int]:
    """Arguments the data decides, for architectures that take them.

    Raises:
        OptionError: the architecture's fixed number of channels or classes is another one.
    """
    known = inspect.signature(builder(name)).parameters
    wanted = {"in_channels": data.input_shape[0], "num_classes": len(data.class_names)}
    arguments = {key: value for key, value in wanted.items() if key in known}
    if len(arguments) < len(wanted):
        _check_fixed_sizes(name, arguments, data)
    return arguments


def _check_fixed_sizes(name: str, arguments: dict[str, int], data: TrainingData) -> None:
    with torch.device("meta"):
        model = build(name, **arguments)
    try:
        n_classes = model.eval()(torch.empty(1, *data.input_shape, device="meta")).shape[1]
    except RuntimeError as error:
        raise OptionError(
            "the architecture does not take these images", where=name, got=list(data.input_shape)
        ) from error
    if n_classes != len(data.class_names):
        raise OptionError(
            "the architecture has another number of classes",
            where=name,
            got=f"{len(data.class_names)} classes in the data",
            expected=n_classes,
        )
