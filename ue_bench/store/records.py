"""Reading records of a results folder: what is not one is set aside by name and never stops the others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, cast

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from ..checksums import log
from ..errors import ValidationError
from .listing import is_settled
from .schema import SCHEMA

BAD = "bad"  # folder below "results", "evasion" and so on for what is not a record
R = TypeVar("R", bound=BaseModel)
_remembered: dict[tuple[str, type[BaseModel]], tuple[tuple[int, int, int], BaseModel]] = {}  # records, with stamps
_told: set[Path] = set()  # files that stay where they are: said once in a process


def records(folder: Path, files: Iterable[Path], kind: type[R]) -> list[R]:
    """Return the records among ``files`` of ``folder``; the others are moved to ``bad`` in it, and the user is told.

    Raises ValidationError only for a file that a newer version of ue-bench wrote: it is not ours to move.
    """
    found = (_read(folder, path, kind) for path in sorted(files, key=os.fspath) if not _is_aside(folder, path))
    return [record for record in found if record is not None]


def _is_aside(folder: Path, path: Path) -> bool:
    """Return whether a file was set aside. It then lies two folders deep, for a plugin may be called ``bad``."""
    parts = path.parts[len(folder.parts) :]
    return parts[0] == BAD and len(parts) > 2


def _read(folder: Path, path: Path, kind: type[R]) -> R | None:
    """Return the record in a file; that of before where the file did not change since this process read it."""
    try:
        status = path.stat()
    except OSError:  # which reading it will tell
        return _parse(folder, path, kind)
    stamp = status.st_ino, status.st_size, status.st_mtime_ns
    known = _remembered.get((os.fspath(path), kind))
    if known is not None and known[0] == stamp:
        return cast(R, known[1])
    record = _parse(folder, path, kind)
    if record is not None and is_settled(status.st_mtime_ns):
        _remembered[os.fspath(path), kind] = stamp, record
    return record


def _parse(folder: Path, path: Path, kind: type[R]) -> R | None:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:  # removed or set aside meanwhile
        return None
    except UnicodeDecodeError:
        _set_aside(folder, path, "it is not text")
        return None
    except OSError as error:
        _tell(path, f"cannot be read: {error.strerror}")
        return None
    try:
        return kind.model_validate_json(text)
    except (PydanticError, RecursionError) as error:
        if _version(text) > SCHEMA:
            raise ValidationError(
                f"{path} was written by a newer version of ue-bench", "install that version"
            ) from error
        _set_aside(folder, path, _reason(error))
        return None


def _version(text: str) -> int:
    """Return the version of the schema that a file claims, or 0."""
    try:
        version = json.loads(text)["version"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return 0
    return version if isinstance(version, int) else 0


def _reason(error: Exception) -> str:
    """Return the first thing that is wrong with a record, in a few words."""
    if not isinstance(error, PydanticError):
        return "it is nested too deeply"
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return " ".join(f"{where}: {first['msg']}".removeprefix(": ").removeprefix("Value error, ").split())[:200]


def _set_aside(folder: Path, path: Path, reason: str) -> None:
    """Move a file to ``bad``, under a name that is free there, and tell the user."""
    inner = path.relative_to(folder).parent
    place = folder / BAD / ("files" if inner == Path() else inner)
    target, number = place / path.name, 1
    while target.exists():
        number += 1
        target = place / f"{path.stem}-{number}{path.suffix}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    except FileNotFoundError:  # another process was faster
        return
    except OSError:
        _tell(path, f"is not used: {reason}")
        return
    log.warning("ue-bench: %s is not used (%s), it is now %s", path, reason, target.relative_to(folder.parent))


def _tell(path: Path, what: str) -> None:
    if path not in _told:
        _told.add(path)
        log.warning("ue-bench: %s %s", path, what)
