"""Show results of evasion as tables: one for every classifier, rows protectors, columns what is done to images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..store.evasion import EvasionResult
from ..store.schema import DatasetInfo
from . import formats
from .formats import span
from .headline import is_defined
from .intervals import Estimate, accuracy
from .tables import WIDTH, folded, paragraph

NAME_WIDTH = 18
LEGEND = (
    "Accuracy in percent on test images: lower is better protection. PSNR in dB and SSIM compare protected test images "
    "with clean ones."
)


Identity = tuple[str, str, str, int, str, int, bool]


def setting(cells: Sequence[Any]) -> str:
    """Return what the cells share."""
    first, seeds = cells[0], len({cell.seed for cell in cells})
    info, images = first.data.info, first.images or first.data.info.test
    return _setting(
        info, first.protocol.name, first.protocol.version, first.precision, first.transfer, images, span(seeds, seeds)
    )


def setting_of(results: Sequence[EvasionResult]) -> str:
    """Return what the results share."""
    first = results[0]
    counts = Counter((r.protector, r.countermeasure, r.victim) for r in results).values()
    return _setting(
        first.dataset, first.protocol, first.protocol_version, first.precision, first.transfer, first.images,
        span(min(counts), max(counts)),
    )  # fmt: skip


def _setting(
    info: DatasetInfo, protocol: str, version: int, precision: str, transfer: bool, images: int, seeds: str
) -> str:
    known = "a seed of their own" if transfer else "the seed of surrogates"
    return (
        f"Measured: {info.selector} ({info.source}), classifiers trained on {info.train:,} clean images, protocol "
        f"{protocol} v{version}, {precision}, with {known}; {images:,} test images, n = {seeds}."
    )


def identity(r: EvasionResult) -> Identity:
    """Return everything that two results must share to stand in one table."""
    return r.dataset.fingerprint, r.victim, r.protocol, r.protocol_version, r.precision, r.images, r.transfer


@dataclass(frozen=True)
class EvasionPanel:
    """Results of one classifier that may be compared, as :class:`.statistics.Panel` holds those of training.

    ``numbers`` are by row and column; ``likeness`` is PSNR and SSIM of the protected images by row.
    """

    victim: str
    setting: str
    columns: Sequence[str]
    numbers: dict[str, dict[str, Estimate]]
    likeness: dict[str, tuple[float | None, float]]
    results: Sequence[EvasionResult]

    @property
    def chance(self) -> float:
        """Accuracy of guessing among balanced classes, in percent."""
        return 100 / self.results[0].dataset.classes

    def of(self, row: str, column: str) -> list[EvasionResult]:
        """Return the results of one cell, one a seed."""
        return [r for r in self.results if (r.protector, r.countermeasure) == (row, column)]

    def share(self, row: str, column: str, clean: str) -> float | None:
        """Return what of its accuracy above chance the classifier keeps, in percent of that on ``clean`` images.

        None where either is not known, or the clean images are hardly above chance.
        """
        number, top = self.numbers[row].get(column), self.numbers.get(clean, {}).get(column)
        if number is None or top is None or not is_defined(top.mean, self.chance):
            return None
        return 100 * (number.mean - self.chance) / (top.mean - self.chance)

    def text(self) -> str:
        """Return the table for a terminal: what is done to images down, protectors across, in blocks."""
        from tabulate import tabulate

        names = list(self.numbers)
        fit = max(1, (WIDTH - 24) // (NAME_WIDTH + 2))
        parts = [paragraph([self.victim, self.setting, LEGEND])]
        for first in range(0, len(names), fit):
            block = names[first : first + fit]
            body = [[c, *(self._number(row, c) for row in block)] for c in self.columns]
            body += [["PSNR", *(self.likeness_text(row)[0] for row in block)]]
            body += [["SSIM", *(self.likeness_text(row)[1] for row in block)]]
            head = ["", *("\n".join(folded(row, NAME_WIDTH)) for row in block)]
            align = ["left", *["right"] * len(block)]
            parts.append(str(tabulate(body, head, tablefmt="simple", disable_numparse=True, colalign=align)))
        return "\n\n".join(parts) + "\n"

    def markdown(self, level: int = 2) -> str:
        """Return the table in Markdown, under a heading of that level."""
        from tabulate import tabulate

        head = ["protector", *(f"`{c}`" for c in self.columns), "PSNR", "SSIM"]
        body = [[f"`{r}`", *(self._number(r, c) for c in self.columns), *self.likeness_text(r)] for r in self.numbers]
        align = ["left", *["right"] * (len(head) - 1)]
        drawn = str(tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=align))
        return "\n\n".join([f"{'#' * level} {self.victim}", f"{self.setting} {LEGEND}", drawn]) + "\n"

    def _number(self, row: str, column: str) -> str:
        number = self.numbers[row].get(column)
        return formats.MISSING if number is None else formats.interval(number)

    def likeness_text(self, row: str) -> tuple[str, str]:
        """Return PSNR and SSIM of a row as they are shown."""
        if row not in self.likeness:
            return formats.MISSING, formats.MISSING
        psnr, ssim = self.likeness[row]
        return formats.psnr(psnr), f"{ssim:.3f}"


def panels(results: Iterable[EvasionResult], plain: str, shared: str = "") -> list[EvasionPanel]:
    """Return a panel for all that may be compared, in the order of the results, as are rows and columns.

    ``plain`` is the column of images as they were protected. ``shared`` says what all results share, where that is
    known from elsewhere.
    """
    groups: dict[Identity, list[EvasionResult]] = {}
    for r in results:
        groups.setdefault(identity(r), []).append(r)
    return [_panel(of_panel, plain, shared or setting_of(of_panel)) for of_panel in groups.values()]


def _panel(results: Sequence[EvasionResult], plain: str, shared: str) -> EvasionPanel:
    columns = list(dict.fromkeys(r.countermeasure for r in results))
    numbers: dict[str, dict[str, Estimate]] = {}
    likeness = {}
    for row in dict.fromkeys(r.protector for r in results):
        of_row = [r for r in results if r.protector == row]
        cells = {c: [r.accuracy for r in of_row if r.countermeasure == c] for c in columns}
        numbers[row] = {c: accuracy(values, of_row[0].images) for c, values in cells.items() if values}
        untreated = [r for r in of_row if r.countermeasure == plain]
        if untreated:  # of the first seed
            likeness[row] = untreated[0].psnr, untreated[0].ssim
    return EvasionPanel(results[0].victim, shared, columns, numbers, likeness, results)
