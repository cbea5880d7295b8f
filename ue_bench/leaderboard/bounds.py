"""Summarise a protector's perturbation, and tell which rows have the same kind of bound."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from ue_bench.store.schema import Budget, Result

UNBOUNDED = "unbounded"
CLASSES = {"l2": "L2", "mse": "mean squared error", "rms": "mean squared error", "pixels": "pixels"}


@dataclass(frozen=True)
class PerturbationSummary:
    """A protector's perturbation: the largest Linf over all seeds, means of the rest, in units of ``Budget``."""

    declared: str
    linf_max: int
    rms: float
    psnr: float | None
    ssim: float

    @property
    def exceeds(self) -> bool:
        """Whether the measured Linf is above a declared ``linf K/255``."""
        bounds = [float(k) for k in re.findall(r"\blinf\s+(\d+(?:\.\d+)?)/255", self.declared)]
        return bool(bounds) and self.linf_max > math.floor(max(bounds) + 1e-9)

    @property
    def perturbation_class(self) -> str:
        """What rows have in common that may be ranked together: the kind of bound they declare and keep.

        Linf rows are of one class where the bound is the same; root mean square and mean squared error are one kind.
        """
        if self.exceeds:
            return UNBOUNDED
        kinds = set()
        for text in self.declared.split(" / "):
            kind, _, bound = text.strip().partition(" ")
            kinds.add(f"Linf {bound}" if kind == "linf" else CLASSES.get(kind, UNBOUNDED))
        return kinds.pop() if len(kinds) == 1 else UNBOUNDED


def measured(results: Iterable[Result]) -> PerturbationSummary:
    """Summarise the budgets of one protector: each counts once, however many cells share the set."""
    budgets: list[Budget] = sorted({r.budget for r in results}, key=repr)
    psnr = [b.psnr for b in budgets if b.psnr is not None]
    return PerturbationSummary(
        declared=" / ".join(sorted({b.declared for b in budgets})),
        linf_max=max(b.linf_max for b in budgets),
        rms=fmean(b.rms for b in budgets),
        psnr=fmean(psnr) if psnr else None,
        ssim=fmean(b.ssim for b in budgets),
    )
