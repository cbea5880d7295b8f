"""Results, curves and failures in a board's folder: one small file each, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from ..errors import EnvironmentProblem, ValidationError
from .schema import Curve, Failure, Result, as_json, json_text

R = TypeVar("R", bound=BaseModel)


KEY_DIGITS = 16  # of a key in a file name: no two of a billion results share them
OLD_KEY_DIGITS = 8  # in names of before


def slug(text: str) -> str:
    """A selector as part of a file name: ``jpeg[quality=10]`` becomes ``jpeg-quality-10``. Tells nothing apart."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[:80].strip("-.") or "x"


def cell_file(folder: Path, key: str) -> Path | None:
    """The file below ``folder`` whose name ends in ``key``, whatever the number of digits; None where there is none."""
    for path in sorted(folder.glob(f"*/*-{key[:OLD_KEY_DIGITS]}*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):  # what is no result is no cell's file
            if json.loads(path.read_text(encoding="utf-8"))["key"] == key:
                return path
    return None


def cell_path(folder: Path, key: str, protector: str, *names: str) -> Path:
    """Where the result with ``key`` is written: over its own file, and never over that of another key.

    Names are cut, lose their brackets and differ in case alone, which some file systems ignore: the digits of the key
    tell files apart.
    """
    fresh = folder / slug(protector) / f"{'-'.join(map(slug, names))}-{key[:KEY_DIGITS]}.json"
    return cell_file(folder, key) or fresh


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` with ``text`` so that a reader sees the old or the new content and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".writing-{secrets.token_hex(8)}"  # not tempfile: its files are for their owner only
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
            raise EnvironmentProblem(
                f"the results folder {self.out} cannot be written: {error.strerror}", "choose another with --out"
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one filling run. The lock ends with the process, however that ends."""
        lock = FileLock(self.out / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise EnvironmentProblem(
                f"another run is filling {self.out}", "wait for it, or choose another folder with --out"
            ) from None
        try:
            for stale in self.out.glob("*/**/.writing-*"):
                stale.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def results(self) -> list[Result]:
        """All results, sorted by id. Raises ValidationError that names a file which is not one."""
        found = [_read(path, Result) for path in sorted((self.out / "results").rglob("*.json"))]
        return sorted(found, key=lambda r: (r.id, r.key))

    def has(self, key: str) -> bool:
        """Whether the cell with that key has a result."""
        path = cell_file(self.out / "results", key)
        return path is not None and _read(path, Result).key == key

    def failures(self) -> list[Failure]:
        """Cells that failed when they were last tried. Raises ValidationError like ``results``."""
        return [_read(path, Failure) for path in sorted((self.out / "failures").glob("*.json"))]

    def write(self, result: Result, curve: Curve) -> None:
        """Record a finished cell; its earlier failure, if any, is forgotten."""
        self.forget_failure(result.key)
        write_atomically(self.out / "curves" / f"{curve.key}.json", _line(curve))
        names = result.countermeasure, result.victim, result.protocol, f"s{result.seed}"
        write_atomically(cell_path(self.out / "results", result.key, result.protector, *names), _pretty(result))

    def forget_failure(self, key: str) -> None:
        """Remove what is recorded of an earlier failure of the stage with that key."""
        for ending in ("json", "txt"):
            (self.out / "failures" / f"{key}.{ending}").unlink(missing_ok=True)

    def write_failure(self, failure: Failure, trace: str = "") -> None:
        """Record why a cell failed, and the traceback if there is one, in place of its earlier failure."""
        write_atomically(self.out / "failures" / f"{failure.key}.json", _pretty(failure))
        traceback = self.out / "failures" / f"{failure.key}.txt"
        if trace:
            write_atomically(traceback, trace)
        else:
            traceback.unlink(missing_ok=True)


def _read(path: Path, record: type[R]) -> R:
    try:
        return record.model_validate_json(path.read_text(encoding="utf-8"))
    except (PydanticError, UnicodeDecodeError) as error:
        raise ValidationError(
            f"{path} is not a {record.__name__.lower()} of this version", "remove it or run its cell again"
        ) from error


def _pretty(record: BaseModel) -> str:
    return json_text(as_json(record))


def _line(record: BaseModel) -> str:
    return json.dumps(as_json(record), ensure_ascii=False) + "\n"
