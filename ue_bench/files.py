"""Find files to read: hidden ones are left out, links to folders are not followed, and what is missing is named."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from .errors import EnvironmentProblem, UserError, ValidationError

# Folders that macOS and photo servers put beside the files they describe; their files have the suffixes of images.
SIDE_FOLDERS = frozenset(["__MACOSX", "@eaDir"])
POINTERS = {b"version https://git-lfs": "Git LFS", b"/annex/objects/": "git-annex"}


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of that name is none of the user's data: ``.DS_Store``, ``._0.png``."""
    return name.startswith(".") or name in SIDE_FOLDERS


def composed(name: str) -> str:
    """Return a name in composed form (NFC), which file systems disagree about."""
    return unicodedata.normalize("NFC", name)


def broken_link(path: Path) -> ValidationError | None:
    """Return what is wrong with ``path`` if it is a link to nothing or one that leads to itself."""
    if not path.is_symlink():
        return None
    try:
        path.stat()
    except OSError as error:
        ends = {errno.ENOENT: "nothing", errno.ENOTDIR: "nothing", errno.ELOOP: "itself"}
        if error.errno in ends:
            link = f"link to {ends[error.errno]}"
            return ValidationError(f"{path} is a {link}", f"fetch what {path} stands for, or remove this {link}")
    return None


def absent(path: Path, what: str = "file or folder") -> UserError:
    """Return the error for a path where nothing is that can be read."""
    return broken_link(path) or UserError(f"no {what} at {path}", "check the path")


def cannot_read(path: Path | str, error: OSError) -> EnvironmentProblem:
    """Return the error for a file or folder that the system does not let us read."""
    return EnvironmentProblem(f"cannot read {path}: {error.strerror or error}", "check its permissions")


def check_file(path: Path, what: str = "file") -> None:
    """Raise the error that tells why ``path`` cannot be read, if it cannot be.

    Raises ValidationError for a link to nothing or to itself, and for the pointer that Git LFS or git-annex leave in
    the place of a file; UserError when nothing is there; EnvironmentProblem when it may not be read.
    """
    try:
        if not path.exists():
            raise absent(path, what)
        if not path.is_file():
            return
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise cannot_read(path, error) from error
    for start, tool in POINTERS.items():
        if head.startswith(start):
            raise ValidationError(f"{path} is a pointer of {tool}, not the file itself", "fetch its content")


def visible_files(folder: Path, suffixes: Collection[str], below: bool = True) -> list[Path]:
    """Return the files in ``folder`` and below that have one of ``suffixes`` (in lower case), by their path in it.

    Without ``below`` only those directly in it.

    Hidden files and folders are left out, and so are links to folders, which may lead back to where they are; links to
    files are followed. Raises ValidationError that names a link to nothing, or a pipe or device, among those files, and
    EnvironmentProblem for a folder that cannot be read.
    """
    paths = list(_walk(folder, suffixes, below))
    return sorted(paths, key=lambda path: composed(path.relative_to(folder).as_posix()))


def _walk(folder: Path, suffixes: Collection[str], below: bool) -> Iterator[Path]:
    for entry in entries(folder):
        if is_hidden(entry.name):
            continue
        if leads_to_folder(entry):
            if below and not entry.is_symlink():
                yield from _walk(Path(entry.path), suffixes, below)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122  a million names
            path = Path(entry.path)
            if not (path.is_file() if entry.is_symlink() else entry.is_file()):
                raise broken_link(path) or ValidationError(f"{path} is not a file to read", "remove it")
            yield path


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a folder or a link to one."""
    # A DirEntry raises for a link to itself; a path says no.
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies directly in ``folder``, by name. Raises EnvironmentProblem when it cannot be read."""
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        raise absent(folder, "folder") from None
    except OSError as error:
        raise cannot_read(folder, error) from error


def class_folders(folder: Path) -> dict[str, Path]:
    """Return the folders in ``folder``, one a class, by their names in composed form, in alphabetical order.

    Raises ValidationError for a link to a folder: a class must not be left out without a word, and what lies behind a
    link neither counts for the key of a cell nor is safe from leading back here.
    """
    folders = {}
    for entry in entries(folder):
        if is_hidden(entry.name):
            continue
        if entry.is_symlink() and (broken := broken_link(Path(entry.path))):
            raise broken  # it may have been a class
        if not leads_to_folder(entry):
            continue
        if entry.is_symlink():
            raise ValidationError(
                f"{entry.path} is a link to a folder, which is not followed",
                "put a folder with the files, or with links to the files, in its place",
            )
        folders[composed(entry.name)] = Path(entry.path)
    return dict(sorted(folders.items()))
