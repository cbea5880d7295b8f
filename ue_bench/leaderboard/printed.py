"""Tables of papers that one command computes again: what was printed, and the selectors that stand for its rows."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from statistics import fmean

from ..errors import UserError, did_you_mean

STEPS, NATURAL = "{steps}", "{natural}"

TITLES = {
    "table4": "Deep Hiding, Table 4: concentration loss, prompt clustering, diffusion with edges",
    "tableA": "Deep Hiding, Table A: weight of the low-frequency loss",
    "tableB": "Deep Hiding, Table B: weight of the revealing loss",
    "tableC": "Deep Hiding, Table C: weight of the concentration loss",
    "tableD": "Deep Hiding, Table D: hidden images",
    "tableH": "Deep Hiding, Table H: ISGAN as the hiding network",
    "tableI": "Deep Hiding, Table I: quality of JPEG",
    "tableJ": "Deep Hiding, Table J: cosines of features within a class, and of classes with the mean of all",
    "tableK": "Deep Hiding, Table K: losses of the hiding network",
}
COSINES = ("intra", "inter")  # the columns of tableJ, which holds no accuracies


@dataclass(frozen=True)
class PrintedRow:
    """A row as printed: its label, our selector for it, and values by column. Single runs, accuracies in percent."""

    label: str
    protector: str
    values: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Recomputed from the columns."""
        return fmean(self.values.values())

    def selector(self, steps: int, natural: str | None) -> str | None:
        """Our selector, with training steps and a folder of photographs filled in; None where that is missing."""
        if NATURAL in self.protector and natural is None:
            return None
        return self.protector.replace(STEPS, str(steps)).replace(NATURAL, natural or "")


@dataclass(frozen=True)
class PrintedTable:
    """One table of a paper. ``columns`` are countermeasures, or ``COSINES``."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[PrintedRow, ...] = field(repr=False)

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def trains(self) -> bool:
        """Whether a row trains a hiding network of its own."""
        return any(STEPS in row.protector for row in self.rows)

    @property
    def natural(self) -> bool:
        """Whether a row hides photographs."""
        return any(NATURAL in row.protector for row in self.rows)


@cache
def table(name: str) -> PrintedTable:
    """The table of that name. Raises UserError with the nearest names when there is none."""
    if name not in TITLES:
        raise UserError(f"no table {name!r}", did_you_mean(name, list(TITLES)))
    if name == "tableJ":
        cosines = [PrintedRow(r["row"], r["protector"], {c: float(r[c]) for c in COSINES}) for r in _read("J")]
        return PrintedTable(name, COSINES, tuple(cosines))
    own = [r for r in _read("s") if r["table"] == name]
    rows = []
    for label in dict.fromkeys(r["row"] for r in own):
        found = [r for r in own if r["row"] == label]
        notes = tuple(f"{r['countermeasure']}: {r['note']}" for r in found if r["note"])
        values = {r["countermeasure"]: float(r["accuracy"]) for r in found}
        rows.append(PrintedRow(label, found[0]["protector"], values, notes))
    return PrintedTable(name, tuple(dict.fromkeys(r["countermeasure"] for r in own)), tuple(rows))


def _read(which: str) -> list[dict[str, str]]:
    text = (files("ue_bench") / "reference" / f"deephiding_table{which}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
