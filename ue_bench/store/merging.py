"""Bringing the results of several folders together, such as those of shards that shared nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from ..atomic import write_atomically, write_once
from ..errors import UserError
from .evasion import EvasionResult, EvasionStore
from .listing import json_files
from .requests import FOLDER as REQUESTS
from .results import ResultStore, fresh_path
from .schema import Failure, Measured, Result

M = TypeVar("M", bound=Measured)
R = TypeVar("R", bound=BaseModel)
Numbers = Callable[[M], Any]


@dataclass
class Merged:
    """What came of merging. ``differing`` and ``unreadable`` name files that were left where they are."""

    added: int = 0
    known: int = 0  # the same numbers are there already
    failures: int = 0
    differing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.differing and not self.unreadable


def merge(
    sources: Sequence[Path], target: Path, before: Callable[[Path, Path], None] = lambda source, target: None
) -> Merged:
    """Copy the results of ``sources`` that ``target`` lacks, with their curves, and failures of cells without a result.

    Every result is verified as when it is read. None is overwritten: of two with other numbers for one cell the one in
    ``target`` stays. ``before`` is called with each source and the target before it is copied. Sources are only read.
    One may hold none, as that of a shard without cells. Raises UserError for a source that no run was to fill, or that
    is the target.
    """
    for source in sources:
        if not any((source / name).is_dir() for name in ("results", "evasion", "failures", REQUESTS)):
            raise UserError(f"{source} holds no results", "name folders that 'ue-bench run' filled with --out")
        if source.resolve() == target.resolve():
            raise UserError(f"{source} is both merged and merged into", "name it once, as the last folder")
    store, evasion = ResultStore(target), EvasionStore(target)
    store.create()
    merged = Merged()
    results = {r.key: r for r in store.results()}
    evaded = {r.key: r for r in evasion.results()}
    for source in sources:
        before(source, target)
        for key in _merge(source / "results", Result, results, target / "results", _trained, merged):
            _copy_curve(source, target, key)
            store.forget_failure(key)
        _merge(source / "evasion", EvasionResult, evaded, target / "evasion", _evaded, merged)
        _merge_failures(source, store, {*results, *evaded}, merged)
    return merged


def _trained(result: Result) -> Any:
    return result.metrics, result.budget


def _evaded(result: EvasionResult) -> Any:
    return result.accuracy, result.psnr, result.ssim, result.classifier


def _merge(
    source: Path, kind: type[M], there: dict[str, M], target: Path, numbers: Numbers[M], merged: Merged
) -> list[str]:
    """Copy the records of one folder; return the keys of those that were new."""
    new = []
    for path in (source / name for name in json_files(source)):
        record = _read(path, kind)
        if record is None:
            merged.unreadable.append(str(path))
            continue
        known = there.get(record.key)
        if known is None:
            names = record.countermeasure, record.victim, record.protocol, f"s{record.seed}"
            place = fresh_path(target, record.key, record.protector, *names)
            if write_once(place, path.read_bytes()):
                there[record.key] = record
                new.append(record.key)
                merged.added += 1
                continue
            known = _read(place, kind)  # another process was faster
        if known is not None and numbers(known) == numbers(record):
            merged.known += 1
        else:
            merged.differing.append(str(path))
    return new


def _read(path: Path, kind: type[R]) -> R | None:
    """Return the record in a file, verified; None where it is none."""
    try:
        return kind.model_validate_json(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def _copy_curve(source: Path, target: Path, key: str) -> None:
    curve = source / "curves" / f"{key}.json"
    if curve.is_file():
        write_atomically(target / "curves" / curve.name, curve.read_bytes())


def _merge_failures(source: Path, store: ResultStore, done: set[str], merged: Merged) -> None:
    """Copy the failures of cells without a result; of two of one cell the newer one is kept."""
    there = {failure.key: failure for failure in store.failures()}
    for path in sorted((source / "failures").glob("*.json")):
        failure = _read(path, Failure)
        if failure is None:
            merged.unreadable.append(str(path))
            continue
        known = there.get(failure.key)
        if failure.key in done or (known is not None and known.failed >= failure.failed):
            continue
        trace = path.with_suffix(".txt")
        text = trace.read_text(encoding="utf-8", errors="replace") if trace.is_file() else ""
        store.write_failure(failure, text)
        merged.failures += 1
