"""Files written whole or not at all, and never over another without leave."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from .. import machine
from ..errors import EnvironmentProblem, UserError

T = TypeVar("T")
R = TypeVar("R")


def write(path: Path, content: bytes) -> None:
    """Write ``path``, whose folder is made if need be. Raises EnvironmentProblem when that fails."""
    unfinished = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise EnvironmentProblem(
            f"cannot write {path}: {error.strerror}", "make room or choose another folder; the same command continues"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Plain data at ``path``; file names of any encoding survive."""
    write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape"))


def print_json(content: Any) -> None:
    """Plain data on stdout, as ``write_json`` writes it."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    print(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def read_json(path: Path) -> Any:
    """Plain data from ``path``; None where there is nothing or something else."""
    try:
        return json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        return None


def apart(source: Path, out: Path) -> None:
    """Raise UserError when one folder lies in the other, or ``out`` is a file."""
    here, there = source.resolve(), out.resolve()
    if there.is_relative_to(here) or (source.is_dir() and here.is_relative_to(there)):
        raise UserError(f"{out} and {source} lie in one another", "choose a folder beside it")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", "choose a folder")


@contextlib.contextmanager
def alone(out: Path, cache_dir: Path | None) -> Iterator[None]:
    """No other command writes into ``out`` meanwhile: a lock in the cache, which ends with the process.

    Raises EnvironmentProblem when one does.
    """
    locks = (cache_dir or machine.cache_dir()).absolute() / "scratch"
    check_writable(locks)
    name = hashlib.sha256(str(out.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    lock = FileLock(locks / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise EnvironmentProblem(f"another command is writing into {out}", "wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


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
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the {what} {path} lies in {folder}", "keep it elsewhere, it is not for publication")
    if path.is_dir():
        raise UserError(f"{path} is a folder", f"give a file for the {what}")


def beside(out: Path, ending: str) -> Path:
    """A file that belongs to the folder ``out`` but must not be published with it."""
    return out.with_name(out.name + ending)


def in_threads(work: Callable[[T], R], items: Iterable[T], batch: int = 64) -> Iterator[R]:
    """``work`` on every item, in order, a batch at a time on all cores."""
    remaining = iter(items)
    with warnings.catch_warnings(), ThreadPoolExecutor(machine.usable_cores()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which does not concern the pixels
        while part := list(islice(remaining, batch)):
            yield from pool.map(work, part)
