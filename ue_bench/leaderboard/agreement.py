"""Measure how far the order of measured numbers is that of the printed ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from ..contract.table import Line, Table, Unit
from .intervals import Estimate

FEWEST = 4  # pairs: of three numbers one order in six is right by chance
Pair = tuple[float, float]
NUMBERS: dict[Unit, str] = {"percent": "accuracies", "dB": "PSNR", "ssim": "SSIM", "cosine": "cosines"}


@dataclass(frozen=True)
class Agreement:
    """A rank correlation (Spearman's) over ``pairs`` of a printed and a measured number.

    ``of`` says which numbers; ``printed`` is the printed column where measured ones stand apart, and ``victim`` whose
    numbers they are, both empty where there is but one.
    """

    of: str
    printed: str
    victim: str
    spearman: float
    pairs: int

    def text(self) -> str:
        """Return the finding in one sentence."""
        columns = f" (printed: {self.printed})" if self.printed else ""
        victim = f", {self.victim}" if self.victim else ""
        return (
            f"Printed and measured order of {self.of}{columns}{victim}: Spearman rank correlation {self.spearman:.2f}, "
            f"n = {self.pairs} pairs."
        )

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def agreement(
    table: Table,
    victims: Sequence[str],
    value: Callable[[Line, str, str], Estimate | None],
    mean: Callable[[Line, str], float | None],
) -> list[Agreement]:
    """Return the rank correlations of a table: where there are at least four pairs of finite numbers, two of each.

    Numbers of different units are not ranked together. ``value`` and ``mean`` give what was measured.
    """
    correlations = []
    for victim in victims:
        for printed, columns in _columns(table):
            by_unit: dict[Unit, list[Pair]] = defaultdict(list)
            for line in table.lines:
                measured = {column: value(line, column, victim) for _, column in columns}
                by_unit[line.unit] += _pairs(line, columns, measured)
            for unit, pairs in by_unit.items():
                correlations.append(_spearman(NUMBERS[unit], printed, victim, pairs))
        if table.mean:
            means = [(fmean(line.printed.values()), mean(line, victim)) for line in table.lines if line.printed]
            known = [(printed, measured) for printed, measured in means if measured is not None]
            correlations.append(_spearman("means of lines", "", victim, known))
    return [a for a in correlations if a is not None]


def _columns(table: Table) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield pairs of a printed and a measured column: all printed columns together where they are measured too."""
    if set(table.measured) <= set(table.printed):
        yield "", [(column, column) for column in table.measured]
        return
    for printed in table.printed:
        yield printed, [(printed, measured) for measured in table.measured]


def _pairs(line: Line, columns: Sequence[tuple[str, str]], measured: Mapping[str, Estimate | None]) -> Iterator[Pair]:
    for printed, column in columns:
        estimate = measured[column]
        if printed in line.printed and estimate is not None and math.isfinite(estimate.mean):
            yield line.printed[printed], estimate.mean


def _spearman(of: str, printed: str, victim: str, pairs: Sequence[Pair]) -> Agreement | None:
    if len(pairs) < FEWEST or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    from scipy.stats import spearmanr

    first, second = zip(*pairs, strict=True)
    return Agreement(of, printed, victim, float(spearmanr(first, second).statistic), len(pairs))
