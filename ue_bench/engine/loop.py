"""Train a victim and measure it: the whole of it, in one file.

Images stay uint8 until the step that needs them. Cropping, flipping and countermeasures are tensor code with explicit
generators; weights are float32, layers run in bfloat16 where the hardware computes it; nothing in a step waits for
the device, and on a GPU a step is recorded once and replayed, see ``replay``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..contract.combination import has, not_replayable
from ..contract.context import TrainContext
from ..contract.imageset import ImageSet, release
from ..contract.plugin import Countermeasure
from ..contract.protocol import Color, Protocol
from ..errors import Diverged
from ..seeds import derive
from .batches import evaluation_batches
from .crops import padded_crop, resized_crop, rotated, to_unit
from .divergence import DivergenceCheck
from .generators import leaves_generators_alone, own_generator
from .numerics import full_float32
from .replay import CudaGraphs, Eager, Recorder, StepRunner
from .saving import VERSION, fits

RELEASE_BYTES = 32 * 2**20  # read from disk before pages are given back; a page fault maps several images at once
SAMPLE = 1000  # training images that tell whether anything was learned
CHANCE_ERRORS = 3.0  # standard errors above guessing that are still chance


@dataclass
class Outcome:
    """What a training run came to. Accuracies in percent; the curve has one point an evaluation.

    ``accuracy_last`` is that of the network as it is handed over: the last of the curve, unless a countermeasure keeps
    the weights of another evaluation or changes them afterwards. ``learned`` says whether the training ended above
    chance on its own training images, see ``above_chance``. ``eager`` says why steps were not replayed on a GPU: the
    ``plugin`` must not be, the images do not fit in ``memory``, or recording ``failed``.
    """

    epochs: list[float] = field(default_factory=list)
    accuracy_test: list[float] = field(default_factory=list)
    accuracy_train: list[float | None] = field(default_factory=list)
    loss_train: list[float] = field(default_factory=list)
    train_seconds: float = 0.0
    images_per_second: float = 0.0
    accuracy_last: float | None = None
    learned: bool = True
    eager: Eager = ""


class ShiftedInput(nn.Module):
    """A network that takes pixels in [0, 1] and shifts them as its protocol says, or brings colors to mean and std."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, shift: float, colors: tuple[Color, Color] | None = None) -> None:
        super().__init__()
        self.network, self.shift, self.scales = network, shift, colors is not None
        for name, values in zip(("mean", "std"), colors or (), strict=False):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @classmethod
    def under(cls, protocol: Protocol, network: nn.Module) -> ShiftedInput:
        """Return ``network`` with what ``protocol`` does to pixels."""
        colors = None if protocol.mean is None or protocol.std is None else (protocol.mean, protocol.std)
        return cls(network, protocol.shift, colors)

    def forward(self, x: Tensor) -> Tensor:
        if self.scales:
            x = (x - self.mean) / self.std
        logits: Tensor = self.network(x - self.shift if self.shift else x)
        return logits


class Pixels:
    """Batches of a uint8 set: from the device when it fits there, else from memory or disk as they are needed."""

    def __init__(self, data: ImageSet, device: torch.device) -> None:
        self.data, self.device = data, device
        self.labels = torch.tensor(data.labels, device=device)
        self.resident: Tensor | None = None
        if device.type == "cuda" and data.images.nbytes < torch.cuda.mem_get_info(device)[0] // 2:
            parts = [torch.tensor(data.images[part], device=device) for part in data.chunks()]
            self.resident = torch.cat(parts)
        self.read = 0

    def take(self, indices: Tensor) -> Tensor:
        """Images at ``indices`` (on the device), uint8, N x H x W x 3."""
        if self.resident is not None:
            return self.resident[indices]
        batch = torch.from_numpy(self.data.images[indices.cpu().numpy()])
        self.read += batch.nbytes
        if self.read > RELEASE_BYTES:
            release(self.data.images)
            self.read = 0
        return batch.to(self.device)


