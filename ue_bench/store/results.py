"""Results, curves and failures in a board's folder: one small file each, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from ..atomic import write_atomically, write_once
from ..checksums import log
from ..errors import StorageProblem
from ..temporaries import sweep
from .listing import files_of
from .records import record_at, records
from .schema import Curve, Failure, Measured, Result, as_json, record_text

KEY_DIGITS = 16  # of a key in a file name: no two of a billion results share them
LONGEST_NAME = 200  # characters before the key; file systems take 255 bytes, of a temporary name too


def slug(text: str) -> str:
    """A selector as part of a file name: ``jpeg[quality=10]`` becomes ``jpeg-quality-10``. Tells nothing apart."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[:80].strip("-.") or "x"


def cell_file(folder: Path, key: str) -> Path | None:
    """The file below ``folder`` whose name ends in ``key``, whatever the number of digits; None where there is none."""
    for path in files_of(folder, key):
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):  # what is no result is no cell's file
            if json.loads(path.read_text(encoding="utf-8-sig"))["key"] == key:
                return path
    return None


def cell_path(folder: Path, key: str, protector: str, *names: str) -> Path:
    """Where the result with ``key`` is written: over its own file, and never over that of another key.

    Names are cut, lose their brackets and differ in case alone, which some file systems ignore: the digits of the key
    tell files apart.
    """
    return cell_file(folder, key) or fresh_path(folder, key, protector, *names)


def fresh_path(folder: Path, key: str, protector: str, *names: str) -> Path:
    """Where the result with ``key`` is written when there is none yet."""
    named = "-".join(map(slug, names))[:LONGEST_NAME].rstrip("-.")
    return folder / slug(protector) / f"{named}-{key[:KEY_DIGITS]}.json"


M = TypeVar("M", bound=Measured)


def has_record(folder: Path, key: str, kind: type[M]) -> bool:
    """Return whether a file below ``folder`` is a record of the cell with ``key``."""
    path = cell_file(folder, key)
    record = None if path is None else record_at(folder, path, kind)
    return record is not None and record.key == key


def write_record(folder: Path, result: Measured) -> None:
    """Write ``result`` below ``folder``, unless there is one of its cell: that one stays as it is.

    A file of that cell that is no result, and could not be set aside, is replaced.
    """
    names = result.countermeasure, result.victim, result.protocol, f"s{result.seed}"
    path = cell_path(folder, result.key, result.protector, *names)
    if not write_once(path, record_text(result)) and not has_record(folder, result.key, type(result)):
        write_atomically(path, record_text(result))


class ResultStore:
    """What is known about the cells of one board.

    ``results/<protector>/<countermeasure>-...-<key>.json``, ``curves/<key>.json``, ``failures/<key>.json`` and, where
    something went wrong that a user cannot put right, its traceback in ``failures/<key>.txt``.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def create(self) -> None:
        """Make the folder. Raises EnvironmentProblem when it cannot be written."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.out):
                pass
        except OSError as error:
            raise StorageProblem(
                f"the results folder {self.out} cannot be written: {error.strerror}", "choose another with --out"
            ) from error

    def sweep(self) -> None:
        """Remove what killed processes left half written, a day after they last touched it."""
        for kind in ("results", "curves", "failures", "evasion"):
            if (folder := self.out / kind).is_dir():
                sweep([folder, *(p for p in folder.iterdir() if p.is_dir())])

    def results(self) -> list[Result]:
        """Return all results, sorted by id. A file that is not one is set aside, see :mod:`.records`.

        A copy of a file adds nothing. Two results of one cell with other numbers are both returned.
        """
        found: dict[str, Result] = {}
        others = []
        for r in records(self.out / "results", Result):
            if found.setdefault(r.key, r).metrics != r.metrics:
                others.append(r)
        return sorted([*found.values(), *others], key=lambda r: (r.id, r.key))

    def has(self, key: str) -> bool:
        """Return whether the cell with that key has a result."""
        return has_record(self.out / "results", key, Result)

    def failures(self) -> list[Failure]:
        """Return the cells that failed when they were last tried. A file that is not a failure is set aside."""
        return records(self.out / "failures", Failure, below=False)

    def curve(self, key: str) -> Curve | None:
        """Return the curve of the result with that key; None where none of its own can be read."""
        try:
            text = (self.out / "curves" / f"{key}.json").read_bytes().decode("utf-8-sig")
            curve = Curve.model_validate_json(text)
        except (OSError, ValueError):
            return None
        return curve if curve.key == key else None

    def write(self, result: Result, curve: Curve) -> None:
        """Record a finished cell; its earlier failure, if any, is forgotten.

        The first result of a cell is the one that stays, its curve with it.
        """
        if self.has(result.key):
            return
        self.forget_failure(result.key)
        # First the curve: a result without one would be taken for whole, a curve without a result is written again.
        write_atomically(self.out / "curves" / f"{curve.key}.json", _line(curve))
        write_record(self.out / "results", result)

    def forget_failure(self, key: str) -> None:
        """Remove what is recorded of an earlier failure of the stage with that key, as far as that can be done."""
        for ending in ("json", "txt"):
            with contextlib.suppress(OSError):
                (self.out / "failures" / f"{key}.{ending}").unlink(missing_ok=True)

    def write_failure(self, failure: Failure, trace: str = "") -> None:
        """Record why a cell failed, and the traceback if there is one, in place of its earlier failure.

        Where that cannot be written the user is told: other cells go on.
        """
        folder = self.out / "failures"
        traceback = folder / f"{failure.key}.txt"
        try:
            write_atomically(folder / f"{failure.key}.json", record_text(failure))
            if trace:
                write_atomically(traceback, trace)
            else:
                traceback.unlink(missing_ok=True)
        except OSError as error:
            log.warning("ue-bench: cannot record a failure in %s: %s", folder, error.strerror)


def _line(record: BaseModel) -> str:
    return json.dumps(as_json(record), ensure_ascii=False, allow_nan=False) + "\n"
