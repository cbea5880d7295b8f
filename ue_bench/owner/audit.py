"""Compare protected images with the clean ones: what was changed, and what should not have been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract.bounds import Bound, Kind, read_bound
from ..errors import UserError, ValidationError
from ..store.perturbation import Changes, Measurement
from ..store.schema import Budget
from .pictures import digest

SHOWN = 10  # names in a line
ONE_SIDED = 0.05  # of the changed values move the other way, or fewer


def exceeds(declared: str, measured: dict[str, Any]) -> bool:
    """Return whether a measured budget, as plain data, is over the declared one; False for forms it does not tell."""
    try:
        bound = read_bound(declared)
    except UserError:
        return False
    rms = measured["rms"] / 255
    reached = {"linf": measured["linf_max"] / 255, "rms": rms, "mse": rms**2}
    return bound.kind in reached and reached[bound.kind] > bound.upper


@dataclass(frozen=True)
class Batch:
    """Images of one size, N x H x W x 3, clean and protected, with their names and, where known, their classes."""

    names: list[str]
    classes: list[str]
    clean: NDArray[np.uint8]
    protected: NDArray[np.uint8]


@dataclass
class Names:
    """A count of names, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(name)

    def __str__(self) -> str:
        rest = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {rest:,} more" if rest else "")


@dataclass(frozen=True)
class Verdict:
    """A budget beside what was measured: the worst image or the total, and the images that break it.

    On the scale of the budget; None is the infinite PSNR of equal images.
    """

    declared: str
    kept: bool
    measured: float | None
    broken: Names


@dataclass(frozen=True)
class AuditReport:
    """The results of an audit. ``problems`` are ways in which the two sets do not belong together."""

    images: int
    classes: int
    sizes: dict[str, int]
    measured: Budget
    l2_max: float
    l0_max: int
    ssim_min: float
    budgets: list[Verdict]
    raised: float  # share of the changed values
    lowered: float
    mean_change: list[float]  # red, green, blue, in gray levels
    unchanged: Names
    constant: Names
    black: Names
    classes_unchanged: Names
    classes_constant: Names
    classes_black: Names
    duplicates: Names
    order_checked: int
    order_right: int
    labels: str
    problems: dict[str, Names]

    @property
    def passed(self) -> bool:
        return all(v.kept for v in self.budgets) and not self.problems

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "measured": self.measured.model_dump(), "passed": self.passed}


class Audit:
    """A comparison that takes in batches of pairs and sums them up in ``report``."""

    def __init__(self, bounds: Iterable[Bound]) -> None:
        self.bounds = list(bounds)
        self.measurement = Measurement()
        self.sizes: Counter[str] = Counter()
        self.worst: dict[Kind, float] = {"linf": 0.0, "l2": 0.0, "pixels": 0.0}
        self.ssim_min = 1.0
        self.broken = [Names() for _ in self.bounds]
        self.raised, self.lowered = 0, 0
        self.change_sum = np.zeros(3)
        self.unchanged, self.constant, self.black, self.duplicates = Names(), Names(), Names(), Names()
        self.by_class: dict[str, Counter[str]] = {}
        self.seen: dict[bytes, tuple[str, bytes]] = {}
        self.order_checked, self.order_right = 0, 0

    def take(self, batch: Batch) -> None:
        """Measure some more images."""
        clean, protected = batch.clean, batch.protected
        changes = self.measurement.add(clean, protected)
        self.sizes[f"{clean.shape[2]}x{clean.shape[1]}"] += len(clean)
        self._bounds(changes, batch.names)
        change = protected.astype(np.int16) - clean
        self.raised += int((change > 0).sum())
        self.lowered += int((change < 0).sum())
        self.change_sum += change.sum(axis=(0, 1, 2))
        self._contents(batch, changes)
        self._order(clean, protected)

    def _bounds(self, changes: Changes, names: list[str]) -> None:
        measured: dict[Kind, NDArray[Any]] = {"linf": changes.linf / 255, "l2": changes.l2, "pixels": changes.l0}
        for kind, values in measured.items():
            self.worst[kind] = max(self.worst[kind], float(values.max()))
        self.ssim_min = min(self.ssim_min, float(changes.ssim.min()))
        for bound, broken in zip(self.bounds, self.broken, strict=True):
            for index in np.flatnonzero(measured[bound.kind] > bound.upper) if bound.kind in measured else ():
                broken.add(names[index])

    def _contents(self, batch: Batch, changes: Changes) -> None:
        for name, label, before, after, linf in zip(
            batch.names, batch.classes, batch.clean, batch.protected, changes.linf, strict=True
        ):
            counts = self.by_class.setdefault(label, Counter())
            counts["all"] += 1
            if linf == 0:
                self.unchanged.add(name)
                counts["unchanged"] += 1
            if _even(after):
                counts["constant"] += 1
                if not _even(before):
                    self.constant.add(name)
                    counts["made constant"] += 1
            if not after.any():
                counts["black"] += 1
                if before.any():
                    self.black.add(name)
                    counts["made black"] += 1
            was, now = digest(before), digest(after)
            first, its = self.seen.setdefault(now, (name, was))
            if its != was:
                self.duplicates.add(f"{first} = {name}")

    def _order(self, clean: NDArray[np.uint8], protected: NDArray[np.uint8]) -> None:
        """Count images that are nearer to their own clean one than to three others of the batch."""
        if len(clean) < 2:
            return
        own_errors = _errors(protected, clean)
        shifts = range(1, min(3, len(clean) - 1) + 1)
        other_errors = np.stack([_errors(protected, np.roll(clean, shift, axis=0)) for shift in shifts])
        self.order_checked += len(clean)
        self.order_right += int((own_errors <= other_errors.min(axis=0)).sum())

    def report(self, labels: str, problems: dict[str, Names]) -> AuditReport:
        """Return the results so far. Raises ValidationError when no image was compared."""
        if not self.measurement.images:
            reasons = "; ".join(f"{what}: {names}" for what, names in problems.items())
            raise ValidationError(f"no image to compare{': ' + reasons if reasons else ''}", "check both paths")
        problems = {what: names for what, names in problems.items() if names.count}
        if self.order_right * 2 < self.order_checked:
            problems["nearer to another clean image than to their own"] = Names(self.order_checked - self.order_right)
        measured = self.measurement.result(", ".join(bound.text for bound in self.bounds) or "none")
        changed = max(1, self.raised + self.lowered)
        values = self.measurement.values / 3
        whole = {what: Names() for what in ("unchanged", "constant", "black")}
        for label, counts in self.by_class.items():
            for what, names in whole.items():
                new = what == "unchanged" or counts[f"made {what}"]
                if new and counts[what] == counts["all"] and label:
                    names.add(label)
        return AuditReport(
            images=self.measurement.images,
            classes=len(self.by_class.keys() - {""}),
            sizes=dict(self.sizes.most_common()),
            measured=measured,
            l2_max=self.worst["l2"],
            l0_max=int(self.worst["pixels"]),
            ssim_min=self.ssim_min,
            budgets=[self._verdict(*each, measured) for each in zip(self.bounds, self.broken, strict=True)],
            raised=self.raised / changed,
            lowered=self.lowered / changed,
            mean_change=(self.change_sum / values).tolist(),
            unchanged=self.unchanged,
            constant=self.constant,
            black=self.black,
            classes_unchanged=whole["unchanged"],
            classes_constant=whole["constant"],
            classes_black=whole["black"],
            duplicates=self.duplicates,
            order_checked=self.order_checked,
            order_right=self.order_right,
            labels=labels,
            problems=problems,
        )

    def _verdict(self, bound: Bound, broken: Names, measured: Budget) -> Verdict:
        if bound.kind in self.worst:
            return Verdict(bound.text, not broken.count, self.worst[bound.kind], broken)
        if bound.kind in ("psnr", "ssim"):
            reached = measured.ssim if bound.kind == "ssim" else measured.psnr
            return Verdict(bound.text, reached is None or reached >= bound.limit, reached, broken)
        rms = measured.rms / 255
        total = rms if bound.kind == "rms" else rms**2
        return Verdict(bound.text, total <= bound.upper, total, broken)


