"""Summarise a panel, one line a protector: rank within its perturbation class, recovered share, worst case, peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import formats
from .board import BoardInfo
from .headline import BROKEN
from .statistics import Panel, Row

if TYPE_CHECKING:
    import pandas

HEADS = ("rank", "recovered share", "worst column", "broken by", "mean", "worst case", "peak", "source")
LEGEND = (
    "The recovered share is what an adversary gets back, in percent: (accuracy - chance) / (clean accuracy - chance), "
    f"both under the same countermeasure. A countermeasure that recovers {BROKEN:.0f} % or more breaks a protector. "
    "Ranks are by mean recovered share, within one perturbation class; rows that cannot be told apart at 95 % share "
    "the lower rank (paired bootstrap over seeds and columns). Peak: the best epoch under any countermeasure, chosen "
    "on the test set."
)


def lines(panel: Panel) -> Iterator[tuple[str, Row]]:
    """Yield rows with their perturbation class, reference rows first, which have none."""
    for row in panel.rows:
        if row.reference:
            yield "reference", row
    for name, rows in panel.classes.items():
        for row in rows:
            yield name, row


def texts(panel: Panel, row: Row) -> list[tuple[str, str]]:
    """Return the value and the column's name, empty where none belongs to it, for each of ``HEADS``."""
    rank, back, peak = panel.ranks.get(row.protector), row.recovery, row.highest_peak
    worst, column = (f"{back.shares[back.worst]:.0f} %", back.worst) if back else (formats.MISSING, "")
    return [
        (rank.text() if rank else formats.MISSING, ""),
        (formats.recovered(row), ""),
        (worst, column),
        (f"{len(back.broken)} of {len(back.shares)}" if back else formats.MISSING, ""),
        (formats.mean(row), ""),
        (formats.worst(row), row.worst.countermeasure if row.worst else ""),
        (formats.percent(peak.peak) if peak else formats.MISSING, peak.countermeasure if peak else ""),
        (formats.source(row), ""),
    ]


def facts(panel: Panel) -> list[str]:
    """Return what a reader must know about the summary's numbers."""
    said = []
    if panel.repeated:
        names = ", ".join(panel.repeated)
        said.append(
            f"Means are over {len(panel.counted)} columns: {names} repeats {panel.board.plain} and counts with it."
        )
    if panel.undefined:
        said.append(f"No share under {', '.join(panel.undefined)}: clean training itself stays near chance there.")
    rows = [row for row in panel.rows if not row.reference and row.worst]
    counts = {sum(c in row.cells for c in row.columns) for row in rows}
    if counts and max(counts) > 1:  # the largest of one number is that number
        most_measured = f"{'up to ' * (len(counts) > 1)}{max(counts)}"
        most, share = max(row.worst_bias for row in rows), max(row.recovery_bias for row in rows)
        how = (
            f"seeds, by which cells of like shares spread by {' to '.join(f'{d:.1f}' for d in panel.spreads.range)} "
            "points, and the test set"
            if panel.spreads.range
            else "the test set alone, for so few seeds show no spread: the true bias is larger"
        )
        said.append(
            f"Worst cases are the largest of {most_measured} measured numbers and so too high, by {most:.1f} "
            f"points or {share:.1f} % of a share at most (parametric bootstrap: {how}); they are not corrected."
        )
    cells = [cell for row in panel.rows for cell in row.cells.values()]
    early = [cell for cell in cells if cell.peaks_early]
    if early:
        names = ", ".join(dict.fromkeys(cell.protector for cell in early))
        said.append(
            f"In {len(early)} of {len(cells)} cells an earlier epoch is more than 5 points better than the last one, "
            f"marked ^: an adversary who stopped there would have that. They are of {names}."
        )
    return said


CSV: dict[str, Callable[[Panel, str, Row], Any]] = {
    "dataset": lambda p, k, r: p.dataset.selector,
    "fingerprint": lambda p, k, r: p.dataset.fingerprint,
    "victim": lambda p, k, r: p.victim,
    "protocol": lambda p, k, r: p.protocol,
    "protocol_version": lambda p, k, r: p.protocol_version,
    "precision": lambda p, k, r: p.precision,
    "fraction": lambda p, k, r: p.fraction,
    "protector": lambda p, k, r: r.protector,
    "class": lambda p, k, r: k,
    "rank_low": lambda p, k, r: p.ranks[r.protector].low if r.protector in p.ranks else None,
    "rank_high": lambda p, k, r: p.ranks[r.protector].high if r.protector in p.ranks else None,
    "ranked": lambda p, k, r: p.ranks[r.protector].rows if r.protector in p.ranks else None,
    "n": lambda p, k, r: r.n[0],
    "source": lambda p, k, r: r.badge,
    "clean_commits": lambda p, k, r: r.clean_commits,
    "complete": lambda p, k, r: r.complete,
    "recovered_mean": lambda p, k, r: _rounded(r.recovery.mean.mean if r.recovery else None),
    "recovered_low": lambda p, k, r: _rounded(r.recovery.mean.low if r.recovery else None),
    "recovered_high": lambda p, k, r: _rounded(r.recovery.mean.high if r.recovery else None),
    "worst_recovered": lambda p, k, r: _rounded(r.recovery.shares[r.recovery.worst] if r.recovery else None),
    "worst_recovered_by": lambda p, k, r: r.recovery.worst if r.recovery else None,
    "worst_recovered_bias": lambda p, k, r: _rounded(r.recovery_bias if r.recovery else None),
    "broken_by": lambda p, k, r: len(r.recovery.broken) if r.recovery else None,
    "columns": lambda p, k, r: len(r.columns),
    "mean": lambda p, k, r: _rounded(r.mean.mean if r.mean else None),
    "mean_low": lambda p, k, r: _rounded(r.mean.low if r.mean else None),
    "mean_high": lambda p, k, r: _rounded(r.mean.high if r.mean else None),
    "worst": lambda p, k, r: _rounded(r.worst.mean if r.worst else None),
    "worst_by": lambda p, k, r: r.worst.countermeasure if r.worst else None,
    "worst_bias": lambda p, k, r: _rounded(r.worst_bias if r.worst else None),
    "peak": lambda p, k, r: _rounded(r.highest_peak.peak if r.highest_peak else None),
    "peak_by": lambda p, k, r: r.highest_peak.countermeasure if r.highest_peak else None,
}


def frame(panels: Sequence[Panel]) -> pandas.DataFrame:
    """Return one row a protector; see ``CSV`` for the columns."""
    import pandas as pd

    values = [[read(panel, *line) for read in CSV.values()] for panel in panels for line in lines(panel)]
    return pd.DataFrame(values, columns=pd.Index(CSV), dtype=object)


def csv(board: BoardInfo, panels: Sequence[Panel]) -> str:
    """Return one line a protector: ``protectors.csv``."""
    table = frame(panels)
    table.insert(0, "board", board.name)
    return str(table.to_csv(index=False, lineterminator="\n"))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
