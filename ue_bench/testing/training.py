"""Check whether the part of a countermeasure that acts in training keeps the rules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract.context import Context, TrainContext
from ..contract.imageset import ImageSet
from ..contract.plugin import Countermeasure
from ..seeds import derive
from .findings import Findings
from .sets import check_order
from .trials import check_generators, here, note_cost, shortest, trial

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

Build = Callable[[int, tuple[int, int]], "nn.Module"]
BATCH = 64
LEAST_LEVEL = 1e-3  # of a level of 255: less is rounding
TOLERANCE = 1e-4  # outside [0, 1]: rounding errors of interpolation


def small_network(num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Make a convolution with batch normalisation and one linear layer, for images of any size."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, num_classes),
    )  # fmt: skip


def batch(data: ImageSet, device: str) -> tuple[Tensor, Tensor]:
    """Return the first images of ``data`` as training has them, and their labels."""
    import torch

    from ..engine.crops import to_unit

    images = torch.tensor(np.asarray(data.images[:BATCH]), device=device)
    return to_unit(images), torch.tensor(data.labels[:BATCH], device=device)


def check_augment(findings: Findings, countermeasure: Countermeasure, data: ImageSet, ctx: Context, seed: int) -> None:
    """Check one batch through ``augment``."""
    import torch

    x, y = batch(data, ctx.device)

    def augment(run: int, labels: Tensor = y) -> tuple[Tensor, Tensor]:
        return countermeasure.augment(x.clone(), labels.clone(), torch.Generator(ctx.device).manual_seed(run))

    first = trial(lambda: augment(seed), ctx.device, 1, findings)
    try:
        changed, labels = first.result
    except (TypeError, ValueError):
        findings.check("images", False, f"returns {type(first.result).__name__}, not images and labels")
        return
    if not check_batch(findings, x, changed):
        return
    pair = _note_change(findings, x, changed)
    if pair is not None:
        check_order(findings, *pair)
    _check_labels(findings, countermeasure, data, y, labels)
    again = trial(lambda: augment(seed), ctx.device, 2, findings)
    other = trial(lambda: augment(seed + 1), ctx.device, 2, findings)
    same = torch.equal(changed, again.result[0]) and torch.equal(labels, again.result[1])
    differs = not torch.equal(again.result[0], other.result[0])
    check_generators(findings, again.drew or other.drew, same, differs)
    if not countermeasure.uses_labels and same:
        unmoved = trial(lambda: augment(seed, y.roll(1)), ctx.device, 2, findings).result[0]
        blind = torch.equal(changed, unmoved)
        findings.check("blind", blind, "labels make no difference" if blind else "reads labels without uses_labels")
    note_cost(findings, shortest(ctx.device, lambda: augment(seed))[0], None, len(x), ctx.device)


def check_batch(findings: Findings, x: Tensor, changed: Any) -> bool:
    """Check shape, type, place and range of a batch that a network is to be trained on."""
    import torch

    if not isinstance(changed, torch.Tensor):
        return findings.check("images", False, f"returns {type(changed).__name__}, not a tensor")
    count, _, height, width = x.shape
    right = (changed.shape, changed.dtype, changed.device) == (x.shape, x.dtype, x.device)
    text = f"{count} of {height} x {width} px, float32, on the same device" if right else "a batch of another kind: " \
           f"{tuple(changed.shape)}, {changed.dtype} on {changed.device}"  # fmt: skip
    if not findings.check("images", right, text, shape=list(changed.shape)):
        return False
    low, high = changed.min().item(), changed.max().item()
    inside = bool(torch.isfinite(changed).all()) and low >= -TOLERANCE and high <= 1 + TOLERANCE
    findings.check("range", inside, f"from {low:.3g} to {high:.3g}{'' if inside else ', not in [0, 1]'}", low=low,
                   high=high)  # fmt: skip
    return inside


def _note_change(findings: Findings, x: Tensor, changed: Tensor) -> list[NDArray[np.uint8]] | None:
    """Note how much of a batch is changed, and return both in 8 bits, N x H x W x 3, if anything is."""
    size = 255 * (changed - x).abs()
    share, mean, most = 100 * (size > LEAST_LEVEL).float().mean().item(), size.mean().item(), size.max().item()
    text = f"{share:.3g} % of values, by {mean:.3g} of 255 levels on average and {most:.3g} at most"
    findings.note("changes", text if share else "no value", percent=share, mean=mean, max=most)
    if not share:
        return None
    return [v.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy() for v in (x, changed)]


def _check_labels(findings: Findings, countermeasure: Countermeasure, data: ImageSet, y: Tensor, labels: Any) -> None:
    import torch

    usable = isinstance(labels, torch.Tensor) and (labels.shape, labels.dtype) == (y.shape, y.dtype)
    usable = usable and bool((labels >= 0).all()) and bool((labels < data.num_classes).all())
    if not findings.check(
        "labels", usable, "one an image, of the same classes" if usable else "not int64, one an image"
    ):
        return
    share = 100 * (labels != y).float().mean().item()
    told = "kept" if not share else f"{share:.3g} % changed"
    if share and not countermeasure.uses_labels:
        findings.check("clean-label", False, f"{told}, without uses_labels", percent=share)
    else:
        findings.note("clean-label", told, percent=share)


class Recorder:
    """A network that keeps the last batch that it was trained on."""

    def __init__(self, build: Build, data: ImageSet, ctx: Context) -> None:
        import torch

        from ..engine.loop import ShiftedInput

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(0, "initial weights"))
            network = build(data.num_classes, data.size)
        self.model = ShiftedInput(network, 0.5).to(ctx.device).to(memory_format=torch.channels_last).train()
        self.seen: Tensor | None = None
        self.model.register_forward_pre_hook(self.keep)

    def keep(self, model: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if model.training:
            self.seen = arguments[0].detach().clone()


def context(ctx: Context, run: int) -> TrainContext:
    """Return the context of the first epoch of several."""
    import torch

    return TrainContext(torch.Generator(ctx.device).manual_seed(run), 0, 8, ctx.autocast, clean=ctx.clean)


def check_loss(
    findings: Findings, countermeasure: Countermeasure, data: ImageSet, ctx: Context, seed: int, build: Build
) -> None:
    """Check one batch through ``loss``, and its gradient."""
    import torch
    from torch.nn import functional as F

    x, y = batch(data, ctx.device)
    recorder = Recorder(build, data, ctx)
    model = recorder.model
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(run: int) -> Tensor:
        model.load_state_dict(start)
        model.train().zero_grad(set_to_none=True)
        return countermeasure.loss(model, x.clone(), y.clone(), context(ctx, run))

    def step(run: int) -> float:
        value = loss(run)
        value.backward()
        return value.item()

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        with ctx.autocast():
            logits = model(x)
        F.cross_entropy(logits.float(), y).backward()

    flags = [p.requires_grad for p in model.parameters()]
    value = trial(lambda: loss(seed), ctx.device, 1, findings).result
    scalar = isinstance(value, torch.Tensor) and value.shape == () and value.requires_grad
    finite = scalar and math.isfinite(value.item())
    if not findings.check("loss", finite, f"{value.item():.4g}, a scalar with a gradient" if finite else "not a finite "
                          "scalar with a gradient"):  # fmt: skip
        return
    kept = all(torch.equal(p, start[name]) and p.grad is None for name, p in model.named_parameters())
    kept = kept and [p.requires_grad for p in model.parameters()] == flags
    text = "weights, their gradients and flags are as before" if kept else "weights, their gradients or flags changed"
    findings.check("weights", kept, text)
    findings.check("mode", model.training, f"the network is left in {'training' if model.training else 'eval'} mode")
    trial(value.backward, ctx.device, 1, findings)
    without = sum(p.grad is None or not bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    findings.check("gradients", not without, f"{without} parameters have no finite one" if without else "for every one")
    if recorder.seen is not None and check_batch(findings, x, recorder.seen):
        _note_change(findings, x, recorder.seen)
    first = trial(lambda: step(seed), ctx.device, 1, findings)
    gradients = _gradients(model)
    again = trial(lambda: step(seed), ctx.device, 2, findings)
    same = first.result == again.result and torch.equal(gradients, _gradients(model))
    other = trial(lambda: step(seed + 1), ctx.device, 2, findings)
    check_generators(findings, again.drew or other.drew, same, other.result != again.result)
    seconds, plain_seconds = shortest(ctx.device, lambda: step(seed), plain)
    passes = seconds / plain_seconds
    each = 1000 * seconds / len(x)
    text = f"{each:.3g} ms an image and step, {here(ctx.device)}: {passes:.2g} plain ones; it declares"
    findings.note("cost", f"{text} {countermeasure.passes:.2g} over a whole training", milliseconds=each,
                  passes=passes, declared=countermeasure.passes)  # fmt: skip


def _gradients(model: nn.Module) -> Tensor:
    import torch

    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def check_network(
    findings: Findings, countermeasure: Countermeasure, method: str, data: ImageSet, ctx: Context, build: Build
) -> None:
    """Check a network through ``selection_score`` or ``after_training``."""
    import torch

    start = Recorder(build, data, ctx).model

    def work(run: int) -> tuple[Any, dict[str, Tensor]]:
        model = copy.deepcopy(start)
        outcome = getattr(countermeasure, method)(model, context(ctx, run))
        return outcome, model.state_dict()

    first = trial(lambda: work(0), ctx.device, 1, findings)
    again = trial(lambda: work(0), ctx.device, 2, findings)
    other = trial(lambda: work(1), ctx.device, 2, findings)
    (outcome, weights), (_, repeated), (_, others) = first.result, again.result, other.result
    parameters = [name for name, _ in start.named_parameters()]
    changed = [n for n in parameters if not torch.equal(weights[n], start.state_dict()[n])]
    if method == "selection_score":
        finite = isinstance(outcome, (int, float)) and math.isfinite(outcome)
        findings.check("selection_score", finite, f"{outcome:.4g}" if finite else f"{outcome!r} is not a finite number")
        findings.check("weights", not changed, f"{len(changed)} changed" if changed else "as before")
    else:
        finite = all(bool(torch.isfinite(weights[n]).all()) for n in parameters)
        findings.check("weights", finite, f"{len(changed)} of {len(parameters)} changed" if finite else "not finite",
                       changed=len(changed))  # fmt: skip
    if not finite:
        return
    same = outcome == again.result[0] and all(torch.equal(weights[n], repeated[n]) for n in parameters)
    differs = outcome != other.result[0] or any(not torch.equal(repeated[n], others[n]) for n in parameters)
    check_generators(findings, again.drew or other.drew, same, differs)
    findings.note("cost", f"{again.seconds:.3g} s, {here(ctx.device)}", seconds=again.seconds)
