"""Check whether a victim keeps the rules, its size and its cost."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Victim
from ..seeds import derive
from .findings import Finding, Findings
from .odd_sets import Usual, check_odd_sets
from .pictures import sample
from .training import BATCH, batch
from .trials import Stop, here, shortest, trial

if TYPE_CHECKING:
    from torch import Tensor, nn

RELATIVE = 1e-3  # of logits: batches of other sizes are summed in another order


def check_victim(victim: Victim, data: ImageSet, ctx: Context, seed: int = 0) -> list[Finding]:
    """Build ``victim`` for the classes and the size of ``data``, and pass some images through it. Raises UserError."""
    findings = Findings("build")
    with contextlib.suppress(Stop):
        model = _check_build(findings, victim, data, ctx, seed)
        _check_forward(findings, model, sample(data, BATCH, derive(seed, "sample")), ctx)
    return findings.collected


def _check_build(findings: Findings, victim: Victim, data: ImageSet, ctx: Context, seed: int) -> nn.Module:
    import torch
    from torch import nn

    def build(run: int) -> nn.Module:
        torch.manual_seed(run)  # the generator that the harness seeds; put back by ``trial``
        return victim.build(data.num_classes, data.size)

    network, again, other = (trial(partial(build, r), "cpu", 1, findings).result for r in (seed, seed, seed + 1))
    if not findings.check("network", isinstance(network, nn.Module), f"a {type(network).__name__}"):
        raise Stop
    count = sum(p.numel() for p in network.parameters())
    height, width = data.size
    findings.note("parameters", f"{count:,} for {data.num_classes} classes at {height} x {width} px", parameters=count)
    trained = [p for p in network.parameters() if p.requires_grad]
    findings.check("trained", bool(trained), f"{sum(p.numel() for p in trained):,} of them are trained")
    same, differs = _equal(network, again), not _equal(again, other)
    findings.check(
        "seed", same, "the same seed gives the same weights" if same else "the same seed gives other weights"
    )
    findings.note("randomness", "another seed gives other weights" if differs else "every seed gives the same weights",
                  random=differs)  # fmt: skip
    _check_optimizer(findings, victim)
    return network.to(ctx.device).to(memory_format=torch.channels_last)


def _equal(a: nn.Module, b: nn.Module) -> bool:
    import torch

    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def _check_optimizer(findings: Findings, victim: Victim) -> None:
    """Check whether a protocol takes the fields that the architecture asks for."""
    from pydantic import ValidationError as PydanticError

    from ..catalogue.protocols import protocol
    from ..contract.values import format_value

    asked = victim.optimizer()
    if not asked:
        return
    try:
        protocol("smoke").under([], asked)
    except PydanticError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        findings.check("optimizer", False, f"no protocol takes it: {where}: {first['msg']}")
    else:
        shown = ", ".join(f"{name}={format_value(value)}" for name, value in asked.items())
        findings.check("optimizer", True, f"asks for {shown}", **asked)


def _check_forward(findings: Findings, model: nn.Module, data: ImageSet, ctx: Context) -> None:
    import torch

    findings.stage = "forward"
    x, y = batch(data, ctx.device)
    wanted = (len(x), data.num_classes)
    state = {name: value.clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def evaluate(images: Tensor) -> Any:
        return model.eval()(images)

    first = trial(lambda: evaluate(x), ctx.device, 1, findings)
    logits = first.result
    right = isinstance(logits, torch.Tensor) and tuple(logits.shape) == wanted and bool(torch.isfinite(logits).all())
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if not findings.check("logits", right, f"{wanted[0]} x {wanted[1]}, finite" if right else f"{shape}, not finite "
                          f"numbers of shape {wanted}"):  # fmt: skip
        return
    again = trial(lambda: evaluate(x), ctx.device, 2, findings)
    same = torch.equal(logits, again.result)
    findings.check("eval", same, "the same twice in eval mode" if same else "differs between two passes in eval mode")
    kept = all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    findings.check("state", kept, "eval mode changes nothing" if kept else "a pass in eval mode changes the state")
    alone = trial(lambda: torch.cat([evaluate(x[i : i + 1]) for i in range(4)]), ctx.device, 2, findings).result
    distance = float((alone - logits[:4]).abs().max() / logits[:4].abs().max().clamp(min=1e-6))
    text = "does not depend on the rest of the batch" if distance < RELATIVE else "depends on the rest of the batch"
    findings.check("alone", distance < RELATIVE, f"an image {text}", distance=distance)
    findings.check("generators", not again.drew, "draws from a global generator in eval mode"
                   if first.drew or again.drew else "no randomness in eval mode")  # fmt: skip
    _check_backward(findings, model, x, y, ctx)


def _check_backward(findings: Findings, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> None:
    from torch.nn import functional as F

    findings.stage = "train"

    def step() -> None:
        model.train().zero_grad(set_to_none=True)
        with ctx.autocast():
            logits = model(x)
        F.cross_entropy(logits.float(), y).backward()

    trial(step, ctx.device, 1, findings)
    trained = [p for p in model.parameters() if p.requires_grad]
    without = sum(p.grad is None or not bool(np.isfinite(p.grad.sum().item())) for p in trained)
    text = f"{without} of {len(trained)} parameters have no finite one" if without else "for every parameter"
    findings.check("gradients", not without, text)
    each = 1000 * shortest(ctx.device, step)[0] / len(x)
    findings.note("cost", f"{each:.3g} ms an image and step, {here(ctx.device)}", milliseconds=each)


def check_odd_victim(findings: Findings, victim: Victim, ctx: Context, seed: int, usual: Usual) -> None:
    """Build ``victim`` for other sizes and numbers of classes, and pass two images through it."""
    import torch

    def run(data: ImageSet, found: Findings) -> None:
        def forward() -> Tensor:
            torch.manual_seed(seed)  # put back by ``trial``
            network = victim.build(data.num_classes, data.size).to(ctx.device).eval()
            with torch.no_grad():
                logits: Tensor = network(batch(data, ctx.device)[0][:2])
            return logits

        logits = trial(forward, ctx.device, 1, found).result
        right = tuple(logits.shape) == (2, data.num_classes) and bool(torch.isfinite(logits).all())
        found.check("logits", right, "finite" if right else f"{tuple(logits.shape)}, not finite numbers a class")

    check_odd_sets(findings, run, usual)
