"""Say what a panel shows, in sentences that hold at 95 % together, and in a table for the front page of a project.

A sentence names a countermeasure that breaks a protector, or one that does not, only where that is certain: where an
interval of the recovered share lies on one side of 80 %. All cells of the panel share an error of 5 % (Bonferroni). At
n = 1 the intervals are of the test set alone, and the sentences say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import UserError, did_you_mean
from . import formats
from .bounds import UNBOUNDED
from .cell_summary import EARLY
from .headline import BROKEN
from .print_agreement import SHORT_HEADS, short_lines
from .ranks import LEVEL
from .statistics import Panel, Row
from .summary import lines
from .tables import pipes, plain


@dataclass(frozen=True)
class Certain:
    """What is certain of a panel's rows that are no reference and complete: columns that break them, and that do not.

    ``measured`` are columns that break them by what was measured. All by row, in the order of the panel's classes.
    """

    panel: Panel
    broken: Mapping[str, tuple[str, ...]]
    kept: Mapping[str, tuple[str, ...]]
    measured: Mapping[str, tuple[str, ...]]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that shares are defined in."""
        return tuple(c for c in self.panel.counted if c not in self.panel.undefined)

    def sentences(self) -> list[str]:
        """Return what breaks most, what survives most, and what does not protect at all."""
        if not self.broken:
            return []
        return [self._breaking(), self._surviving(), self._plain()]

    def _breaking(self) -> str:
        """Return which two countermeasures break the most protectors, and which protectors they leave."""
        total = len(self.broken)
        counts = {
            c: tuple(sum(c in names for names in rows.values()) for rows in (self.measured, self.broken))
            for c in self.columns
        }
        said = []
        for column in sorted(self.columns, key=lambda c: counts[c], reverse=True)[:2]:
            measured, sure = counts[column]
            certainly = f", {sure} of them for certain," if sure < measured else ""
            spared = [row for row, names in self.kept.items() if column in names]
            left = f" and certainly not {_names(spared)}" if spared else ""
            said.append(f"`{column}` breaks {measured} of {total} protectors{certainly}{left}".rstrip(","))
        return f"{'; '.join(said)}."

    def _surviving(self) -> str:
        """Return which protectors survive the most countermeasures, and which of those with a bound."""
        best = self._best(list(self.kept))
        said = [self._survive(best, f"of {len(self.columns)} columns")]
        bounded = [row for row in self.kept if row not in self._unbounded]
        if bounded and not set(best) <= set(bounded):
            said.append(f"of those with a bound {self._survive(self._best(bounded), 'of them')}")
        return f"{'; '.join(said)}."

    def _best(self, rows: Sequence[str]) -> list[str]:
        most = max(len(self.kept[row]) for row in rows)
        return [row for row in rows if len(self.kept[row]) == most]

    def _survive(self, best: Sequence[str], what: str) -> str:
        most = len(self.kept[best[0]])
        text = f"{_names(best)} {'survives' if len(best) == 1 else 'survive'} {most} {what}"
        breaking = [self.broken[row] for row in best]
        lost = list(dict.fromkeys(column for columns in breaking for column in columns))
        if not lost:
            return text
        return f"{text}, broken {'' if len(set(map(frozenset, breaking))) == 1 else 'between them '}by {_names(lost)}"

    def _plain(self) -> str:
        """Return which protectors plain training gets through."""
        plain, total = self.panel.board.plain, len(self.broken)
        through = [row for row, names in self.broken.items() if plain in names]
        held = sum(plain in names for names in self.kept.values())
        if not through:
            return f"Plain training breaks none of {total} protectors, and {held} of them certainly survive it."
        return f"Plain training alone breaks {_names(through)}; {held} of {total} protectors certainly survive it."

    @property
    def _unbounded(self) -> set[str]:
        return {row.protector for row in self.panel.classes.get(UNBOUNDED, ())}


def certain(panel: Panel) -> Certain:
    """Return what is certain of a panel."""
    ordered = [row for rows in panel.classes.values() for row in rows if row.complete and row.recovery]
    cells = sum(len(row.recovery.shares) for row in ordered if row.recovery)
    bounds = {row.protector: _bounds(row, panel, cells) for row in ordered}
    return Certain(
        panel,
        {name: tuple(c for c, (low, _) in of.items() if low >= BROKEN) for name, of in bounds.items()},
        {name: tuple(c for c, (_, high) in of.items() if high < BROKEN) for name, of in bounds.items()},
        {row.protector: tuple(row.recovery.broken) for row in ordered if row.recovery},
    )


