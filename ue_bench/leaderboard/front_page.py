"""Say what a panel shows: a table for the front page of a project, and sentences with how often seeds bear them out.

A protector is broken by a countermeasure that gives back at least 80 % of the clean accuracy above chance at every seed
that was measured, and survives one that gives back less at every seed. Where seeds disagree, that is all that is said.
How sure this is shows where cells have several seeds: in how many of them these agree. No interval is claimed for a
cell of one seed, because none holds for all: seeds of most cells lie a point apart, and those of a few, in which a
network is between two solutions, up to twenty-six.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import UserError, did_you_mean
from . import formats
from .badges import REPORTED
from .bounds import UNBOUNDED
from .cell_summary import EARLY
from .headline import BROKEN
from .print_agreement import SHORT_HEADS, short_lines
from .statistics import Panel, Row
from .summary import lines
from .tables import pipes, plain

MOST_NAMED = 6  # cells whose seeds disagree
NEAR = 15.0  # points of recovered share on either side of the limit


@dataclass(frozen=True)
class Verdicts:
    """What the seeds of a panel's complete rows that are no reference say: columns that break them, and that do not.

    ``torn`` are columns of which seeds say this and that. All by row, in the order of the panel's classes. ``several``
    is the number of cells with several seeds, ``near`` of those among them with a seed near the limit, of which seeds
    of ``near_torn`` disagree.
    """

    panel: Panel
    broken: Mapping[str, tuple[str, ...]]
    kept: Mapping[str, tuple[str, ...]]
    torn: Mapping[str, tuple[str, ...]]
    several: int
    near: int
    near_torn: int

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that shares are defined in."""
        return tuple(c for c in self.panel.counted if c not in self.panel.undefined)

    def sentences(self) -> list[str]:
        """Return what breaks most, what survives most, and what does not protect at all."""
        if not self.broken:
            return []
        return [self._breaking(), self._surviving(), self._plain()]

    def sureness(self) -> str:
        """Return how often seeds agree."""
        disagree = [f"`{row}` under `{column}`" for row, columns in self.torn.items() for column in columns]
        if not self.several:
            return "every cell has one seed, so nothing tells how often another one would say otherwise"
        agree = self.several - len(disagree)
        told = f"of {self.several} cells with several seeds these agree in {agree}"
        if not disagree:
            return told
        more = f" and {len(disagree) - MOST_NAMED} more" if len(disagree) > MOST_NAMED else ""
        return (
            f"{told} (of {self.near} with a seed within {NEAR:.0f} points of the limit in "
            f"{self.near - self.near_torn}), and not in {', '.join(disagree[:MOST_NAMED])}{more}"
        )

    def _breaking(self) -> str:
        """Return which two countermeasures break the most protectors, and which protectors they leave."""
        total = len(self.broken)
        counts = {c: sum(c in names for names in self.broken.values()) for c in self.columns}
        said = []
        for column in sorted(self.columns, key=lambda c: counts[c], reverse=True)[:2]:
            spared = [row for row, names in self.kept.items() if column in names]
            torn = [row for row, names in self.torn.items() if column in names]
            left = f", not {_names(spared)}" if spared else ""
            between = f", and seeds disagree on {_names(torn)}" if torn else ""
            said.append(f"`{column}` breaks {counts[column]} of {total} protectors{left}{between}")
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
        if lost:
            text += f", broken {'' if len(set(map(frozenset, breaking))) == 1 else 'between them '}by {_names(lost)}"
        torn = list(dict.fromkeys(column for row in best for column in self.torn[row]))
        return f"{text}, and seeds disagree on {_names(torn)}" if torn else text

    def _plain(self) -> str:
        """Return which protectors plain training gets through."""
        plain, total = self.panel.board.plain, len(self.broken)
        through = [row for row, names in self.broken.items() if plain in names]
        held = sum(plain in names for names in self.kept.values())
        torn = [row for row, names in self.torn.items() if plain in names]
        left = f", and seeds disagree on {_names(torn)}" if torn else ""
        if not through:
            return f"Plain training breaks none of {total} protectors; {held} of them survive it{left}."
        return f"Plain training alone breaks {_names(through)}; {held} of {total} protectors survive it{left}."

    @property
    def _unbounded(self) -> set[str]:
        return {row.protector for row in self.panel.classes.get(UNBOUNDED, ())}


def verdicts(panel: Panel) -> Verdicts:
    """Return what every seed of a panel says of its cells."""
    rows = [row for rows in panel.classes.values() for row in rows if row.complete and row.recovery]
    ordered = [row for row in rows if row.badge != REPORTED]
    found = {row.protector: dict(_by_seed(panel, row)) for row in ordered}

    def where(wanted: set[bool]) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(c for c, seeds in row.items() if {share >= BROKEN for share in seeds} == wanted)
            for name, row in found.items()
        }

    several = [seeds for row in found.values() for seeds in row.values() if len(seeds) > 1]
    near = [seeds for seeds in several if any(abs(share - BROKEN) <= NEAR for share in seeds)]
    near_torn = sum(min(seeds) < BROKEN <= max(seeds) for seeds in near)
    return Verdicts(panel, where({True}), where({False}), where({True, False}), len(several), len(near), near_torn)


def _by_seed(panel: Panel, row: Row) -> Iterator[tuple[str, list[float]]]:
    """Yield recovered shares, one a seed, by column, against the mean of the clean row."""
    assert row.recovery is not None
    for column in row.recovery.shares:
        shares = [panel.share(column, value) for value in row.cells[column].by_seed.values()]
        yield column, [share for share in shares if share is not None]


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
    found_out = verdicts(panel)
    if said := found_out.sentences():
        parts.append(f"{CONFIDENCE} {found_out.sureness()}:\n" + "\n".join(f"- {sentence}" for sentence in said))
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
        f"*broken by* the number of columns that give back {BROKEN:.0f} % of it in the mean over seeds. Rows are "
        "ranked within their perturbation class, and share a rank where they cannot be told apart. "
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
    return pipes(heads, body, left=(0, 2)) if body else NO_ROWS


def _names(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


CONFIDENCE = (
    f"A protector is *broken* by what gives back at least {BROKEN:.0f} % of the clean accuracy under the same "
    "countermeasure at every seed, and *survives* what gives back less at every seed;"
)
AGREEMENT = (
    "How far the board and printed tables agree, over the protectors and columns that both have: in their order "
    "(Kendall's tau), and in which cells leave an adversary half of the clean accuracy (signs, with Cohen's kappa)."
)
NO_ROWS = "No row has all columns yet."
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
