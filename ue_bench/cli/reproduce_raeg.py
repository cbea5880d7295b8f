"""The tables of RAEG, for ``ue-bench reproduce``."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..catalogue.registry import registry
from ..errors import UserError
from ..grid.grid import Grid
from .common import resolved, say

if TYPE_CHECKING:
    from ..grid.cell import Cell
    from ..leaderboard.raeg import Ask, Table
    from ..leaderboard.statistics import Estimate


@dataclass(frozen=True)
class Work:
    """Cells of a table: of evasion, by victims that may be known and by the unseen one, and of training."""

    evasion: Grid
    unseen: Grid | None
    training: Grid


def reproduce(
    name: str,
    *,
    weights: str | None,
    preset: str,
    unseen: str | None,
    images: int | None,
    transfer: bool,
    dry_run: bool,
    as_json: bool,
    markdown: bool,
    devices: str,
    jobs: int | None,
    threads: int,
    **options: Any,
) -> int:
    """Compute the table ``name`` and print it; see ``ue-bench reproduce``."""
    from ..grid.progress import Progress
    from ..leaderboard import raeg
    from ..leaderboard.raeg_comparison import Comparison

    entries = {entry.name: entry for entry in registry().of_kind("countermeasure")}
    names = {selector.partition("[")[0] for selector in raeg.ATTACKS.values()} & set(entries)
    table = raeg.table(name, preset, weights, {n: "preset" in entries[n].plugin_class.model_fields for n in names})
    if unseen is None and any(line.ask and line.ask.unseen for line in table.lines):
        say("ue-bench: not computed without --unseen: acc_transfer")
        kept = [replace(x, ask=None) if x.ask and x.ask.unseen else x for x in table.lines]
        table = replace(table, lines=tuple(kept))
    say("ue-bench: preparing")
    work = _work(table, unseen, images, transfer, devices=devices, threads=threads, **options)
    if dry_run:
        return _show(work, as_json)
    failed = [e.fill(Progress(), jobs) for e in (work.evasion, work.unseen) if e and e.cells]
    if work.training.cells:
        failed.append(work.training.fill(Progress(), jobs))
    measured = _measured(table, work)
    asked = {line.label: line.ask for line in table.lines if line.ask}
    selectors = {label: _one("protector", ask.protector).selector for label, ask in asked.items()}
    found = Comparison(table, _setting(work), selectors, measured)
    if as_json:
        print(json.dumps(found.plain(), indent=1, ensure_ascii=False))
    else:
        print(found.markdown() if markdown else found.text(), end="")
    return 1 if any(failed) or any(set(own) != set(asked) for own in measured.values()) else 0


def _one(kind: str, selector: str) -> Any:
    [found] = registry().resolve(kind, selector)
    return found


def _work(table: Table, unseen: str | None, images: int | None, transfer: bool, **options: Any) -> Work:
    from ..grid.evasion import EvasionCell
    from ..grid.stages.evade import EvadeStage

    asks = [line.ask for line in table.lines if line.ask]
    whole = _grid(asks, **options)

    def evasion(cells: Iterable[Cell]) -> Grid:
        return whole.with_cells([EvasionCell.of(cell, images, transfer) for cell in cells], EvadeStage)

    shown = _cells(whole, [ask for ask in asks if not ask.trained and not ask.unseen])
    strangers = [ask for ask in asks if ask.unseen]
    other = None
    if strangers:
        apart = _grid(strangers, **{**options, "victims": (unseen,)})
        if len({cell.victim.selector for cell in apart.cells}) > 1:
            raise UserError(f"--unseen {unseen} is several victims", "one is needed")
        other = evasion(_cells(apart, strangers))
    trained = whole.with_cells(_cells(whole, [ask for ask in asks if ask.trained]))
    return Work(evasion(shown), other, trained)


def _grid(asks: Sequence[Ask], **options: Any) -> Grid:
    """Every protector with every countermeasure."""
    protectors = tuple(dict.fromkeys(ask.protector for ask in asks))
    countermeasures = tuple(dict.fromkeys(c for ask in asks for c in ask.countermeasures))
    return resolved(protectors=protectors, countermeasures=countermeasures, **options)


def _cells(whole: Grid, asks: Sequence[Ask]) -> list[Cell]:
    """Those that are asked for."""
    wanted = {pair for ask in asks for pair in _pairs(ask)}
    return [cell for cell in whole.cells if _pair(cell) in wanted]


def _pair(cell: Cell) -> tuple[str, str]:
    return repr(cell.protector), repr(cell.countermeasure)


def _pairs(ask: Ask) -> list[tuple[str, str]]:
    protector = repr(_one("protector", ask.protector))
    return [(protector, repr(_one("countermeasure", c))) for c in ask.countermeasures]


def _show(work: Work, as_json: bool) -> int:
    from .plan import show

    cells = [*work.evasion.cells, *(work.unseen.cells if work.unseen else []), *work.training.cells]
    stages = {p.stage.key: p for e in (work.evasion, work.unseen) if e for p in e.missing()}
    stages |= {p.stage.key: p for p in work.training.missing()}
    return show(work.training.with_cells(cells), list(stages.values()), as_json)


def _measured(table: Table, work: Work) -> dict[str, dict[tuple[str, ...], Estimate]]:
    """What there is, by victim and line."""
    from ..leaderboard.raeg_comparison import average
    from ..store.evasion import EvasionStore
    from ..store.results import ResultStore

    out = work.evasion.env.out
    shown = {r.key: r for r in EvasionStore(out).results()}
    trained = {r.key: r.metrics.accuracy_last for r in ResultStore(out).results()}

    def value(cell: Cell, ask: Ask) -> float | None:
        if ask.trained:
            return trained.get(cell.key)
        result = shown.get(cell.key)
        if result is None:
            return None
        number: float | None = getattr(result, ask.value)
        return math.inf if number is None else number  # nothing was lost

    def estimate(ask: Ask, victim: str) -> Estimate | None:
        cells: Sequence[Cell] = work.training.cells if ask.trained else work.evasion.cells
        if ask.unseen:
            assert work.unseen is not None
            cells = work.unseen.cells
        else:
            cells = [cell for cell in cells if cell.victim.selector == victim]
        wanted = set(_pairs(ask))
        by_seed: dict[int, list[float | None]] = defaultdict(list)
        for cell in cells:
            if _pair(cell) in wanted:
                by_seed[cell.seed].append(value(cell, ask))
        whole = [fmean(v for v in own if v is not None) for own in by_seed.values() if None not in own]
        return average(whole) if whole else None

    known: Sequence[Cell] = work.training.cells or work.evasion.cells
    found: dict[str, dict[tuple[str, ...], Estimate]] = {}
    for victim in dict.fromkeys(cell.victim.selector for cell in known):
        numbers = {line.label: estimate(line.ask, victim) for line in table.lines if line.ask}
        found[victim] = {label: number for label, number in numbers.items() if number is not None}
    return found


def _setting(work: Work) -> str:
    from ..leaderboard import comparison, evasion

    if work.training.cells:
        victims = dict.fromkeys(cell.victim.selector for cell in work.training.cells)
        return comparison.setting(work.training.cells, ", ".join(victims))
    text = evasion.setting(work.evasion.cells)
    if work.unseen:
        text += f" Unseen: {work.unseen.cells[0].victim.selector}."
    return text


def quoted(path: Path) -> str:
    """A path as a value of a selector that may itself stand in double quotes."""
    from ..catalogue.selectors import write_text

    return write_text(str(path.expanduser().absolute()))
