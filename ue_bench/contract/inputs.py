"""Find files and folders that plugins take as parameters, by path or by content, and know them by their content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from ..errors import UserError
from ..files import absent

InputPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""What the plugin reads; ``~`` is the home folder.

Its content enters the key. Results show its last part and the first digits of its content's digest, as in
``noise.npy#3f2a91bc``, and such a name can be given in place of a path.
"""

SHOWN_DIGITS = 8  # of a digest in a selector
_NAME_AND_DIGEST = re.compile(rf"(.+)#([0-9a-f]{{{SHOWN_DIGITS}}})")


@cache
def digest_path(path: Path) -> str:
    """Return SHA-256 (first 32 digits) of a file, or of the names and contents of a folder's files.

    Read once a process. Raises UserError when nothing is there or something cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
        else:
            raise absent(path)
        for file in files:
            digest.update(b"file" if file == path else os.fsencode(file.relative_to(path).as_posix()))
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    return digest.hexdigest()[:32]


def name_and_digest(path: Path) -> str:
    """Return the name of an input in results: ``noise.npy#3f2a91bc``, which tells files apart and names no folder.

    Raises UserError like ``digest_path``.
    """
    name = Path(os.path.abspath(path)).name  # noqa: PTH100  ".." by its own name, a link by the name it has
    return f"{name}#{content_digest(path)[:SHOWN_DIGITS]}"


def content_digest(path: Path) -> str:
    """Return the digest of what ``path`` means now: in another current folder it is another file."""
    if not path.exists():
        raise UserError(f"no file or folder at {path}", "check the path")  # as it was given
    return digest_path(path.absolute())


def find_input(path: Path, folders: Iterable[Path] = ()) -> Path:
    """Return ``path``, or what it stands for where it is written as in results: ``noise.npy#3f2a91bc``.

    That is looked for as ``noise.npy`` in the current folder, then in ``folders``, and must have this digest. A file
    whose name does end in such digits is itself. Raises UserError when there is none with this digest.
    """
    written = _NAME_AND_DIGEST.fullmatch(path.name)
    if written is None or path.exists():
        return path
    name, digest = written.groups()
    there = [folder.absolute() / path.with_name(name) for folder in (Path(), *folders)]
    there = [candidate for candidate in there if candidate.exists()]
    for candidate in there:
        if content_digest(candidate).startswith(digest):
            return candidate
    hint = "run from its folder, or give its path"
    if there:
        hint += f"; the one here is {name_and_digest(there[0])}"
    raise UserError(f"the file {name} with digest {digest} is not here", hint)


def has_path(value: Any) -> bool:
    """Return whether ``value`` is a path, or a list with one in it."""
    return isinstance(value, Path) or (isinstance(value, (list, tuple)) and any(map(has_path, value)))


def with_paths(value: Any, change: Callable[[Path], Any]) -> Any:
    """Return ``value`` with every path in it changed."""
    if isinstance(value, Path):
        return change(value)
    return type(value)(with_paths(v, change) for v in value) if has_path(value) else value
