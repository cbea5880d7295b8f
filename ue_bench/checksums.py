"""Checksums of stored folders: written when a folder is published, compared when a process first uses it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import StorageProblem
from .temporaries import temporary_folder

MANIFEST = "checksums.json"
UNSEALED = "it has no checksums: an earlier version of ue-bench made it"
log = logging.getLogger("ue_bench")  # without a handler of the program's own, warnings go to stderr

Stamp = tuple[tuple[str, int, int, int], ...]
_known_whole: dict[str, Stamp] = {}  # folders whose content this process has read, as they were then


def file_checksum(path: Path) -> str:
    """Return the BLAKE2b checksum of a file, as long as SHA-256; only a piece of it is in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def seal(folder: Path) -> None:
    """Write the checksums of all files of ``folder``, bring everything to the disk and make files read-only.

    A file that has other names elsewhere is replaced by a copy: damage to one must not be damage to the other.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    sums: dict[str, str] = {}
    for path in _files(folder):
        if path.stat().st_nlink > 1:
            copy = path.with_name(f"{path.name}.copy")
            shutil.copyfile(path, copy)
            copy.replace(path)
        sums[path.relative_to(folder).as_posix()] = file_checksum(path)
        _settle(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(sums, indent=0, allow_nan=False), encoding="utf-8")
    _settle(manifest)
    for inner in [folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())]:
        sync(inner)
    _known_whole[str(folder)] = _stamp(folder, sums)


def moved(before: Path, after: Path) -> None:
    """Say that the sealed folder ``before`` is called ``after`` now."""
    stamp = _known_whole.pop(str(before), None)
    if stamp is not None:
        _known_whole[str(after)] = stamp


def damage(folder: Path, again: bool = False) -> str:
    """Return what is wrong with a sealed folder in a few words; an empty text when it is whole.

    Content is read once in a process, and ``again`` when asked or when sizes or times of files changed. Raises
    StorageProblem when it cannot be read: it may well be whole, and is not ours to remove.
    """
    try:
        sums = json.loads((folder / MANIFEST).read_bytes())
        if not isinstance(sums, dict) or not all(isinstance(v, str) for v in sums.values()):
            return f"{MANIFEST} is damaged"
        stamp = _stamp(folder, sums)
        if not again and _known_whole.get(str(folder)) == stamp:
            return ""
        for name, expected in sums.items():
            if file_checksum(folder / name) != expected:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        missing = Path(error.filename or MANIFEST)
        return UNSEALED if missing.name == MANIFEST else f"{missing.name} is missing"
    except ValueError:
        return f"{MANIFEST} is damaged"
    except OSError as error:
        raise StorageProblem(
            f"{folder.parent.name}/{folder.name[:12]} cannot be read: {error.strerror}",
            f"see to {folder.parent.parent}, or choose another --cache-dir",
        ) from error
    _known_whole[str(folder)] = stamp
    return ""


def whole(folder: Path) -> bool:
    """Return whether a published folder exists and is whole. A damaged one is removed, and the user is told."""
    if not folder.is_dir():
        return False
    before = folder.stat().st_ino
    reason = damage(folder)
    if reason:
        remove(folder, reason, before)
    return not reason


def remove(folder: Path, reason: str, inode: int | None = None) -> None:
    """Remove a damaged folder and tell the user, unless another process has already put a new one in its place.

    Raises StorageProblem when it cannot be removed.
    """
    name = f"{folder.parent.name}/{folder.name[:12]}"
    try:
        if inode is not None and folder.stat().st_ino != inode:
            return
        # Renamed first, so that nobody sees half of it; a name that ``sweep`` knows if this is killed.
        with temporary_folder(folder.parent) as away:
            folder.rename(away / "damaged")
    except FileNotFoundError:  # another process was faster
        return
    except OSError as error:
        raise StorageProblem(
            f"{folder} is damaged and cannot be removed: {error.strerror}", "remove it, or choose another --cache-dir"
        ) from error
    log.warning("ue-bench: removed %s from the cache, %s; it is made again when needed", name, reason)


def sync(path: Path) -> None:
    """Bring a file or the names in a folder to the disk, as far as the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _settle(path: Path) -> None:
    path.chmod(0o444)
    sync(path)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below ``folder`` in a fixed order; links are left out."""
    yield from sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _stamp(folder: Path, sums: dict[str, str]) -> Stamp:
    """Return inode, size and time of each file, which tell that one changed without reading it."""
    stamps = []
    for name in [MANIFEST, *sums]:
        status = (folder / name).stat()
        stamps.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)
