"""Give scripts of a page how every cell was made, as plain data: what it shows behind a click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..store.schema import Curve, Failure
from . import commands, formats
from .board import BoardInfo
from .cell_summary import CellSummary
from .evidence import Evidence
from .statistics import Panel
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


class Texts:
    """Texts that many cells share, each once: a cell has its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def all(self) -> list[str]:
        return list(self._numbers)


def cells(board: BoardInfo, panels: Sequence[Panel], evidence: Evidence, texts: Texts) -> dict[str, Any]:
    """Return every cell by the key of its first seed; its parameters are numbers of ``texts``."""
    found = {}
    for number, panel in enumerate(panels):
        column_notes = formats.column_notes(panel)
        for row in panel.rows:
            for cell in row.cells.values():
                notes = [note for column, note in column_notes if column == cell.countermeasure]
                notes += _notes(panel, cell, evidence)
                found[cell.keys[0]] = _cell(board, panel, number, cell, evidence, texts, notes)
    return found


def _cell(
    board: BoardInfo,
    panel: Panel,
    number: int,
    cell: CellSummary,
    evidence: Evidence,
    texts: Texts,
    notes: Sequence[str],
) -> dict[str, Any]:
    command = commands.cell_command(board, cell)
    share = panel.share(cell.countermeasure, cell.mean)
    return {
        "protector": cell.protector,
        "countermeasure": cell.countermeasure,
        "accuracy": f"{formats.interval(cell.accuracy)} %",
        "share": None if share is None else round(share, 2),
        "certainty": _certainty(cell),
        "notes": notes,
        "command": command,
        "needs": obstacle(board, cell.results[0]) or commands.conditions(cell.results[0], [command]),
        "panel": number,
        "keys": cell.keys,
        "seeds": {str(r.seed): r.metrics.accuracy_last for r in cell.results},
        "parameters": [[kind, texts.number(text)] for kind, text in _parameters(cell)],
        "results": _results(cell),
        "files": [evidence.files.get(key, "") for key in cell.keys],
        "curves": [_curve(evidence.curves.get(key)) for key in cell.keys],
    }


def gaps(panel: Panel, evidence: Evidence) -> dict[tuple[str, str], dict[str, Any]]:
    """Return, by row and column, the cells of the panel's rows that have no result: whether they failed, and how."""
    found = {}
    for row in panel.rows:
        for column in panel.columns:
            if column not in row.cells:
                failures = evidence.failed(panel, row.protector, column)
                found[row.protector, column] = {
                    "protector": row.protector,
                    "countermeasure": column,
                    "failures": [failure_text(failure) for failure in failures],
                    "command": commands.missing_command(panel.board, panel, row.protector, column),
                }
    return found


def failure_text(failure: Failure) -> str:
    """Write what happened to a cell in one line."""
    attempts = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
    error = " ".join(failure.error.split())
    return f"Seed {failure.id.rpartition('/s')[2]} failed after {attempts} ({failure.kind}, {failure.failed}): {error}"


def facts(panel: Panel) -> list[tuple[str, str]]:
    """Return what all cells of a panel share."""
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


def _certainty(cell: CellSummary) -> str:
    interval = f"{cell.accuracy.low:.2f} to {cell.accuracy.high:.2f}"
    if cell.n == 1:
        return f"n = 1: nothing is known of the spread over seeds; 95 % interval of the test set alone {interval}"
    doubt = ", nearly worthless at n = 2" if cell.n == 2 else ""
    return f"mean of n = {cell.n} seeds; 95 % interval over seeds and test images {interval}{doubt}"


def _notes(panel: Panel, cell: CellSummary, evidence: Evidence) -> list[str]:
    notes = []
    if cell.countermeasure in panel.extra:
        notes.append("Not on the board: in no mean and no worst case.")
    if any(not r.metrics.learned for r in cell.results):
        notes.append("Training ended at chance on its own training data: this says nothing about protection.")
    if cell.superseded:
        notes.append(f"{cell.superseded} older result(s) of a seed set aside for a newer one.")
    return notes + [failure_text(f) for f in evidence.failed(panel, cell.protector, cell.countermeasure)]


def _parameters(cell: CellSummary) -> list[tuple[str, str]]:
    """Return the plugins of a cell with revision and parameters, and its recipe; nothing for results of version 1."""
    made_of = cell.results[0].cell
    if not made_of:
        return []
    lines = []
    for kind in ("protector", "countermeasure", "victim"):
        for part in made_of[kind].get("combination", [made_of[kind]]):
            values = ", ".join(f"{name} = {value}" for name, value in part["parameters"].items())
            lines.append((kind, f"{part['name']}, revision {part['revision']}: {values or 'defaults'}"))
    recipe = ", ".join(f"{k} = {v}" for k, v in made_of["protocol"].items() if k not in ("name", "version"))
    return [*lines, ("recipe", recipe), ("training loop", f"revision {made_of['engine']}")]


def _curve(curve: Curve | None) -> list[list[float | None]] | None:
    """Return epochs, and accuracies on test images and on training batches."""
    return None if curve is None else [[*curve.epoch], [*curve.accuracy_test], [*curve.accuracy_train]]


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