@torch.no_grad()
def accuracy(
    model: nn.Module,
    pixels: Pixels,
    autocast: Callable[[], AbstractContextManager[None]],
    change: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Percent of ``pixels`` classified rightly, model in eval mode. ``change`` is done to batches in [0, 1] before.

    Raises Diverged when an output is not finite.
    """
    model.eval()
    right = torch.zeros((), device=pixels.device)
    finite = torch.ones((), dtype=torch.bool, device=pixels.device)
    for batch in evaluation_batches(len(pixels.data), pixels.device):
        where = torch.arange(batch.start, batch.stop, device=pixels.device)
        x = to_unit(pixels.take(where))
        if change is not None:
            x = change(x)
        with autocast():
            logits = model(x)
        finite &= torch.isfinite(logits).all()
        right += (logits.argmax(1) == pixels.labels[where]).sum()
    if not finite:
        raise Diverged("output of the network")
    return 100 * right.item() / len(pixels.data)


def above_chance(accuracy: float, labels: NDArray[np.int64], images: int) -> bool:
    """Whether an accuracy in percent, measured on ``images`` images, is above always guessing the largest class.

    Above means by more than three binomial standard errors of that guess.
    """
    guess = float(np.bincount(labels).max()) / len(labels)
    return accuracy / 100 > guess + CHANCE_ERRORS * math.sqrt(guess * (1 - guess) / images)


def curve_above_chance(outcome: Outcome, labels: NDArray[np.int64]) -> bool:
    """Whether the last point of the curve has a training accuracy, and one above chance."""
    if not outcome.accuracy_train or outcome.accuracy_train[-1] is None:
        return False
    span = outcome.epochs[-1] - (outcome.epochs[-2] if len(outcome.epochs) > 1 else 0)
    images = min(len(labels), max(1, round(span * len(labels))))  # an image seen twice is no other image
    return above_chance(outcome.accuracy_train[-1], labels, images)


def sample_of(data: ImageSet, seed: int) -> ImageSet:
    """At most ``SAMPLE`` images of ``data``, drawn for ``seed`` alone."""
    drawn = np.random.default_rng(derive(seed, "training sample")).permutation(len(data))[:SAMPLE]
    rows = np.sort(drawn)  # they may lie in a file
    return ImageSet(data.images[rows], data.labels[rows], data.class_names)


def make_optimizer(model: nn.Module, protocol: Protocol, recorded: bool = False) -> torch.optim.Optimizer:
    """The optimizer of ``protocol`` for all weights of ``model``; the second beta and epsilon of Adam are torch's.

    One kernel takes a step on a GPU. ``recorded`` steps read the learning rate from a tensor there.
    """
    on_gpu = next(model.parameters()).is_cuda
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            protocol.learning_rate,
            protocol.momentum,
            weight_decay=protocol.weight_decay,
            nesterov=protocol.nesterov,
            fused=on_gpu or None,
        )
    kind: type[torch.optim.Adam] = torch.optim.AdamW if protocol.optimizer == "adamw" else torch.optim.Adam
    betas = (protocol.momentum, 0.999)
    return kind(
        model.parameters(), protocol.learning_rate, betas, weight_decay=protocol.weight_decay,
        fused=on_gpu or None, capturable=on_gpu and recorded,
    )  # fmt: skip


def choose_recorder(
    countermeasure: Countermeasure, pixels: Pixels, generators: Sequence[torch.Generator]
) -> tuple[Recorder | None, Eager]:
    """Return what records steps on ``pixels`` that draw from ``generators``; None with the reason, on CUDA."""
    if pixels.device.type != "cuda":
        return None, ""
    if not_replayable(countermeasure):
        return None, "plugin"
    return (None, "memory") if pixels.resident is None else (CudaGraphs(pixels.device, generators), "")


@leaves_generators_alone
@full_float32()
def train(
    build: Callable[[], nn.Module],
    train_set: ImageSet,
    test_set: ImageSet | None,
    protocol: Protocol,
    countermeasure: Countermeasure,
    device: str,
    precision: str,
    seed: int,
    report: Callable[[float, float, str], None],
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
    due: Callable[[], bool] | None = None,
    clean: ImageSet | None = None,
) -> tuple[nn.Module, Outcome]:
    """Train a network on ``train_set`` under ``protocol`` and ``countermeasure``, measuring it on ``test_set``.

    ``countermeasure`` acts on batches (augment, loss) and on the network (score, finish) only: whatever it does to
    stored images has been done. On a CPU the result depends on nothing but the arguments and the number of threads.
    Without a test set nothing is measured but whether something was learned.

    ``save`` is offered the whole state after every epoch, and after every step at which ``due`` says so; given as
    ``state``, it continues that run and ends with the same network. ``clean`` holds the unprotected images that
    ``countermeasure`` asks for.

    Raises Diverged with the step when a loss, a weight, an output in an evaluation or a score is not finite. Losses are
    looked at once an epoch, so that no step waits for them.
    """
    on = torch.device(device)
    train_set = train_set.first(protocol.images(len(train_set)))
    train_pixels = Pixels(train_set, on)
    test_pixels = Pixels(test_set, on) if test_set is not None else None
    torch.manual_seed(derive(seed, "initial weights"))
    model = ShiftedInput.under(protocol, build()).to(on).to(memory_format=torch.channels_last)

    def autocast() -> torch.autocast:
        return torch.autocast(on.type, torch.bfloat16, enabled=precision == "bf16")

    shuffling = torch.Generator(on).manual_seed(derive(seed, "order of images"))
    cropping = torch.Generator(on).manual_seed(derive(seed, "crop and flip"))
    countermeasure_rng = torch.Generator(on).manual_seed(derive(seed, "countermeasure"))
    recorder, eager = choose_recorder(countermeasure, train_pixels, (cropping, countermeasure_rng))
    optimizer = make_optimizer(model, protocol, recorded=recorder is not None)

    batch = min(protocol.batch, len(train_set))
    steps_per_epoch = protocol.steps_per_epoch(len(train_set))
    total = protocol.length(steps_per_epoch)
    epochs = -(-total // steps_per_epoch)
    augments, has_loss = countermeasure.overrides("augment"), countermeasure.overrides("loss")
    scores, finishes = has(countermeasure, "selection_score"), has(countermeasure, "after_training")
    best: dict[str, Any] | None = None  # score and weights of the evaluation that is kept
    outcome = Outcome()
    # steps that are replayed find them where they are: they are only ever changed in place
    loss_sum, right, seen, step, first = torch.zeros((), device=on), torch.zeros((), device=on), 0, 0, 0
    shown = 0  # images in the steps that were seen since the last evaluation
    order: Tensor | None = None  # of the images in this epoch
    generators = (shuffling, cropping, countermeasure_rng, own_generator(on))
    divergence = DivergenceCheck(total)
    context = TrainContext(countermeasure_rng, 0, epochs, autocast, clean=clean)

    def one_step(where: Tensor, rate: float | Tensor) -> Tensor:
        """Train on the images at ``where``; return the loss. All that outlasts the step is changed in place."""
        images, y = train_pixels.take(where), train_pixels.labels[where]
        if protocol.crop == "pad":
            images = padded_crop(images, protocol.pad, protocol.flip, cropping)
        else:
            images = resized_crop(images, protocol.flip, cropping)
        if protocol.rotation:
            images = rotated(images, protocol.rotation, cropping)
        x = to_unit(images)
        if augments:
            x, y = countermeasure.augment(x, y, countermeasure_rng)
        if has_loss:
            loss = countermeasure.loss(model, x, y, context)
        else:
            with autocast():
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            right.add_((logits.detach().argmax(1) == y).sum())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if protocol.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), protocol.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        loss_sum.add_(loss.detach())
        return loss.detach()

    run_step = StepRunner(one_step, model, optimizer, (loss_sum, right), generators[1:], recorder, eager)

    def measure(pixels: Pixels) -> float:
        try:
            return accuracy(model, pixels, autocast)
        except Diverged as error:
            raise divergence.diverged(error.what, step) from error

    def whole_state(epoch: int) -> dict[str, Any]:
        return {
            "version": VERSION, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch,
            "step": step, "order": order, "losses": divergence.pending(), "outcome": asdict(outcome),
            "generators": [generator.get_state() for generator in generators],
            "loss_sum": loss_sum, "right": right, "seen": seen, "shown": shown, **({"best": best} if scores else {}),
        }  # fmt: skip

    def seconds_since(started: float) -> float:
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        return time.perf_counter() - started

    if state is not None and fits(state, model):
        model.load_state_dict(state["model"])
        # its options are those of this device, which need not be the one where the state was saved
        optimizer.load_state_dict(state["optimizer"] | {"param_groups": optimizer.state_dict()["param_groups"]})
        for generator, drawn in zip(generators, state["generators"], strict=True):
            generator.set_state(drawn.cpu())
        outcome = Outcome(**state["outcome"])
        loss_sum.copy_(state["loss_sum"])
        right.copy_(state["right"])
        shown = state.get("shown", state["seen"] * batch)  # older states are of trainings without smaller batches
        seen, step, first, order = state["seen"], state["step"], state["epoch"], state["order"]
        divergence.losses = list(state["losses"])
        best = state["best"] if scores else None

    for epoch in range(first, epochs):
        started = time.perf_counter()
        context = TrainContext(countermeasure_rng, epoch, epochs, autocast, clean=clean)
        phase = countermeasure.phase(epoch, epochs)
        if order is None:  # else in the middle of an epoch
            order = torch.randperm(len(train_set), device=on, generator=shuffling)
        model.train()
        begun = epoch * steps_per_epoch
        for start in range((step - begun) * batch, min(steps_per_epoch, total - begun) * batch, batch):
            where = order[start : start + batch]
            loss = run_step(where, protocol.rate(step, total, steps_per_epoch), phase)
            divergence.add(loss)
            step, seen, shown = step + 1, seen + 1, shown + len(where)
            if step % 10 == 0:
                report(step, total, f"epoch {epoch + 1}/{epochs}")
            if due is not None and save is not None and due():
                outcome.train_seconds += seconds_since(started)
                save(whole_state(epoch))
                started = time.perf_counter()
        outcome.train_seconds += seconds_since(started)
        divergence.check(step, model)

        evaluated = (epoch + 1) % protocol.eval_every == 0 or epoch + 1 == epochs
        if evaluated and scores:
            score = countermeasure.selection_score(model, context)
            if math.isnan(score):
                raise divergence.diverged(f"score of {countermeasure.selector}", step)
            if best is None or score > best["selection_score"]:
                kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
                best = {"selection_score": score, "model": kept}
        if evaluated and test_pixels is not None:
            outcome.epochs.append(round(step / steps_per_epoch, 3))
            outcome.accuracy_test.append(measure(test_pixels))
            outcome.loss_train.append(loss_sum.item() / seen)
            outcome.accuracy_train.append(None if has_loss else 100 * right.item() / shown)
            seen = shown = 0
            loss_sum.zero_()
            right.zero_()
        order = None
        if save is not None:
            save(whole_state(epoch + 1))
    outcome.eager = run_step.eager
    outcome.images_per_second = protocol.passes(len(train_set)) * len(train_set) / outcome.train_seconds
    if best is not None:
        model.load_state_dict(best["model"])
    if finishes:
        started = time.perf_counter()
        countermeasure.after_training(
            model, TrainContext(countermeasure_rng, epochs - 1, epochs, autocast, clean=clean)
        )
        outcome.train_seconds += time.perf_counter() - started
        divergence.check(step, model)
    if test_pixels is not None:
        changed = scores or finishes
        outcome.accuracy_last = measure(test_pixels) if changed else outcome.accuracy_test[-1]
    outcome.learned = curve_above_chance(outcome, train_set.labels)
    if not outcome.learned:
        sample = sample_of(train_set, seed)
        outcome.learned = above_chance(measure(Pixels(sample, on)), train_set.labels, len(sample))
    return model, outcome
