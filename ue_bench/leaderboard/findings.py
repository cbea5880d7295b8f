"""Say in three sentences what a panel shows: what undoes most, what holds best, and whether anything withstands all.

References and rows that somebody reported count in none of them. A share is the recovered share of :mod:`.headline`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from . import formats
from .badges import REPORTED
from .bounds import UNBOUNDED
from .headline import BROKEN, Column, Recovery, recovery
from .intervals import Estimate
from .statistics import Panel, Row

MOST_NAMED = 3  # methods of which the same is said


@dataclass(frozen=True)
class Finding:
    """A sentence or two, in pieces: each with whether it is the name of a method."""

    pieces: tuple[tuple[str, bool], ...]

    @classmethod
    def of(cls, *pieces: str | tuple[str, ...]) -> Finding:
        """Return a finding of texts and, each in a tuple, names: ``"no ", ("em",), " withstands"``."""
        return cls(tuple((piece, False) if isinstance(piece, str) else (piece[0], True) for piece in pieces))

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


def main_panel(panels: Sequence[Panel]) -> Panel | None:
    """Return the panel with most results, the first of equals; None without any."""
    return max(panels, key=lambda panel: sum(len(row.cells) for row in panel.rows), default=None)


def findings(panel: Panel) -> list[Finding]:
    """Return what there is to say of a panel, at most three findings; fewer of one that is hardly filled."""
    return list(_findings(panel))


def _findings(panel: Panel) -> Iterator[Finding]:
    rows = [row for row in panel.rows if not row.reference and row.badge != REPORTED]
    # A row of one cell would leave that column to compare, and no other.
    best = strongest_column(panel, [row for row in rows if row.complete] or rows)
    if best is not None:
        yield _of_column(panel, *best)
    ranked = [row for row in rows if row.complete and row.recovery is not None]
    bounded = [row for row in ranked if row.budget.perturbation_class != UNBOUNDED]
    if not bounded:
        return
    yield _of_row(panel, min(bounded, key=lambda row: (_recovery(row).mean.mean, row.protector)), len(bounded))
    yield _of_all(bounded)


def strongest_column(panel: Panel, rows: Sequence[Row]) -> tuple[str, Recovery] | None:
    """Return the countermeasure under which protected images give the highest mean accuracy, and shares by row.

    Only of columns that every row has, with a clean row above chance; None without any.
    """
    shares: dict[str, Recovery] = {}
    for column in panel.counted:
        cells = [row.cells[column] for row in rows if column in row.cells]
        clean = next((row.clean[column] for row in rows if column in row.clean), None)
        if rows and clean is not None and len(cells) == len(rows):
            pairs = [Column(cell.protector, cell.by_seed, clean.by_seed) for cell in cells]
            found = recovery(pairs, panel.chance, panel.dataset.test)
            if found is not None:
                shares[column] = found
    if not shares:
        return None
    column = max(shares, key=lambda name: (fmean(row.cells[name].mean for row in rows), name))
    return column, shares[column]


def _of_column(panel: Panel, column: str, found: Recovery) -> Finding:
    rows = [row for row in panel.rows if row.protector in found.shares]
    accuracy = fmean(row.cells[column].mean for row in rows)
    clean = rows[0].clean[column].mean
    return Finding.of(
        "An adversary gets most with ", (column,), f": {formats.percent(accuracy)} % accuracy in the mean of "
        f"{len(rows)} protectors, where clean images give {formats.percent(clean)} %. That is a recovered share of "
        f"{share(found.mean)}, and breaks {len(found.broken)} of {len(rows)}.",
    )  # fmt: skip


def _of_row(panel: Panel, row: Row, among: int) -> Finding:
    found = _recovery(row)
    rank = panel.ranks.get(row.protector)
    ranked = f", rank {rank.text()} of {rank.rows} in its class" if rank and rank.rows > 1 else ""
    budget = row.budget
    return Finding.of(
        "Of ", f"{among} protectors with a bound " if among > 1 else "protectors with a bound ", (row.protector,),
        f" ({budget.perturbation_class}, PSNR {formats.psnr(budget.psnr)} dB{ranked}) leaves an adversary least: a "
        f"recovered share of {share(found.mean)} in the mean of {len(found.shares)} countermeasures. "
        "In the worst one, ",
        (found.worst,), f", it is {found.shares[found.worst]:.0f} %.",
    )  # fmt: skip


def _of_all(rows: Sequence[Row]) -> Finding:
    broken = {row.protector: _recovery(row).broken for row in rows}
    firm = [name for name, by in broken.items() if not by]
    columns = len(rows[0].columns)
    if firm:
        return Finding.of(
            f"{len(firm)} of {len(rows)} protectors with a bound withstand all {columns} countermeasures: ",
            *_listed(firm), f". No column gives back {BROKEN:.0f} %.",
        )  # fmt: skip
    by_column = Counter(column for by in broken.values() for column in by)
    most = max(by_column.values())
    strongest = [column for column in rows[0].columns if by_column[column] == most]
    least = min(len(by) for by in broken.values())
    return Finding.of(
        f"None of {len(rows)} protectors with a bound withstands all {columns} countermeasures: each is broken by "
        f"{least} or more, which give back {BROKEN:.0f} % of the clean accuracy above chance. Most, {most} of "
        f"{len(rows)}, are broken by ", *_listed(strongest), ".",
    )  # fmt: skip


def _listed(names: Sequence[str]) -> Iterator[str | tuple[str, ...]]:
    """Yield names with commas between them, and how many more there are than are named."""
    for i, name in enumerate(names[:MOST_NAMED]):
        yield from [", "] * (i > 0)
        yield (name,)
    if len(names) > MOST_NAMED:
        yield f" and {len(names) - MOST_NAMED} more"


def share(value: Estimate) -> str:
    """Write a share in percent with its interval, and what that is of."""
    if value.half_width is not None:
        return f"{value.mean:.0f} ± {value.half_width:.0f} % (n = {value.n})"
    if value.low is None or value.high is None:
        return f"{value.mean:.0f} % (n = {value.n})"
    return (
        f"{value.mean:.0f} % (n = {value.n}; 95 % interval of the test set alone {value.low:.0f} to {value.high:.0f})"
    )


def _recovery(row: Row) -> Recovery:
    assert row.recovery is not None
    return row.recovery
