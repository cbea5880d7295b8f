"""Write the evasion results of a board as its training results are written: a page, a CSV file and a part of README.md.

Rows are protectors, columns what is done to images, and a cell is an accuracy with its interval, its share of that on
clean images, and what was measured of the images. The columns of the CSV files have the same names where they mean the
same.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from ..store.evasion import EvasionResult
from . import formats
from .board import BoardInfo
from .commands import conditions, quoted, setting_options
from .evasion import LEGEND, EvasionPanel, identity, panels
from .intervals import binomial_error
from .numbers import Number, number
from .tables import plain
from .templating import render, stylesheet

LEAD = (
    "Classifiers that were trained on clean images are shown protected test images, as they are and processed. It is "
    "the other use of a perturbation, beside spoiling a training: lower accuracy is better protection."
)
SHARES = (
    "Below an accuracy, in percent: what the classifier keeps of its accuracy above chance on clean images that were "
    "processed alike."
)


OWN, SURROGATES = "a seed of its own", "the seed of surrogates"


@dataclass(frozen=True)
class Line:
    """A row as it is shown."""

    protector: str
    cells: Sequence[Number | None]
    psnr: str
    ssim: str


@dataclass(frozen=True)
class Classifiers:
    """Untreated images of one setting, shown to several classifiers: ``heads`` name each and how it was seeded."""

    title: str
    heads: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, Sequence[Number | None]]]


def render_evasion(board: BoardInfo, results: Iterable[EvasionResult], home: str = "") -> tuple[dict[str, str], str]:
    """Return pages by their names, and what README.md says; nothing where there are no results.

    The same results give the same text, in whatever order they come.
    """
    shown = ordered(results, board)
    if not shown:
        return {}, ""
    return {"evasion.html": _html(board, shown, home), "evasion.csv": _csv(board, shown)}, _markdown(shown)


def ordered(results: Iterable[EvasionResult], board: BoardInfo) -> list[EvasionPanel]:
    """Return panels in a fixed order: the clean row, others by mean accuracy; the plain column, others by name."""

    def place(r: EvasionResult) -> tuple[Any, ...]:
        return (r.dataset.selector, *identity(r), r.protector != board.clean, r.protector,
                r.countermeasure != board.plain, r.countermeasure, r.seed, r.key)  # fmt: skip

    return [_by_accuracy(panel, board.clean) for panel in panels(sorted(_unique(results), key=place), board.plain)]


def _unique(results: Iterable[EvasionResult]) -> list[EvasionResult]:
    """Return one result a cell and seed, the newest: an older one was made with other code."""
    newest: dict[Any, EvasionResult] = {}
    for r in sorted(results, key=lambda r: (r.finished, r.key)):
        newest[(identity(r), r.protector, r.countermeasure, r.seed)] = r
    return list(newest.values())


def _by_accuracy(panel: EvasionPanel, clean: str) -> EvasionPanel:
    def place(row: str) -> tuple[bool, float, str]:
        means = [number.mean for number in panel.numbers[row].values()]
        return row != clean, fmean(means), row

    rows = sorted(panel.numbers, key=place)
    return replace(panel, numbers={row: panel.numbers[row] for row in rows})


def _html(board: BoardInfo, shown: Sequence[EvasionPanel], home: str) -> str:
    return render(
        "evasion.html",
        board=board,
        home=home,
        lead=LEAD,
        legend=f"{LEGEND} {SHARES}",
        shares=SHARES,
        transfers=_transfers(board, shown),
        tables=[
            (panel, [_line(panel, row, board) for row in panel.numbers], made, conditions(panel.results[0], [made]))
            for panel in shown
            for made in [command(board, panel)]
        ],
        f=formats,
        css=stylesheet("site.css"),
    )


def _transfers(board: BoardInfo, shown: Sequence[EvasionPanel]) -> list[Classifiers]:
    """Return a table for all panels that differ in nothing but the classifier and its seed, where there are two."""
    alike: dict[tuple[Any, ...], list[EvasionPanel]] = {}
    for panel in shown:
        r = panel.results[0]
        setting = r.dataset.fingerprint, r.protocol, r.protocol_version, r.precision, r.images
        alike.setdefault(setting, []).append(panel)
    return [_classifiers(board, group) for group in alike.values() if len(group) > 1]


def _classifiers(board: BoardInfo, group: Sequence[EvasionPanel]) -> Classifiers:
    first = group[0].results[0]

    def place(row: str) -> tuple[bool, bool, float, str]:
        means = [p.numbers[row][board.plain].mean for p in group if board.plain in p.numbers.get(row, {})]
        return row != board.clean, len(means) < len(group), fmean(means) if means else 0.0, row

    rows = sorted(dict.fromkeys(row for panel in group for row in panel.numbers), key=place)
    return Classifiers(
        f"{first.dataset.selector}, protocol {first.protocol} v{first.protocol_version}, {first.precision}, "
        f"{first.images:,} test images",
        [(panel.victim, OWN if panel.results[0].transfer else SURROGATES) for panel in group],
        [(row, [_cell(panel, row, board.plain, board.clean) for panel in group]) for row in rows],
    )


def command(board: BoardInfo, panel: EvasionPanel) -> str:
    """Return the command that computes the cells of a panel of evasion; clean images are always there."""
    result = panel.results[0]
    rows = [protector for protector in panel.numbers if protector != board.clean] or [board.clean]
    words = ["ue-bench evade --board", shlex.quote(board.argument or board.name), "--protector", quoted(",".join(rows))]
    words += ["--countermeasure", quoted(",".join(panel.columns))]
    for option, value in setting_options(board, result).items():
        words += [f"--{option}", quoted(value)]
    seeds = tuple(sorted({r.seed for r in panel.results}))
    if seeds != board.seeds:
        words += ["--seeds", ",".join(map(str, seeds))]
    if result.images != result.dataset.test:
        words += ["--images", str(result.images)]
    if result.transfer:
        words.append("--transfer")
    return " ".join([*words, "--precision", result.precision])


def _line(panel: EvasionPanel, row: str, board: BoardInfo) -> Line:
    psnr, ssim = panel.likeness_text(row)
    return Line(row, [_cell(panel, row, column, board.clean) for column in panel.columns], psnr, ssim)


def _cell(panel: EvasionPanel, row: str, column: str, clean: str) -> Number | None:
    accuracy = panel.numbers.get(row, {}).get(column)
    return None if accuracy is None else number(formats.interval(accuracy), panel.share(row, column, clean))


def _markdown(shown: Sequence[EvasionPanel]) -> str:
    parts = ["## Evasion", f"{plain(LEAD)} With colours in [evasion.html](evasion.html), as numbers in "
             "[evasion.csv](evasion.csv)."]  # fmt: skip
    return "\n\n".join([*parts, *(panel.markdown(level=3).rstrip("\n") for panel in shown)]) + "\n"


CSV: dict[str, Callable[[EvasionPanel, str, str], Any]] = {
    "dataset": lambda p, r, c: p.results[0].dataset.selector,
    "source": lambda p, r, c: p.results[0].dataset.source,
    "fingerprint": lambda p, r, c: p.results[0].dataset.fingerprint,
    "victim": lambda p, r, c: p.victim,
    "protocol": lambda p, r, c: p.results[0].protocol,
    "protocol_version": lambda p, r, c: p.results[0].protocol_version,
    "precision": lambda p, r, c: p.results[0].precision,
    "images": lambda p, r, c: p.results[0].images,
    "transfer": lambda p, r, c: p.results[0].transfer,
    "protector": lambda p, r, c: r,
    "countermeasure": lambda p, r, c: c,
    "n": lambda p, r, c: p.numbers[r][c].n,
    "seeds": lambda p, r, c: " ".join(str(one.seed) for one in p.of(r, c)),
    "accuracy": lambda p, r, c: round(p.numbers[r][c].mean, 4),
    "ci95_half_width": lambda p, r, c: _rounded(p.numbers[r][c].half_width),
    "ci95_low": lambda p, r, c: _rounded(p.numbers[r][c].low),
    "ci95_high": lambda p, r, c: _rounded(p.numbers[r][c].high),
    "ci95_of": lambda p, r, c: "test set" if p.numbers[r][c].n == 1 else "seeds and test set",
    "binomial_error": lambda p, r, c: _rounded(binomial_error(p.numbers[r][c].mean, p.results[0].images)),
    "psnr": lambda p, r, c: _rounded(p.of(r, c)[0].psnr),
    "ssim": lambda p, r, c: _rounded(p.of(r, c)[0].ssim),
    "commits": lambda p, r, c: " ".join(dict.fromkeys(x.environment.commit or "unknown" for x in p.of(r, c))),
    "keys": lambda p, r, c: " ".join(x.key for x in p.of(r, c)),
}


def _csv(board: BoardInfo, shown: Sequence[EvasionPanel]) -> str:
    """Return one line a cell; PSNR and SSIM are those of the processed images, of the first seed."""
    import pandas as pd

    cells = [(panel, row, column) for panel in shown for row, of_row in panel.numbers.items() for column in of_row]
    table = pd.DataFrame([[read(*c) for read in CSV.values()] for c in cells], columns=pd.Index(CSV), dtype=object)
    table.insert(0, "board", board.name)
    return str(table.to_csv(index=False, lineterminator="\n"))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
