"""Reading records of a results folder: what is not one is set aside by name and never stops the others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from ..checksums import log
from ..collector import without_collector
from ..errors import ValidationError
from . import index
from .listing import BAD, Stamp, is_settled, json_files
from .schema import SCHEMA

R = TypeVar("R", bound=BaseModel)
Known = dict[str, tuple[Stamp, R]]  # records by the path of their file in a folder, and the stamp it had
_remembered: dict[tuple[str, type[BaseModel]], Known[Any]] = {}
_told: set[Path] = set()  # files that stay where they are: said once in a process


def records(folder: Path, kind: type[R], below: bool = True) -> list[R]:
    """Return the records in ``folder``, and below it; other files are moved to ``bad`` in it, and the user is told.

    A file is read and verified once, and again when its stamp has changed: this process remembers, and for later ones
    there is an index, see :mod:`.index`. Raises ValidationError only for a file that a newer version of ue-bench wrote:
    it is not ours to move.
    """
    with without_collector():
        return _records(folder, kind, json_files(folder, below))


def _records(folder: Path, kind: type[R], files: Mapping[str, Stamp | None]) -> list[R]:
    known = _known(folder, kind)
    for name in known.keys() - files.keys():
        del known[name]
    if len(_unread(files, known)) >= index.WORTH:
        known |= {name: (cast(Stamp, files[name]), one) for name, one in index.read_index(folder, kind, files).items()}
    unread = _unread(files, known)
    is_worth_indexing = len(unread) >= max(index.WORTH, len(files) // 16)  # fewer are soon read again
    began = index.time_of(folder) if is_worth_indexing else None
    new = dict[str, R]()
    for name in unread:
        known.pop(name, None)
        record = _parse(folder, folder / name, kind)
        if record is not None:
            new[name] = record
            _remember(known, name, files[name], record)
    found = {name: new[name] if name in new else known[name][1] for name in files if name in new or name in known}
    if began is not None:
        stamps = ((name, record, files[name]) for name, record in found.items())
        index.write_index(folder, kind, {n: (stamp, record) for n, record, stamp in stamps if stamp is not None}, began)
    return list(found.values())


def record_at(folder: Path, path: Path, kind: type[R]) -> R | None:
    """Return the record in a file of ``folder``; None where it is none, which is then set aside."""
    known, name = _known(folder, kind), path.relative_to(folder).as_posix()
    try:
        stamp = Stamp.of(path.stat())
    except OSError:  # which reading it will tell
        return _parse(folder, path, kind)
    if name in known and known[name][0] == stamp:
        return known[name][1]
    known.pop(name, None)
    record = _parse(folder, path, kind)
    if record is not None:
        _remember(known, name, stamp, record)
    return record


def _known(folder: Path, kind: type[R]) -> Known[R]:
    """Return what this process knows of a folder; it may have changed since."""
    return _remembered.setdefault((os.fspath(folder), kind), {})


def _unread(files: Mapping[str, Stamp | None], known: Known[R]) -> list[str]:
    """Return the files whose content is not known."""
    return [name for name, stamp in files.items() if name not in known or known[name][0] != stamp]


def _remember(known: Known[R], name: str, stamp: Stamp | None, record: R) -> None:
    """Keep a record, unless its file may yet change without another stamp."""
    if stamp is not None and is_settled(stamp.newest):
        known[name] = stamp, record


def _parse(folder: Path, path: Path, kind: type[R]) -> R | None:
    try:
        if not path.is_file():  # a pipe would be waited for
            if path.exists() or path.is_symlink():
                _tell(path, "cannot be read: it is a link to nothing, or no file")
            return None  # else removed or set aside meanwhile
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
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
        _set_aside(folder, path, reason(error))
        return None


def _version(text: str) -> int:
    """Return the version of the schema that a file claims, or 0."""
    try:
        version = json.loads(text)["version"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return 0
    return version if isinstance(version, int) else 0


def reason(error: Exception) -> str:
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
