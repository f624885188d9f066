"""The training loop: phases of a scheme, one optimizer each, the rate following half a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexport.errors import DataError, OptionError
from qexport.models.quantizers import SoftQuantizer, set_temperature
from qexport.models.registry import build
from qexport.models.training.data import TrainingData
from qexport.models.training.evaluate import EVALUATION_BATCH
from qexport.models.training.scheme import Phase, Scheme
from qexport.models.training.state import State, read_state, write_state
from qexport.models.training.task import Task, task_of

INITIALISATION_IMAGES = 1000
"""Images whose activations initialise the quantizers, the number of the Quantization Networks paper."""

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
        hard_norms: measure the batch-norm statistics once more after training, with hard quantizers: those collected
            in training saw soft ones.
        device: "cpu", "cuda" or "auto", a GPU where there is one.
    """

    epochs: int
    seed: int = 0
    batch_size: int = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 0.003
    weight_decay: float = 1e-4
    max_shift: int = 0
    threads: int = 1
    hard_norms: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def torch_device(self) -> torch.device:
        """Where to train.

        Raises:
            OptionError: there is no GPU that torch can use.
        """
        present = torch.cuda.is_available()
        if self.device == "cuda" and not present:
            raise OptionError("torch finds no GPU", where="--device", got="cuda", remedy="leave the option out")
        return torch.device("cuda" if present and self.device != "cpu" else "cpu")


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and what it takes to build it again.

    Attributes:
        model: on the CPU, in evaluation mode, with the last epoch's weights.
        arch: a name of qexport.models.registry.
        arguments: of that architecture.
        temperature: the last one.
    """

    model: nn.Module
    arch: str
    arguments: Mapping[str, Any]
    temperature: float


Report = Callable[[str, int, float], None]


@dataclass(frozen=True, eq=False)
class _Run:
    """What one training keeps at hand.

    Attributes:
        generator: of the order of images and their shifts.
        state_file: written after every epoch, or None.
        identity: what a state file must agree with.
    """

    scheme: Scheme
    data: TrainingData
    task: Task
    settings: Settings
    report: Report
    generator: torch.Generator
    state_file: Path | None
    identity: Mapping[str, Any]


def train(
    arch: str,
    scheme: Scheme,
    data: TrainingData,
    settings: Settings,
    report: Report,
    state_file: Path | None = None,
) -> Trained:
    """Train `arch` from random weights, through all phases of `scheme`. Held-out samples are not looked at.

    Args:
        arch: name without the scheme's prefix, such as "digits" or "resnet20".
        scheme: quantizers and recipe.
        data: samples; only the training ones are used.
        settings: how.
        report: called after each epoch with the phase's name, its epoch (from 1) and the mean loss.
        state_file: written after every epoch; where it exists, training goes on from it, and ends with the bits that
            an uninterrupted one ends with.

    Raises:
        OptionError: unknown architecture, one that does not fit the data, or a state file of another training.
        DataError: a quantizer cannot be initialised, or training diverged.
        OutputError: the state file cannot be written.
    """
    name, task = f"{scheme.family}-{arch}", task_of(data)
    fixed = task.arguments(name, data)
    generator = torch.Generator().manual_seed(settings.seed)
    identity = {
        "arch": name,
        **{k: str(v) for k, v in (vars(scheme) | asdict(settings)).items()},
        "data": data.fingerprint(),
    }
    run = _Run(scheme, data, task, settings, report, generator, state_file, identity)
    device = settings.torch_device
    saved = None if state_file is None else read_state(state_file, identity)
    weights: dict[str, Tensor] = {}
    with _reproducible(settings):
        for number, phase in enumerate(scheme.phases(settings.epochs)):
            if saved is not None and number < saved.phase:
                continue
            model = build(name, **fixed, **phase.arguments)
            if saved is None:
                _begin(model, weights, run)
            else:
                model.load_state_dict(saved.model)
            _train_phase(model.to(device), number, phase, run, saved)
            weights, saved = model.cpu().state_dict(), None
        if settings.hard_norms:
            measure_norms(model, data)
    return Trained(model.eval(), name, {**fixed, **phase.arguments}, phase.temperature(phase.epochs))


def _begin(model: nn.Module, weights: dict[str, Tensor], run: _Run) -> None:
    """Start a phase: the weights of the one before, and quantizers initialised from some images."""
    images = run.data.train.images
    fresh = frozenset(model.load_state_dict(weights, strict=False).missing_keys)
    chosen = torch.randperm(len(images), generator=run.generator)[:INITIALISATION_IMAGES]
    run.scheme.initialise(model.eval(), fresh, run.data.normalised(images[chosen]))


def measure_norms(model: nn.Module, data: TrainingData) -> None:
    """Batch-norm statistics of the network with hard quantizers: the mean over all training images, one pass."""
    norms = [m for m in model.eval().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for the plain average of all batches
        norm.train()
    with torch.no_grad():
        for images in data.train.images.tensor_split(math.ceil(len(data.train.images) / EVALUATION_BATCH)):
            model(data.normalised(images))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


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


def _train_phase(model: nn.Module, number: int, phase: Phase, run: _Run, saved: State | None) -> None:
    """Train `model`, in place, for the epochs of one phase, or for those that are left after the saved ones.

    Raises:
        DataError: the loss is no longer finite.
    """
    settings, targets = run.settings, run.task.targets(model, run.data.train)
    optimizer = _optimizer(model, run.scheme.quantizer_rate, settings)
    rates = [group["lr"] for group in optimizer.param_groups]
    done = 0
    if saved is not None:
        optimizer.load_state_dict(saved.optimizer)
        run.generator.set_state(saved.generator)
        torch.set_rng_state(saved.torch_generator)
        done = saved.epoch
    model.train()
    for epoch in range(done + 1, phase.epochs + 1):
        set_temperature(model, phase.temperature(epoch))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * (epoch - 1) / phase.epochs)) / 2
        mean_loss = _epoch(model, optimizer, targets, run)
        if not math.isfinite(mean_loss):
            raise DataError(
                "training diverged", where=f"phase {phase.name}, epoch {epoch}", remedy="lower --learning-rate"
            )
        if run.state_file is not None:
            generators = run.generator.get_state(), torch.get_rng_state()
            state = State(number, epoch, model.state_dict(), optimizer.state_dict(), *generators)
            write_state(run.state_file, run.identity, state)
        run.report(phase.name, epoch, mean_loss)
    set_temperature(model, phase.temperature(phase.epochs))


def _epoch(model: nn.Module, optimizer: torch.optim.Optimizer, targets: tuple[Tensor, ...], run: _Run) -> float:
    """One pass over the training images; returns the mean loss."""
    device = run.settings.torch_device
    losses = []
    for images, chosen in _batches(run.data.train.images, run.settings, run.generator):
        optimizer.zero_grad()
        outputs = model(run.data.normalised(images).to(device))
        loss = run.task.loss(outputs, tuple(t[chosen].to(device) for t in targets))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


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


def _batches(images: Tensor, settings: Settings, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """All images once with their indices, in random order, in equal batches: a single one would upset batch norm."""
    n = len(images)
    for chosen in torch.randperm(n, generator=generator).tensor_split(math.ceil(n / settings.batch_size)):
        batch = images[chosen]
        yield shifted(batch, settings.max_shift, generator) if settings.max_shift else batch, chosen


def shifted(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `max_shift` pixels up, down, left and right; zeros come in. [N, C, H, W] -> same."""
    n, _, h, w = images.shape
    padded = functional.pad(images, (max_shift,) * 4)
    offsets = torch.randint(0, 2 * max_shift + 1, (2, n, 1), generator=generator)
    rows = (offsets[0] + torch.arange(h))[:, :, None]  # [N, H, 1]
    columns = (offsets[1] + torch.arange(w))[:, None, :]  # [N, 1, W]
    # Indices on both sides of the slice: the result is [N, H, W, C].
    return padded[torch.arange(n)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
