"""Refuse results that are not what they say: each file by name, with the first thing that is wrong, in one line.

What cannot be found out from a file is not claimed: numbers in their ranges may still be made up, which is why a row
from elsewhere has no rank before one of its cells was measured again, see :mod:`.submission`.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError as PydanticError

from ..contract.protocol import Protocol
from ..store.records import reason
from ..store.schema import LARGEST, SCHEMA, Result
from .board import BoardInfo
from .plausibility import implausible, printable

DEEPEST = 12  # levels of a result: its cell, a combination, a plugin, parameters
TOLERANCE = 5.0  # points between two measurements of one cell, seeds or machines apart


@dataclass(frozen=True)
class Checked:
    """What came of checking files. ``known`` are results that the board has already, alike within the tolerance.

    ``board`` are the board's own results by key.
    """

    new: Mapping[Path, Result]
    known: Mapping[Path, Result]
    refused: Sequence[str]
    board: Mapping[str, Result]


class _Refused(Exception):
    """A file that is not what it says; the message is one line."""


def validate(paths: Iterable[Path], board: BoardInfo, there: Sequence[Result], now: datetime) -> Checked:
    """Check files, or the JSON files below folders, as results for ``board``, which has the results ``there``."""
    read: dict[Path, Result] = {}
    refused: list[str] = []
    for path in _files(paths):
        try:
            read[path] = result = _read(path)
            _check_alone(result, now, board.recipe)
        except _Refused as problem:
            read.pop(path, None)
            refused.append(f"{printable(str(path))}: {problem}")
    by_key: dict[str, list[Path]] = defaultdict(list)
    for path, result in read.items():
        by_key[result.key].append(path)
    context = _Context.of(board, there, list(read.values()))
    new: dict[Path, Result] = {}
    known: dict[Path, Result] = {}
    for path, result in read.items():
        try:
            twins = [printable(other.name) for other in by_key[result.key] if other != path]
            if twins:
                raise _Refused(f"it has the same key as {twins[0]}: one cell has one result")
            (known if context.check(result) else new)[path] = result
        except _Refused as problem:
            refused.append(f"{printable(str(path))}: {problem}")
    return Checked(new, known, refused, context.keys)


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob("*.json")) if path.is_dir() and not path.is_symlink() else [path]
    return list(dict.fromkeys(found))


def _read(path: Path) -> Result:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise _Refused("it is not a regular file")
        if status.st_size > LARGEST:
            raise _Refused(f"it has {status.st_size:,} bytes, and a result has at most {LARGEST:,}")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise _Refused(f"it cannot be read: {error.strerror}") from None
    except ValueError:
        raise _Refused("it is not text in UTF-8") from None
    try:
        plain = json.loads(
            text, object_pairs_hook=_once, parse_constant=_constant, parse_int=_integer, parse_float=_real
        )
    except RecursionError:
        raise _Refused("it is nested too deeply") from None
    except ValueError as error:
        raise _Refused(f"it is not JSON: {printable(str(error))}") from None
    if _depth(plain) > DEEPEST:  # how deep JSON itself can be read is another number with every Python
        raise _Refused("it is nested too deeply")
    if not isinstance(plain, dict):
        raise _Refused("it holds no object")
    version = plain.get("version")
    if type(version) is not int or version != SCHEMA:
        what = "of a newer version of ue-bench" if type(version) is int and version > SCHEMA else "without a cell"
        raise _Refused(f"its version is {printable(repr(version))}, a result {what}; {SCHEMA} is wanted")
    try:
        return Result.model_validate_json(text, strict=True)
    except PydanticError as error:
        raise _Refused(printable(reason(error))) from None
    except RecursionError:
        raise _Refused("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Refused(f"it says {printable(next(n for n in names if names.count(n) > 1))} twice")
    return fields


def _depth(value: Any) -> int:
    """Return how deeply plain data are nested, as far as one more than ``DEEPEST``."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        depth += 1
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for items in inner for item in items]
    return depth


def _constant(text: str) -> float:
    raise _Refused(f"it holds {text}, which is no number")


