"""Check whether a protector keeps the rules and the budget that it declares."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ..contract.bounds import over_by_rounding, read_bound
from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Protector, check_size
from ..errors import UserError
from ..owner.audit import Audit, Batch
from ..seeds import derive
from ..store.perturbation import Measurement
from .findings import Finding, Findings
from .odd_sets import Usual, check_odd_sets, is_refusal
from .pictures import pictures, sample
from .resuming import check_resuming
from .sets import check_order, check_set, note_change
from .trials import Stop, Watch, check_generators, fresh, note_cost, trial

LARGE_IMAGES = 2
REPEATED = {"images", "labels", "inputs", "finite", "settings"}  # checked in every run: told where they fail
LARGE_PIXELS = {False: 1_500_000, True: 128 * 128}  # by whether networks are trained or attacked
MEMORY_MB, SLACK_MB = 8000.0, 500.0  # what the largest image may take, and libraries and networks beside it


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
    contexts, watch = [fresh(ctx, run) for run in (seed, seed, seed + 1)], Watch(data)
    runs = [
        trial(partial(protector.protect, data, c), ctx.device, scramble, findings)
        for c, scramble in zip(contexts, (1, 2, 2), strict=True)
    ]
    protected = runs[0].result
    watch.check(findings)
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
    if not verdict.kept and over_by_rounding(bound, verdict.measured or 0.0, math.prod(clean.images.shape[1:])):
        findings.note("budget", f"{text}: no more than rounding to whole gray levels may add",
                      declared=protector.budget, measured=verdict.measured)  # fmt: skip
        return
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


def check_odd_protector(findings: Findings, protector: Protector, ctx: Context, seed: int, usual: Usual) -> None:
    """Check ``protector`` on odd sets and large images, for a data owner, and killed, as far as there is time."""

    def protect(data: ImageSet, of: Context, found: Findings) -> ImageSet:
        check_size(protector, data.size)
        result = trial(partial(protector.protect, data, of), ctx.device, 1, found).result
        if not check_set(found, data, result):
            raise Stop
        return result

    def run(data: ImageSet, found: Findings) -> None:
        _check_budget(found, protector, data, protect(data, fresh(ctx, seed), found))

    check_odd_sets(findings, run, usual)
    data, side = pictures(12), _large_side(protector)
    small = data.images[..., 0].size
    steps: list[tuple[str, int, int, Callable[[Findings], None]]] = [
        ("large", 1, LARGE_IMAGES * side * side, lambda found: _check_large(found, protector, ctx, seed)),
        ("secret", 4, small, lambda found: _check_secret(found, protect, data, ctx, seed)),
        ("resume", 3, small, lambda found: _check_killed(found, protect, data, ctx, seed)),
    ]
    if protector.answers_queries:
        steps.append(("query", 3, small, lambda found: _check_query(found, protector, protect, data, fresh(ctx, seed))))
    if protector.recovers():
        steps.append(("alone", 1, small, lambda found: _check_alone(found, protector, data, fresh(ctx, seed))))
    for stage, runs, pixels, step in steps:
        found, untried = Findings(stage), usual.too_long(pixels, runs)
        if untried:
            found.note("time", untried)
        else:
            try:
                step(found)
            except Stop:
                pass
            except UserError as error:
                if is_refusal(error):
                    found.note("images", f"refused: {error.message}")
                else:
                    found.check("valid", False, error.message)
        findings.collected += [f for f in found.collected if f.state != "ok" or f.check not in REPEATED]


def _large_side(protector: Protector) -> int:
    """Return the side of images that are large, but not so large that they take minutes."""
    return math.isqrt(min(protector.largest_image, LARGE_PIXELS[protector.uses_networks]))


def _check_large(findings: Findings, protector: Protector, ctx: Context, seed: int) -> None:
    """Compare the memory that large images take with what ``largest_image`` promises for the largest."""
    side = _large_side(protector)
    data = pictures(LARGE_IMAGES, (side, side), LARGE_IMAGES)
    grown = trial(partial(protector.protect, data, fresh(ctx, seed)), ctx.device, 1, findings).memory_mb
    bound = MEMORY_MB * side * side * LARGE_IMAGES / protector.largest_image + SLACK_MB
    text = f"{grown:.0f} MB for {LARGE_IMAGES} of {side} x {side} px"
    findings.check("memory", grown <= bound, f"{text}, where largest_image={protector.largest_image:,} promises "
                   f"{bound:.0f} at most", megabytes=grown, promised=bound)  # fmt: skip


def _check_secret(
    findings: Findings,
    protect: Callable[[ImageSet, Context, Findings], ImageSet],
    data: ImageSet,
    ctx: Context,
    seed: int,
) -> None:
    """Check that what is random on a board is random for a data owner too."""

    def differs(secret: bool) -> bool:
        one, other = (protect(data, replace(fresh(ctx, run), secret=secret), findings) for run in (seed, seed + 1))
        return not np.array_equal(one.images, other.images)

    public, owned = differs(False), differs(True)
    if owned:
        findings.check("seed", True, "another secret seed gives other images", random=True)
    elif public:
        findings.check("seed", False, "differs by the seed of a run, but not by an owner's secret one", random=False)
    else:
        findings.note("seed", "the same for every owner: whoever knows the parameters can make it and take it off",
                      random=False)  # fmt: skip


def _check_killed(
    findings: Findings,
    protect: Callable[[ImageSet, Context, Findings], ImageSet],
    data: ImageSet,
    ctx: Context,
    seed: int,
) -> None:
    whole = protect(data, fresh(ctx, seed), findings)
    check_resuming(findings, lambda of: protect(data, of, Findings()), whole, ctx, seed)


def _check_query(
    findings: Findings,
    protector: Protector,
    protect: Callable[[ImageSet, Context, Findings], ImageSet],
    data: ImageSet,
    ctx: Context,
) -> None:
    """Check that half of the images can be protected again, after the set was; tell how much is as it was then."""
    asked = data.first(len(data) // 2)
    in_set, alone = protect(data, ctx, findings), protect(asked, replace(ctx, learn_from=data), findings)
    _check_budget(findings, protector, asked, alone)
    clean = np.asarray(asked.images, dtype=np.float64)
    before, after = (np.asarray(some.images[: len(asked)]) - clean for some in (in_set, alone))
    changed = bool(after.any()) or not before.any()
    anew = protect(asked, fresh(ctx, ctx.seed), findings)
    forgets = np.array_equal(anew.images, alone.images) and not np.array_equal(in_set.images[: len(asked)], anew.images)
    text = "protects images that come later" if changed else "leaves images that come later as they are"
    text = "learns from the images that it is asked for, not from the set (ctx.learning)" if forgets else text
    findings.check("answers", changed and not forgets, text)
    if before.any():
        kept = float((before * after).sum() / (before**2).sum())
        findings.note("like the set", f"{100 * kept:.0f} % of what images of the set got is there again", share=kept)


def _check_alone(findings: Findings, protector: Protector, data: ImageSet, ctx: Context) -> None:
    """Check that what is recovered of an image does not depend on the batch that it is in."""
    protected = np.asarray(trial(partial(protector.protect, data, ctx), ctx.device, 1, findings).result.images)
    key = trial(partial(protector.recovery_key, data, ctx), ctx.device, 1, findings).result
    ctx = replace(ctx, recovery_key=key)
    parts = (protected, protected[2:3], protected[[5, 1]])
    whole, alone, pair = (trial(partial(protector.recover, p, ctx), ctx.device, 1, findings).result for p in parts)
    away = [np.abs(a.astype(np.int16) - b).max() for a, b in ((whole[2:3], alone), (whole[[5, 1]], pair))]
    right = max(away) <= 1  # sums in another order may round to the next level
    text = "does not depend on the rest of the batch" if right else "depends on the rest of the batch"
    findings.check("recover", right, f"an image {text}", levels=int(max(away)))
