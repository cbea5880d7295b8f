"""Numbers printed in papers, to stand beside measured ones and never among them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean

from .statistics import Panel


@dataclass(frozen=True)
class PublishedRow:
    """One method of a published table, in percent, by countermeasure. Single runs."""

    protector: str  # our selector
    method: str  # the name in print
    accuracies: dict[str, float]
    notes: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Recomputed: some printed means are not the mean of their row."""
        return fmean(self.accuracies.values())

    @property
    def worst(self) -> str:
        """The countermeasure with the highest accuracy."""
        return max(self.accuracies, key=lambda c: self.accuracies[c])


@dataclass(frozen=True)
class Published:
    """A published table for one of our datasets."""

    dataset: str
    title: str
    setting: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


@cache
def _read(name: str) -> tuple[dict[str, str], ...]:
    text = (files("ue_bench") / "reference" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def deephiding(dataset: str) -> Published | None:
    """Deep Hiding, Table 1, for the dataset of that name; None where the paper has none."""
    found = [r for r in _read("deephiding_table1.csv") if r["dataset"] == dataset]
    if not found:
        return None
    setting = found[0]["setting"]
    rows = [_row(dataset, p, found) for p in dict.fromkeys(r["protector"] for r in found)]
    clean = [r for r in rows if r.protector == "none"]
    others = sorted((r for r in rows if r.protector != "none"), key=lambda r: r.mean)
    columns = tuple(dict.fromkeys(r["countermeasure"] for r in found))
    return Published(dataset, f"Published (Deep Hiding, Table 1; {setting})", setting, columns, (*clean, *others))


def _row(dataset: str, protector: str, found: Iterable[dict[str, str]]) -> PublishedRow:
    own = [r for r in found if r["protector"] == protector]
    notes = [f"{r['countermeasure']}: {r['note']}." for r in own if r["note"]]
    row = PublishedRow(protector, own[0]["method"], {r["countermeasure"]: float(r["accuracy"]) for r in own}, ())
    for r in _read("deephiding_mean_check.csv"):
        if (r["table"], r["dataset"], r["protector"]) == ("table1", dataset, protector):
            notes.insert(0, f"mean: the paper prints {r['mean_printed']}, its columns give {row.mean:.2f}.")
    return PublishedRow(row.protector, row.method, row.accuracies, tuple(notes))


def beside(panels: Iterable[Panel]) -> list[Published]:
    """The published tables for the datasets of these panels, each once."""
    names = sorted({panel.dataset.selector.partition("[")[0] for panel in panels})
    return [table for table in map(deephiding, names) if table]