def _even(image: NDArray[np.uint8]) -> bool:
    return bool((image == image[:1, :1]).all())


def _errors(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
    difference = a.astype(np.int32) - b
    errors: NDArray[np.int64] = np.square(difference).reshape(len(a), -1).sum(axis=1, dtype=np.int64)
    return errors


def text(report: AuditReport) -> str:
    """Write the report for a reader."""
    m = report.measured
    sizes = ", ".join(f"{size} px" + (f" ({n:,})" if len(report.sizes) > 1 else "") for size, n in report.sizes.items())
    noun = "class" if report.classes == 1 else "classes"
    kinds = f", {report.classes} {noun}" if report.classes else ""
    psnr = "infinite: nothing changed" if m.psnr is None else f"{m.psnr:.2f} dB"
    lines = [
        f"images      {report.images:,}{kinds}, {sizes}",
        f"Linf        {m.linf_max}/255 at most, {m.linf_mean:.2f}/255 in the mean; {m.over_8:.2%} of values over 8/255",
        f"L2          {report.l2_max:.4f} at most, {m.l2_mean:.4f} in the mean, on the [0, 1] scale",
        f"L0          {report.l0_max:,} pixels at most, {m.l0_mean:,.1f} in the mean",
        f"RMS, PSNR   {m.rms:.3f}/255, {psnr}",
        f"SSIM        {m.ssim:.4f} in the mean, {report.ssim_min:.4f} at least",
    ]
    for verdict in report.budgets:
        whose = f" by {verdict.broken.count:,} images: {verdict.broken}" if verdict.broken.count else ""
        lines.append(f"budget      {verdict.declared}: {'kept' if verdict.kept else 'BROKEN' + whose}")
    if m.psnr is not None:
        red, green, blue = report.mean_change
        one_sided = " - one-sided" if min(report.raised, report.lowered) <= ONE_SIDED else ""
        lines.append(f"signs       {report.raised:.1%} of the changed values up, {report.lowered:.1%} down{one_sided}")
        lines.append(f"mean change {red:+.2f} red, {green:+.2f} green, {blue:+.2f} blue, in gray levels")
    lines += [
        f"{what:<11} {names.count:,} images: {names}"
        for what, names in (("unchanged", report.unchanged), ("constant", report.constant), ("black", report.black))
        if names.count
    ]
    lines += [
        f"classes     {names.count:,} {what} throughout: {names}"
        for what, names in [
            ("unchanged", report.classes_unchanged),
            ("constant", report.classes_constant),
            ("black", report.classes_black),
        ]
        if names.count
    ]
    if report.duplicates.count:
        lines.append(f"duplicates  {report.duplicates.count:,} that were none: {report.duplicates}")
    if report.order_checked:
        lines.append(
            f"order       {report.order_right:,} of {report.order_checked:,} are nearest to their own clean image"
        )
    lines.append(f"labels      {report.labels}")
    for what, names in report.problems.items():
        lines.append(f"PROBLEM     {names.count:,} {what}{': ' + str(names) if names.first else ''}")
    return "\n".join(lines)
