"""Write files whole or not at all, and never over another without leave."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from .. import machine
from ..errors import EnvironmentProblem, UserError
from ..locks import hold

T = TypeVar("T")
R = TypeVar("R")
BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends


NAME_BYTES = 255  # that file systems give a name
OF_THE_NAME = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})


def write(path: Path, content: bytes) -> None:
    """Write ``path``, whose folder is made if need be.

    Raises EnvironmentProblem when that fails, and another UserError when it fails because of the name.
    """
    _write(path, content, 0o666)


def exists(path: Path) -> bool:
    """Return whether something is at ``path``; False where the file system does not take its name."""
    try:
        return path.exists()
    except OSError:
        return False


def write_private(path: Path, content: bytes) -> None:
    """Write ``path`` like ``write``, for its owner's eyes only."""
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    # Not atomic.replacing: what a kill leaves here would be published. A name that the same command writes again is
    # taken over by it. Nor is every picture brought to the disk by itself: there may be thousands.
    name = path.name + ".new"
    if len(os.fsencode(name)) > NAME_BYTES:
        name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32] + ".new"
    unfinished = path.with_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)  # its mode may be another
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, mode), "wb") as file:
            file.write(content)
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if error.errno in OF_THE_NAME:
            raise UserError(f"cannot be written under its name: {error.strerror}", "rename it") from error
        raise EnvironmentProblem(
            f"cannot write {path}: {error.strerror}", "make room or choose another folder; the same command continues"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write plain data to ``path``, for its owner's eyes only; file names of any encoding survive."""
    write_private(
        path,
        (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogateescape"),
    )


def read_json(path: Path) -> Any:
    """Return plain data from ``path``; None where there is nothing or something else.

    Raises EnvironmentProblem where it may not be read: what it holds would be taken for lost, and overwritten.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
    except PermissionError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}", "change its permissions") from error
    except (OSError, ValueError):
        return None


def apart(source: Path, out: Path) -> None:
    """Raise UserError when one folder lies in the other, or ``out`` is a file."""
    if inside(out, source) or (source.is_dir() and inside(source, out)):
        raise UserError(f"{out} and {source} lie in one another", "choose a folder beside it")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", "choose a folder")


def inside(path: Path, folder: Path) -> bool:
    """Return whether ``path``, which need not exist, is ``folder`` or lies in it, by whatever spelling or mount."""
    here, there = path.resolve(), folder.resolve()
    if here.is_relative_to(there):
        return True
    return exists(there) and any(exists(place) and place.samefile(there) for place in (here, *here.parents))


@contextlib.contextmanager
def alone(out: Path, cache_dir: Path | None) -> Iterator[None]:
    """Keep other commands from writing into ``out``: a lock in the cache, which ends with the process.

    Raises EnvironmentProblem when one does.
    """
    locks = (cache_dir or machine.cache_dir()).absolute() / "scratch"
    check_writable(locks)
    name = hashlib.sha256(str(out.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def busy(advice: str) -> None:
        raise EnvironmentProblem(f"another command is writing into {out}", advice)

    with hold(locks / f"{name}.lock", busy):
        yield


def check_writable(folder: Path) -> None:
    """Make ``folder`` if need be. Raises EnvironmentProblem when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {folder}: {error.strerror}", "choose another folder") from error


def check_private(path: Path, what: str, folders: Iterable[Path]) -> None:
    """Raise UserError when ``path``, which is the owner's alone, lies in one of ``folders``, or is one."""
    for folder in folders:
        if inside(path, folder):
            raise UserError(f"the {what} {path} lies in {folder}", "keep it elsewhere, it is not for publication")
    if path.is_dir():
        raise UserError(f"{path} is a folder", f"give a file for the {what}")


def beside(out: Path, ending: str) -> Path:
    """Return the path of a file that belongs to the folder ``out`` but must not be published with it."""
    return out.with_name(out.name + ending)


def in_threads(work: Callable[[T], R], items: Iterable[T], batch: int = 64) -> Iterator[R]:
    """Do ``work`` on every item, and yield the results in order, a batch at a time on all cores."""
    remaining = iter(items)
    with warnings.catch_warnings(), ThreadPoolExecutor(machine.usable_cores()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which does not concern the pixels
        while part := list(islice(remaining, batch)):
            yield from pool.map(work, part)