def _integer(text: str) -> int:
    if len(text) > 20:
        raise _Refused(f"it holds a whole number of {len(text):,} digits")
    return int(text)


def _real(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise _Refused("it holds a number that is too large")
    return value


def _check_alone(result: Result, now: datetime, of_board: Protocol | None) -> None:
    problem = next(implausible(result, now, of_board), None)
    if problem:
        raise _Refused(problem)


_Place = tuple[Any, ...]


@dataclass(frozen=True)
class _Context:
    """What a result is held against: those of the board, and those it comes with."""

    board: BoardInfo
    fingerprints: Mapping[str, Result]  # of the board's data, each with one of its results
    keys: Mapping[str, Result]  # results of the board
    means: Mapping[_Place, float]  # of the board, over seeds
    clean: frozenset[_Place]  # where a clean cell is, there or in what is checked

    @classmethod
    def of(cls, board: BoardInfo, there: Sequence[Result], checked: Sequence[Result]) -> _Context:
        by_place: dict[_Place, list[float]] = defaultdict(list)
        for r in there:
            by_place[_place(r)].append(r.metrics.accuracy_last)
        return cls(
            board,
            {r.dataset.fingerprint: r for r in (there or checked)},
            {r.key: r for r in there},
            {place: fmean(values) for place, values in by_place.items()},
            frozenset(_place(r) for r in (*there, *checked) if r.protector == board.clean),
        )

    def check(self, result: Result) -> bool:
        """Return whether the board has the result already. Raises _Refused for what does not fit the board."""
        like = self.fingerprints.get(result.dataset.fingerprint)
        if like is None or (not self.keys and len(self.fingerprints) > 1):
            theirs = ", ".join(f"{f} ({r.dataset.source})" for f, r in sorted(self.fingerprints.items()))
            given = f"{result.dataset.fingerprint} ({result.dataset.source})"
            raise _Refused(f"it was measured on other images, {given}, than the board's, {theirs}")
        told, known = _data(result), _data(like)
        if told != known:
            name = next(name for name in told if told[name] != known[name])
            raise _Refused(
                f"its {name} is {printable(str(told[name]))}, and {known[name]} for the same images on the board"
            )
        if _place(result, self.board.clean) not in self.clean:
            raise _Refused(
                f"there is no clean reference, {self.board.clean} under {result.countermeasure}, to hold it to"
            )
        if result.protector == self.board.clean and result.budget.linf_max:
            raise _Refused(f"{self.board.clean} is the clean reference, and its images were changed")
        mine = self.keys.get(result.key)
        if mine is not None:
            _compare(result, mine.metrics.accuracy_last, "the board has")
            return True
        if result.protector in self.board.reference and _place(result) in self.means:
            _compare(result, self.means[_place(result)], "other seeds of this reference row have")
        return False


def _data(result: Result) -> dict[str, Any]:
    """Return what results on the same images say alike of them; a folder may have other names, with a digest each."""
    plain = {f"dataset.{name}": value for name, value in result.dataset.model_dump().items()}
    plain["dataset.selector"] = re.sub(r"[^=\[\],]*#[0-9a-f]{8}", "#", result.dataset.selector)
    return plain | {f"cell.{split}": (result.cell or {}).get(split) for split in ("train", "test")}


def _compare(result: Result, known: float, who: str) -> None:
    accuracy = result.metrics.accuracy_last
    if abs(accuracy - known) > TOLERANCE:
        where = f"{result.protector} under {result.countermeasure}"
        raise _Refused(f"{where} is {accuracy:.2f}, and {who} {known:.2f}: more than {TOLERANCE:g} points apart")


def _place(result: Result, protector: str = "") -> _Place:
    """Return what results have in common that are averaged over seeds; of another protector where one is given."""
    panel = result.dataset.fingerprint, result.victim, result.protocol, result.protocol_version, result.precision
    # The clean row is the same at any share of protected images, but only that of this share is in this panel.
    return (*panel, result.fraction, result.countermeasure, protector or result.protector)
