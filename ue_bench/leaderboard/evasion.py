"""Show results of evasion as tables: one for every classifier, rows protectors, columns what is done to images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..store.evasion import EvasionResult
from . import formats
from .intervals import Estimate, accuracy
from .tables import WIDTH, folded, paragraph

NAME_WIDTH = 18
LEGEND = (
    "Accuracy in percent on test images: lower is better protection. PSNR in dB and SSIM compare protected test images "
    "with clean ones."
)


def setting(cells: Sequence[Any]) -> str:
    """Return what the cells share."""
    first, seeds = cells[0], len({cell.seed for cell in cells})
    info, known = first.data.info, "a seed of their own" if first.transfer else "the seed of surrogates"
    return (
        f"Measured: {info.selector} ({info.source}), classifiers trained on {info.train:,} clean images, protocol "
        f"{first.protocol.name} v{first.protocol.version}, {first.precision}, with {known}; "
        f"{first.images or info.test:,} test images, n = {seeds}."
    )


@dataclass(frozen=True)
class EvasionPanel:
    """The results of one classifier. ``numbers`` are by row and column; ``likeness`` is PSNR and SSIM by row."""

    victim: str
    setting: str
    columns: Sequence[str]
    numbers: dict[str, dict[str, Estimate]]
    likeness: dict[str, tuple[float | None, float]]

    def text(self) -> str:
        """Return the table for a terminal: what is done to images down, protectors across, in blocks."""
        from tabulate import tabulate

        names = list(self.numbers)
        fit = max(1, (WIDTH - 24) // (NAME_WIDTH + 2))
        parts = [paragraph([self.victim, self.setting, LEGEND])]
        for first in range(0, len(names), fit):
            block = names[first : first + fit]
            body = [[c, *(self._number(row, c) for row in block)] for c in self.columns]
            body += [["PSNR", *(self._likeness(row)[0] for row in block)]]
            body += [["SSIM", *(self._likeness(row)[1] for row in block)]]
            head = ["", *("\n".join(folded(row, NAME_WIDTH)) for row in block)]
            align = ["left", *["right"] * len(block)]
            parts.append(str(tabulate(body, head, tablefmt="simple", disable_numparse=True, colalign=align)))
        return "\n\n".join(parts) + "\n"

    def markdown(self) -> str:
        from tabulate import tabulate

        head = ["protector", *(f"`{c}`" for c in self.columns), "PSNR", "SSIM"]
        body = [[f"`{r}`", *(self._number(r, c) for c in self.columns), *self._likeness(r)] for r in self.numbers]
        align = ["left", *["right"] * (len(head) - 1)]
        drawn = str(tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=align))
        return "\n\n".join([f"## {self.victim}", f"{self.setting} {LEGEND}", drawn]) + "\n"

    def _number(self, row: str, column: str) -> str:
        number = self.numbers[row].get(column)
        return formats.MISSING if number is None else formats.interval(number)

    def _likeness(self, row: str) -> tuple[str, str]:
        if row not in self.likeness:
            return formats.MISSING, formats.MISSING
        psnr, ssim = self.likeness[row]
        return formats.psnr(psnr), f"{ssim:.3f}"


def panels(results: Iterable[EvasionResult], shared: str, plain: str) -> list[EvasionPanel]:
    """Return a panel for every classifier, in the order of the results; ``shared`` says which settings they share.

    ``plain`` is the column of images as they were protected.
    """
    shown = []
    order = list(results)
    victims = list(dict.fromkeys(r.victim for r in order))
    for victim, group in groupby(sorted(order, key=lambda r: victims.index(r.victim)), key=lambda r: r.victim):
        of_victim = list(group)
        columns = list(dict.fromkeys(r.countermeasure for r in of_victim))
        numbers: dict[str, dict[str, Estimate]] = {}
        likeness = {}
        for row in dict.fromkeys(r.protector for r in of_victim):
            of_row = [r for r in of_victim if r.protector == row]
            cells = {c: [r.accuracy for r in of_row if r.countermeasure == c] for c in columns}
            numbers[row] = {c: accuracy(values, of_row[0].images) for c, values in cells.items() if values}
            untreated = [r for r in of_row if r.countermeasure == plain]
            if untreated:  # of the first seed
                likeness[row] = untreated[0].psnr, untreated[0].ssim
        shown.append(EvasionPanel(victim, shared, columns, numbers, likeness))
    return shown
