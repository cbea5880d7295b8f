"""Check whether a countermeasure keeps the rules, what it changes and what it costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..contract import clean_data
from ..contract.combination import has, purifiers
from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Countermeasure
from ..seeds import derive
from .findings import Finding, Findings
from .odd_sets import Usual, check_odd_sets
from .pictures import sample
from .sets import check_order, check_set, note_change
from .training import Build, batch, check_augment, check_batch, check_loss, check_network, small_network
from .trials import LONG_SECONDS, Stop, Watch, check_generators, fresh, note_cost, shortest, trial

SLOW_MILLISECONDS = 5.0  # an image: longer than loading the purified set from the cache by far


def check_countermeasure(
    countermeasure: Countermeasure,
    data: ImageSet,
    ctx: Context,
    images: int = 200,
    seed: int = 0,
    build: Build = small_network,
) -> list[Finding]:
    """Try every method of ``countermeasure`` on ``images`` of the clean training images ``data``.

    ``ctx`` gives device, precision, datasets and scratch space; what plugins keep is made anew for every run. ``build``
    is the network of training procedures. Raises UserError, also for more clean images than ``data`` has.
    """
    findings = Findings()
    _declared(findings, countermeasure)
    clean_data.check(countermeasure, len(data))
    some = sample(data, max(images, 2 * countermeasure.clean_images if countermeasure.needs_pairs else 0),
                  derive(seed, "sample"))  # fmt: skip
    owned = _owned(countermeasure, data, some, seed)

    def context(run: int) -> Context:
        return fresh(ctx, run, *owned)

    steps: list[tuple[str, Callable[[], None]]] = [
        ("purify", lambda: _check_purify(findings, countermeasure, some, context, seed)),
        ("augment", lambda: check_augment(findings, countermeasure, some, ctx, seed)),
        ("loss", lambda: check_loss(findings, countermeasure, some, context(seed), seed, build)),
        (
            "selection_score",
            lambda: check_network(findings, countermeasure, "selection_score", some, context(seed), build),
        ),
        (
            "after_training",
            lambda: check_network(findings, countermeasure, "after_training", some, context(seed), build),
        ),
    ]
    for stage, step in steps:
        if has(countermeasure, stage):
            findings.stage = stage
            with contextlib.suppress(Stop):
                step()
    return findings.collected


def _owned(
    countermeasure: Countermeasure, data: ImageSet, purified: ImageSet, seed: int
) -> tuple[ImageSet | None, NDArray[np.int64] | None, ImageSet | None]:
    """Return the clean images that ``countermeasure`` asks for, and where they are in what is purified, if it does.

    Last, what it is told that the owner's service makes of them, if it asks: nothing is protected here.
    """
    if not countermeasure.clean_images:
        return None, None, None
    if not countermeasure.needs_pairs:  # nor queries, then
        return sample(data, countermeasure.clean_images, derive(seed, "clean images")), None, None
    rows = clean_data.draw(purified.labels, countermeasure.clean_images, derive(seed, "clean images"))
    own = ImageSet(purified.images[rows], purified.labels[rows], purified.class_names, purified.source)
    return own, rows, own if countermeasure.queries else None


def _expected(countermeasure: Countermeasure, data: ImageSet, purified: object, ctx: Context) -> ImageSet:
    """Return the images that ``purified`` ones are versions of: ``data``, or what is left without those of pairs."""
    if not countermeasure.needs_pairs or not isinstance(purified, ImageSet) or len(purified) == len(data):
        return data
    rest = np.setdiff1d(np.arange(len(data)), ctx.clean_rows)
    return ImageSet(data.images[rest], data.labels[rest], data.class_names, data.source)


def _declared(findings: Findings, countermeasure: Countermeasure) -> None:
    """Note what the class says of itself."""
    findings.stage = "declares"
    methods = [m for m in ("purify", "augment", "loss", "selection_score", "after_training") if has(countermeasure, m)]
    says = [f"it has {', '.join(methods)}" if methods else "it changes nothing: none of the methods is its own"]
    if countermeasure.uses_labels:
        says.append("labels are read or changed")
    if countermeasure.clean_images:
        known = ", and which images of the set they are" if countermeasure.needs_pairs else ""
        known = ", and has them protected" if countermeasure.queries else known
        says.append(f"needs {countermeasure.clean_images:,} clean images{known}")
    findings.note("methods", "; ".join(says), methods=methods)
    if countermeasure.identity_note:
        findings.note("identity", countermeasure.identity_note)


def _check_purify(
    findings: Findings, countermeasure: Countermeasure, data: ImageSet, context: Callable[[int], Context], seed: int
) -> None:
    device, watch = context(seed).device, Watch(data)

    def purify(given: ImageSet, run: int) -> ImageSet:
        return countermeasure.purify(given, context(run))

    first = trial(lambda: purify(data, seed), device, 1, findings)
    purified = first.result
    watch.check(findings)
    kept = _expected(countermeasure, data, purified, context(seed))
    if not check_set(findings, kept, purified):
        return
    changed = note_change(findings, np.asarray(kept.images), np.asarray(purified.images))
    if changed:
        check_order(findings, np.asarray(kept.images), np.asarray(purified.images))
    again = trial(lambda: purify(data, seed), device, 2, findings)
    other = trial(lambda: purify(data, seed + 1), device, 2, findings)
    same = np.array_equal(purified.images, again.result.images)
    check_generators(
        findings, again.drew or other.drew, same, not np.array_equal(again.result.images, other.result.images)
    )
    if not any(part.uses_labels for part in purifiers(countermeasure)) and same:
        turned = ImageSet(data.images, np.roll(data.labels, 1), data.class_names, data.source)
        unmoved = trial(lambda: purify(turned, seed), device, 2, findings).result.images
        blind = np.array_equal(purified.images, unmoved)
        findings.check("blind", blind, "labels make no difference" if blind else "reads labels without uses_labels")
    [seconds] = [again.seconds] if again.seconds > LONG_SECONDS else shortest(device, lambda: purify(data, seed))
    note_cost(findings, seconds, max(again.memory_mb, other.memory_mb), len(data), device)
    stored = any(part.cache_purified for part in purifiers(countermeasure))
    if 1000 * seconds / len(data) > SLOW_MILLISECONDS and not stored:
        findings.note("slow", "purified sets are not kept, and made for every cell: set cache_purified = True")


def check_odd_countermeasure(
    findings: Findings, countermeasure: Countermeasure, ctx: Context, seed: int, usual: Usual
) -> None:
    """Check ``purify`` and ``augment`` on odd sets, as far as there is time."""

    def run(data: ImageSet, found: Findings) -> None:
        clean_data.check(countermeasure, len(data))
        if has(countermeasure, "purify"):
            of = fresh(ctx, seed, *_owned(countermeasure, data, data, seed))
            result = trial(lambda: countermeasure.purify(data, of), ctx.device, 1, found).result
            check_set(found, _expected(countermeasure, data, result, of), result)
        if has(countermeasure, "augment"):
            _check_odd_augment(found, countermeasure, data, ctx, seed)

    if has(countermeasure, "purify") or has(countermeasure, "augment"):
        check_odd_sets(findings, run, usual)


def _check_odd_augment(
    findings: Findings, countermeasure: Countermeasure, data: ImageSet, ctx: Context, seed: int
) -> None:
    """Check shape, range and finiteness of a batch, and that the one that was given is left as it was."""
    import torch

    x, y = batch(data, ctx.device)
    images, labels = x.clone(), y.clone()
    generator = torch.Generator(ctx.device).manual_seed(seed)
    changed, _ = trial(lambda: countermeasure.augment(x, y, generator), ctx.device, 1, findings).result
    check_batch(findings, images, changed)
    same = torch.equal(x, images) and torch.equal(y, labels)
    findings.hold("inputs", same, "left as they were" if same else "the batch that was given is changed")
