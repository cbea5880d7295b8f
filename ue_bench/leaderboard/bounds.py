"""Summarise a protector's perturbation, and tell which rows have the same kind of bound."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from ..contract.bounds import over_by_rounding, read_bound
from ..errors import UserError
from ..store.schema import Budget, DatasetInfo, Result

UNBOUNDED = "unbounded"
CLASSES = {"l2": "L2", "mse": "mean squared error", "rms": "mean squared error", "pixels": "pixels"}
AT = re.compile(r" at (\d+)x(\d+)$")  # the size that a bound on a norm is of
SEVERAL = " / "  # between what seeds declare


@dataclass(frozen=True)
class PerturbationSummary:
    """A protector's perturbation: the largest Linf over all seeds, means of the rest, in units of ``Budget``.

    ``exceeded`` says what is over its declared bound, such as ``Linf 9``; it is empty where nothing is.
    """

    declared: str
    linf_max: int
    rms: float
    psnr: float | None
    ssim: float
    exceeded: str = ""

    @property
    def exceeds(self) -> bool:
        """Whether something that was measured is over a declared bound."""
        return bool(self.exceeded)

    @property
    def perturbation_class(self) -> str:
        """What rows have in common that may be ranked together: the kind of bound they declare and keep.

        Linf rows are of one class where the bound is the same; root mean square and mean squared error are one kind.
        """
        if self.exceeds:
            return UNBOUNDED
        kinds = set()
        for text in self.declared.split(SEVERAL):
            kind, _, bound = text.strip().partition(" ")
            kinds.add(f"Linf {bound}" if kind == "linf" else CLASSES.get(kind, UNBOUNDED))
        return kinds.pop() if len(kinds) == 1 else UNBOUNDED


def measured(results: Iterable[Result], declared: str | None = None) -> PerturbationSummary:
    """Summarise the budgets of one protector: each counts once, however many cells share the set.

    ``declared`` is held against them in place of what they declare themselves.
    """
    found = {r.budget: r.dataset for r in results}
    budgets: list[Budget] = sorted(found, key=repr)
    psnr = [b.psnr for b in budgets if b.psnr is not None]
    over = (exceeded(declared or b.declared, b, found[b]) for b in budgets)
    return PerturbationSummary(
        declared=declared or SEVERAL.join(sorted({b.declared for b in budgets})),
        linf_max=max(b.linf_max for b in budgets),
        rms=fmean(b.rms for b in budgets),
        psnr=fmean(psnr) if psnr else None,
        ssim=fmean(b.ssim for b in budgets),
        exceeded=next(filter(None, over), ""),
    )


def exceeded(declared: str, budget: Budget, images: DatasetInfo) -> str:
    """Say what of a measured budget is over the ``declared`` one; nothing where it is kept or of no known form.

    Linf is that of all images. Of other norms means over images are known, so that single images may be over them
    unseen; what rounding to 8 bits adds to a norm is let pass, see ``over_by_rounding``. A bound at a certain size of
    images says nothing of others.
    """
    size = AT.search(declared)
    if size and tuple(map(int, size.groups())) != (images.height, images.width):
        return ""
    try:
        bound = read_bound(AT.sub("", declared))
    except UserError:
        return ""
    rms = budget.rms / 255
    reached, shown = {
        "linf": (budget.linf_max / 255, f"Linf {budget.linf_max}"),
        "l2": (budget.l2_mean, f"mean L2 {budget.l2_mean:g}"),
        "pixels": (budget.l0_mean, f"mean L0 {budget.l0_mean:g}"),
        "rms": (rms, f"RMS {budget.rms:g}"),
        "mse": (rms**2, f"RMS {budget.rms:g}"),
    }.get(bound.kind, (0.0, ""))
    values = 3 * images.height * images.width
    return "" if reached <= bound.upper or over_by_rounding(bound, reached, values) else shown
