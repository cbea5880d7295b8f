"""Check whether a protector keeps the rules and the budget that it declares."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

import numpy as np

from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Protector
from ..errors import UserError
from ..owner.audit import Audit, Batch, read_bound
from ..seeds import derive
from ..store.perturbation import Measurement
from .findings import Finding, Findings
from .pictures import sample
from .sets import check_order, check_set, note_change
from .trials import Stop, check_generators, fresh, note_cost, trial


def check_protector(
    protector: Protector, data: ImageSet, ctx: Context, images: int = 200, seed: int = 0
) -> list[Finding]:
    """Let ``protector`` protect ``images`` of ``data`` several times; what it learns from them is learned anew.

    ``ctx`` gives device, precision, datasets and scratch space. Raises UserError.
    """
    findings = Findings("protect")
    with contextlib.suppress(Stop):
        _check(findings, protector, sample(data, images, derive(seed, "sample")), ctx, seed)
    return findings.collected


def _check(findings: Findings, protector: Protector, data: ImageSet, ctx: Context, seed: int) -> None:
    contexts = [fresh(ctx, run) for run in (seed, seed, seed + 1)]
    runs = [
        trial(partial(protector.protect, data, c), ctx.device, scramble, findings)
        for c, scramble in zip(contexts, (1, 2, 2), strict=True)
    ]
    protected = runs[0].result
    if not check_set(findings, data, protected):
        return
    before, after = np.asarray(data.images), np.asarray(protected.images)
    if note_change(findings, before, after):
        check_order(findings, before, after)
    _check_budget(findings, protector, data, protected)
    same, differs = (not np.array_equal(a.result.images, b.result.images) for a, b in (runs[:2], runs[1:]))
    check_generators(findings, any(run.drew for run in runs[1:]), not same, differs)
    cost = protector.cost(len(data))
    if cost is not None:
        findings.note("passes", f"declares some {cost.passes:.3g} an image through {cost.victim}", passes=cost.passes)
    note_cost(findings, min(run.seconds for run in runs), max(run.memory_mb for run in runs[1:]), len(data), ctx.device)
    if protector.recovers():
        findings.stage = "recover"
        key = trial(lambda: protector.recovery_key(data, contexts[0]), ctx.device, 1, findings).result
        _check_recover(findings, protector, data, protected, replace(contexts[0], recovery_key=key))


def _check_budget(findings: Findings, protector: Protector, clean: ImageSet, protected: ImageSet) -> None:
    """Compare what is declared with what is measured on the 8-bit images."""
    if protector.budget == "none":
        findings.note("budget", "declares none", declared="none")
        return
    try:
        bound = read_bound(protector.budget)
    except UserError:
        findings.note("budget", f"{protector.budget}: not of a form that can be checked", declared=protector.budget)
        return
    audit = Audit([bound])
    for part in clean.chunks(at_most=500):
        names = [str(i) for i in range(part.start, part.stop)]
        classes = [clean.class_names[label] for label in clean.labels[part]]
        audit.take(Batch(names, classes, np.asarray(clean.images[part]), np.asarray(protected.images[part])))
    [verdict] = audit.report("kept", {}).budgets
    measured = "nothing" if verdict.measured is None else f"{verdict.measured:.4g}"
    text = f"declares {protector.budget}, measured {measured}"
    if verdict.broken.count:
        text += f", broken by {verdict.broken.count} of {len(clean)} images"
    findings.check("budget", verdict.kept, text, declared=protector.budget, measured=verdict.measured)


def _check_recover(
    findings: Findings, protector: Protector, clean: ImageSet, protected: ImageSet, ctx: Context
) -> None:
    """Check how near recovered images are to the clean ones."""
    before, protected_images = np.asarray(clean.images), np.asarray(protected.images)
    attempt = trial(lambda: protector.recover(protected_images, ctx), ctx.device, 1, findings)
    recovered = attempt.result
    right = isinstance(recovered, np.ndarray) and recovered.dtype == np.uint8 and recovered.shape == before.shape
    if not findings.check("images", right, "as many and as large, uint8" if right else "another shape or type"):
        return
    damage, left = Measurement(), Measurement()
    damage.add(before, protected_images)
    left.add(before, recovered)
    was, now = damage.result("none"), left.result("none")
    exact = now.psnr is None
    nearer = now.rms < was.rms or exact
    text = "exactly the clean ones" if exact else f"{now.psnr:.1f} dB from the clean ones"
    if was.psnr is not None:
        text += f"; protected ones are {was.psnr:.1f} dB from them"
    findings.check("nearer", nearer, text, psnr=now.psnr, protected_psnr=was.psnr)
    note_cost(findings, attempt.seconds, None, len(clean), ctx.device)
