"""Write the page ``index.html``: one file, no external request, readable without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from . import colour, commands, formats, print_agreement, summary
from .board import BoardInfo
from .published import beside
from .statistics import CellSummary, Panel
from .tables import PUBLISHED, reproduce
from .versions import obstacle

RESULT_LABELS = (
    "id",
    "key",
    "seed",
    "accuracy, last epoch",
    "accuracy, peak (epoch chosen on the test set: an oracle)",
    "accuracy, training batches of the last epoch",
    "training loss",
    "Linf of the protected set, mean / max (of 255)",
    "RMS (of 255) / share of values changed by more than 8",
    "L2 mean / L0 mean (pixels)",
    "PSNR / SSIM",
    "time to protect / to train",
    "training speed",
    "peak memory",
    "device",
    "versions",
    "attempts / finished",
)


def html(board: BoardInfo, panels: Sequence[Panel]) -> str:
    """Return the whole page as text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(_template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        board=board,
        panels=panels,
        empty_board_command=commands.empty_board_command(board),
        reproduce=[reproduce(board, panel) for panel in panels],
        published=beside(panels),
        agreements=[(panel, found) for panel in panels if (found := print_agreement.agreements(panel))],
        agreement=print_agreement,
        published_note=PUBLISHED,
        f=formats,
        summary=summary,
        level=colour.level,
        levels=range(len(colour.levels(colour.LIGHT))),
        details=details(board, panels),
        css=Markup(_template("page.css") + _heat_css()),
        js=Markup(_template("page.js")),
    )


def _template(name: str) -> str:
    return (files("ue_bench.leaderboard") / "templates" / name).read_text(encoding="utf-8")


def _heat_css() -> str:
    """Return one class a level, for light and for dark pages."""

    def rules(stops: tuple[str, ...]) -> str:
        pairs = enumerate(colour.levels(stops))
        return "\n".join(f".h{i} {{ background: {ground}; color: {text}; }}" for i, (ground, text) in pairs)

    return f"{rules(colour.LIGHT)}\n@media (prefers-color-scheme: dark) {{\n{rules(colour.DARK)}\n}}\n"


def details(board: BoardInfo, panels: Sequence[Panel]) -> dict[str, Any]:
    """Return how every cell was made, as plain data: what the page shows behind a click."""
    cells = {
        cell.keys[0]: {
            "protector": cell.protector,
            "countermeasure": cell.countermeasure,
            "accuracy": f"{formats.interval(cell.accuracy)} %",
            "certainty": _certainty(cell),
            "notes": _notes(panel, cell),
            "command": (command := commands.cell_command(board, cell)),
            "needs": obstacle(board, cell.results[0]) or commands.conditions(cell.results[0], [command]),
            "panel": number,
            "keys": cell.keys,
            "results": _results(cell),
        }
        for number, panel in enumerate(panels)
        for row in panel.rows
        for cell in row.cells.values()
    }
    return {"labels": RESULT_LABELS, "panels": [_shared(panel) for panel in panels], "cells": cells}


def _certainty(cell: CellSummary) -> str:
    interval = f"{cell.accuracy.low:.2f} to {cell.accuracy.high:.2f}"
    if cell.n == 1:
        return f"n = 1: nothing is known of the spread over seeds; 95 % interval of the test set alone {interval}"
    doubt = ", nearly worthless at n = 2" if cell.n == 2 else ""
    return f"mean of n = {cell.n} seeds; 95 % interval over seeds and test images {interval}{doubt}"


def _notes(panel: Panel, cell: CellSummary) -> list[str]:
    notes = [note for column, note in formats.column_notes(panel) if column == cell.countermeasure]
    if cell.countermeasure in panel.extra:
        notes.append("Not on the board: in no mean and no worst case.")
    if cell.superseded:
        notes.append(f"{cell.superseded} older result(s) of a seed set aside for a newer one.")
    return notes


def _shared(panel: Panel) -> list[tuple[str, str]]:
    data = panel.dataset
    return [
        ("dataset", data.selector),
        ("source", data.source),
        ("fingerprint", data.fingerprint),
        ("images", f"{data.train:,} training, {data.test:,} test, {data.classes} classes, {data.width}x{data.height}"),
        ("victim", panel.victim),
        ("protocol", f"{panel.protocol}, version {panel.protocol_version}"),
        ("precision", panel.precision),
        ("fraction protected", formats.fraction(panel.fraction)),
    ]


def _results(cell: CellSummary) -> list[list[str]]:
    """Return the values of ``RESULT_LABELS`` for every seed."""
    rows = []
    for r in cell.results:
        m, b, c, e = r.metrics, r.budget, r.cost, r.environment
        values = [
            r.id,
            r.key,
            str(r.seed),
            f"{m.accuracy_last:.2f} %",
            f"{m.accuracy_peak:.2f} % at epoch {m.peak_epoch:g}",
            "not measured" if m.accuracy_train is None else f"{m.accuracy_train:.2f} %",
            f"{m.loss_train:.4g}",
            f"{b.linf_mean:.2f} / {b.linf_max} (declared: {b.declared})",
            f"{b.rms:.2f} / {100 * b.over_8:.2f} %",
            f"{b.l2_mean:.3f} / {b.l0_mean:,.0f}",
            f"{formats.psnr(b.psnr)} dB / {b.ssim:.4f}",
            f"{c.protect_seconds:,.1f} s / {c.train_seconds:,.1f} s",
            f"{c.images_per_second:,.0f} images/s",
            f"{c.peak_memory_mb:,.0f} MB",
            f"{e.device}, {e.threads} threads",
            f"ue-bench {e.ue_bench} ({e.commit}), torch {e.torch}, Python {e.python}",
            f"{r.attempts} / {r.finished}",
        ]
        assert len(values) == len(RESULT_LABELS)
        rows.append(values)
    return rows
