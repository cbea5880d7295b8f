"""How far a results folder is, for whoever looks into it: another shell, or another machine that sees the folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..store.requests import FOLDER, recorded
from ..store.results import ResultStore
from ..store.running import Running, drivers, running
from ..store.schema import Failure, Result

HOUR = 3600.0  # results of the last one tell the pace


@dataclass(frozen=True)
class RowCounts:
    """The cells of one protector. ``missing`` is None where nobody has recorded what is wanted."""

    protector: str
    done: int
    failed: int
    missing: int | None


@dataclass(frozen=True)
class Overview:
    """What lies in a results folder. ``logs`` are tracebacks of failures by key, else what was printed."""

    out: Path
    rows: Sequence[RowCounts]
    failures: Sequence[Failure]
    logs: dict[str, Path]
    running: Sequence[Running]
    seconds_left: float | None
    is_worked_on: bool = False  # by a command of this folder, not of another one that shares a cache

    @property
    def counts(self) -> tuple[int, int, int | None]:
        """All cells that are done, failed and missing."""
        missing = [row.missing for row in self.rows if row.missing is not None]
        total = sum(missing) if len(missing) == len(self.rows) else None
        return sum(r.done for r in self.rows), sum(r.failed for r in self.rows), total

    @property
    def finished(self) -> bool:
        """Whether nothing is missing and nobody fills this folder."""
        return not self.counts[2] and not self.is_worked_on

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        done, failed, missing = self.counts
        return {
            "done": done,
            "failed": failed,
            "missing": missing,
            "seconds_left": self.seconds_left,
            "rows": [asdict(row) for row in self.rows],
            "failures": [
                {"id": f.id, "key": f.key, "kind": f.kind, "error": f.error, "log": str(log) if log else None}
                for f in self.failures
                for log in [self.logs.get(f.key)]
            ],
            "running": [
                asdict(stage) | {"lost": stage.is_lost, "seconds_left": stage.seconds_left} for stage in self.running
            ],
        }


def overview(out: Path, *caches: Path) -> Overview:
    """Return how far the results folder ``out`` is. ``caches`` are folders in which shared stages may be running.

    Raises UserError where there are no results, failures or requests in it.
    """
    if not any((out / name).is_dir() for name in ("results", "failures", FOLDER)):
        raise UserError(f"{out} holds no results", "name a folder that 'ue-bench run' fills with --out")
    store = ResultStore(out)
    results = store.results()
    done = {r.key for r in results}
    failures = [f for f in store.failures() if f.key not in done]  # it succeeded since, or came from elsewhere
    places = {f.key: (out / "logs" / f"{f.key}.log", out / "failures" / f"{f.key}.txt") for f in failures}
    logs = {key: log for key, paths in places.items() for log in paths if log.is_file()}  # the last one counts
    rows = _rows(out, results, failures)
    missing, working = sum(row.missing or 0 for row in rows), drivers(out)
    return Overview(
        out, rows, failures, logs, running(out, *caches), _seconds_left(results, missing, working), bool(working)
    )


def _rows(out: Path, results: Sequence[Result], failures: Sequence[Failure]) -> list[RowCounts]:
    """Return counts by protector: of the cells that were ever wanted, and of what else lies there."""
    wanted: dict[tuple[str, str, str], str] = {}
    by_id: dict[str, str] = {}
    for grid in recorded(out):
        for protector, name in grid.ids():
            wanted[name, grid.fingerprint, grid.precision] = by_id[name] = protector
    counted: Counter[tuple[str, str]] = Counter()
    left = dict(wanted)
    for r in results:
        counted[r.protector, "done"] += 1
        left.pop((r.id, r.dataset.fingerprint, r.precision), None)
    unreached = Counter(name for name, *_ in left)
    for failure in failures:
        protector = by_id.get(failure.id, "other")
        counted[protector, "failed"] += 1
        if unreached[failure.id]:
            unreached[failure.id] -= 1
    for name, count in unreached.items():
        counted[by_id[name], "missing"] += count
    protectors = dict.fromkeys([*by_id.values(), *sorted({protector for protector, _ in counted})])
    return [
        RowCounts(p, counted[p, "done"], counted[p, "failed"], counted[p, "missing"] if wanted else None)
        for p in protectors
    ]


def _seconds_left(results: Sequence[Result], missing: int, working: Sequence[Running]) -> float | None:
    """Return how long the missing cells take at the pace of the last hour; None where that does not tell.

    The time before the oldest command that works there began is not counted, for nobody may have worked then.
    """
    now = datetime.now(UTC)
    begun = [HOUR if driver.since is None else driver.since for driver in working]
    recent = min(HOUR, max(begun, default=HOUR))
    ages = sorted(age for r in results if (age := _age(r.finished, now)) is not None and 0 <= age < recent)
    if not missing or len(ages) < 2 or not ages[-1]:
        return None
    return missing * ages[-1] / len(ages)


def _age(finished: str, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(finished)).total_seconds()
    except (ValueError, TypeError):  # written by hand
        return None
