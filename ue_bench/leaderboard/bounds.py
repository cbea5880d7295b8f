"""Summarise a protector's perturbation, and tell which rows have the same kind of bound."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from ..contract.bounds import Bound, over_by_rounding, read_bound
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

        A declaration that cannot be read bounds nothing. Linf rows are of one class where the bound is the same; root
        mean square and mean squared error are one kind.
        """
        if self.exceeds:
            return UNBOUNDED
        kinds = {_class(text.strip()) for text in self.declared.split(SEVERAL)}
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
    """Say what of a measured budget is over the ``declared`` one; nothing where it is kept or cannot be read.

    Linf is that of all images. Of other norms means over images are known, so that single images may be over them
    unseen; what rounding to 8 bits adds to a norm is let pass, see ``over_by_rounding``. A norm that is declared for a
    size of images grows with the root of their pixels.
    """
    bound = _read(declared)
    if bound is None:
        return ""
    if bound.kind in ("psnr", "ssim"):
        reached, shown = {
            "psnr": (math.inf if budget.psnr is None else budget.psnr, f"PSNR {budget.psnr}"),
            "ssim": (budget.ssim, f"SSIM {budget.ssim:g}"),
        }[bound.kind]
        return "" if reached >= bound.limit else shown
    rms, pixels = budget.rms / 255, images.height * images.width
    if (size := AT.search(declared)) is not None:
        bound = replace(bound, limit=bound.limit * math.sqrt(pixels / math.prod(map(int, size.groups()))))
    reached, shown = {
        "linf": (budget.linf_max / 255, f"Linf {budget.linf_max}"),
        "l2": (budget.l2_mean, f"mean L2 {budget.l2_mean:g}"),
        "pixels": (budget.l0_mean, f"mean L0 {budget.l0_mean:g}"),
        "rms": (rms, f"RMS {budget.rms:g}"),
        "mse": (rms**2, f"RMS {budget.rms:g}"),
    }[bound.kind]
    return "" if reached <= bound.upper or over_by_rounding(bound, reached, 3 * pixels) else shown


def _read(declared: str) -> Bound | None:
    """Return a declared bound; None for one that cannot be read, or of images without pixels."""
    size = AT.search(declared)
    if size and not all(map(int, size.groups())):
        return None
    try:
        return read_bound(AT.sub("", declared))
    except UserError:
        return None


def _class(declared: str) -> str:
    bound = _read(declared)
    if bound is None:
        return UNBOUNDED
    return f"Linf {declared.split()[1]}" if bound.kind == "linf" else CLASSES.get(bound.kind, UNBOUNDED)