def _bounds(row: Row, panel: Panel, cells: int) -> dict[str, tuple[float, float]]:
    """Return intervals of a row's recovered shares, in percent, that hold for all ``cells`` together at 95 %.

    The errors of the row and of the clean row count as unrelated, which is wide where both fail on the same images.
    """
    intervals = {}
    assert row.recovery is not None
    for column, share in row.recovery.shares.items():
        cell, clean = row.cells[column], row.clean[column]
        error = math.hypot(row.error(cell), share / 100 * row.error(clean))
        degrees = min(row.spread(cell).degrees, row.spread(clean).degrees)
        half = quantile(degrees, (1 - LEVEL) / cells) * 100 * error / (clean.mean - row.chance)
        intervals[column] = share - half, share + half
    return intervals


def quantile(degrees: int, error: float) -> float:
    """Return the two-sided quantile at ``error``: Student's t where a spread is estimated, else the normal one."""
    from scipy.special import ndtri, stdtrit

    found: float = (stdtrit(degrees, 1 - error / 2) if degrees else ndtri(1 - error / 2)).item()
    return found


def front_page(panel: Panel, columns: Sequence[str] = ()) -> str:
    """Return Markdown for the front page of a project: setting, table with these ``columns``, agreement, sentences.

    Raises UserError for a column that the panel does not have.
    """
    for column in columns:
        if column not in panel.columns:
            raise UserError(f"the board has no column {column!r}", did_you_mean(column, panel.columns))
    parts = [_setting(panel), _table(panel, columns)]
    if found := short_lines(panel):
        parts += [AGREEMENT, pipes(SHORT_HEADS, [[plain(source), *texts] for source, *texts in found])]
    said = certain(panel).sentences()
    if said:
        parts.append(f"{_confidence(panel)}\n" + "\n".join(f"- {sentence}" for sentence in said))
    return "\n\n".join(parts) + "\n"


def _setting(panel: Panel) -> str:
    d = panel.dataset
    low, high = panel.n
    seeds = (
        "one seed a cell (n=1: the spread over seeds is not known)"
        if high == 1
        else f"n = {formats.span(low, high)} seeds a cell"
    )
    size = f"{d.train:,} training and {d.test:,} test images"
    return (
        f"Test accuracy in percent of the victim `{panel.victim}` on clean images, lower is better protection: "
        f"`{d.selector}` ({d.source}, {size}), protocol `{panel.protocol}` v{panel.protocol_version}, "
        f"{panel.precision}, {seeds}. The *recovered share* is the mean share of the clean accuracy that an adversary "
        "gets back, "
        f"*broken by* the number of columns that give back {BROKEN:.0f} % of it. Rows are ranked within their "
        "perturbation class, and share a rank where they cannot be told apart. "
        f"^: an earlier epoch is more than {EARLY:.0f} points better."
    )


def _table(panel: Panel, columns: Sequence[str]) -> str:
    """Return the table of complete rows."""
    heads = ["class", "rank", "protector", "recovered share", "broken by", *columns, f"mean of {len(panel.counted)}"]
    heads += ["RMS", "PSNR"]
    body = []
    for name, row in lines(panel):
        if not row.complete:
            continue
        rank, back = panel.ranks.get(row.protector), row.recovery
        cells = [formats.cell(row.cells[c]) if c in row.cells else formats.MISSING for c in columns]
        body.append(
            [
                name,
                rank.text() if rank else formats.MISSING,
                f"`{row.protector}`",
                formats.recovered(row),
                f"{len(back.broken)} of {len(back.shares)}" if back else formats.MISSING,
                *cells,
                formats.mean(row),
                f"{row.budget.rms:.1f}",
                formats.psnr(row.budget.psnr),
            ]
        )
    return pipes(heads, body, left=(0, 2))


def _confidence(panel: Panel) -> str:
    of = "the error of the test set alone" if panel.n[1] == 1 else "the spread over seeds and the error of the test set"
    return (
        f"Certain at 95 %, all of it together, counting {of}; a protector is *broken* by what gives back at least "
        f"{BROKEN:.0f} % of the clean accuracy under the same countermeasure, and *survives* what certainly gives back "
        "less:"
    )


def _names(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


AGREEMENT = (
    "How far the board and printed tables agree, over the protectors and columns that both have: in their order "
    "(Kendall's tau), and in which cells leave an adversary half of the clean accuracy (signs, with Cohen's kappa)."
)
BEGIN, END = "<!-- ue-bench leaderboard summary", "<!-- end of summary -->"


def replaced(page: str, text: str, command: str) -> str:
    """Return a page with ``text`` in place of what stands between the two marks; ``command`` stands in the first.

    Raises UserError for a page without them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError("the page has no place for a summary", f"write two lines: {BEGIN} --> and {END}")
    return f"{before}<!-- {command} -->\n\n{text}\n{END}{after}"
