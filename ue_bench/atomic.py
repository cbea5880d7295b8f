"""Write files, folders and checkpoints that are whole or absent, also after a kill or a power cut."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checksums import log, moved, seal, sync
from .errors import EnvironmentProblem, Unwritable, UserError
from .leases import NO_LINKS
from .temporaries import FILE, FOLDER, temporary_file, temporary_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MARK = b"ue-bench blake2b"  # the end of a checkpoint, after the checksum of all before
CHECKSUM = 32  # bytes


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a new file; when the block ends without an error, that file takes the place of ``path``.

    Readers see the old or the new content and nothing between. Makes the folder if need be. Where ``path`` is a link,
    what it leads to is replaced.
    """
    path = path.resolve() if path.is_symlink() else path
    # Not tempfile: its files are for their owner only. No ending: whoever looks for *.json must not find half of one.
    temporary = temporary_file(path.parent)
    with _told_apart(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    """Let errors of writing ``path`` name it and not a temporary file, as Unwritable where that is not allowed.

    Errors of any other file within the block, also of one beside it that is read there, pass as they are.
    """
    try:
        yield
    except OSError as error:
        where = None if error.filename is None else Path(os.fsdecode(error.filename))
        if where is None or not (_is_temporary(where, path.parent) or path.is_relative_to(where)):
            raise
        if isinstance(error, PermissionError):
            raise Unwritable(error.errno, error.strerror, str(path)) from error
        if error.filename2 is None:
            error.filename = str(path)
        raise


def _is_temporary(path: Path, folder: Path) -> bool:
    """Return whether ``path`` is a temporary file or folder of ours in ``folder``, or lies in one."""
    return path.is_relative_to(folder) and str(path.relative_to(folder)).startswith((FILE, FOLDER))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` with ``content``, text as UTF-8 with line feeds; half of a character is written as an escape."""
    with replacing(path) as temporary:
        _write(temporary, content)


def write_once(path: Path, content: str | bytes) -> bool:
    """Write ``content`` to ``path`` as ``write_atomically`` does, unless there is such a file; return whether it did.

    Of several processes that write the same file one succeeds.
    """
    temporary = temporary_file(path.parent)
    with _told_apart(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(temporary, content)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                if path.exists():
                    return False
                temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _write(path: Path, content: str | bytes) -> None:
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish(target: Path, make: Callable[[Path], None], before: Callable[[], None] = lambda: None) -> None:
    """Fill a temporary folder beside ``target``, add checksums and rename it: ``target`` is whole or absent.

    Its files are read-only; ``checksums.whole`` tells later whether they still are what ``make`` wrote. ``before`` is
    called when everything is ready: what it raises prevents the renaming.
    """
    with _told_apart(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target.parent) as temporary:
            make(temporary)
            seal(temporary)
            before()
            try:
                temporary.rename(target)
            except OSError:
                if not target.exists():  # else another process was first, with the same content
                    raise
            else:
                moved(temporary, target)
                sync(target.parent)


def save_checkpoint(path: Path, state: Any) -> None:
    """Write the state of a training with ``torch.save`` and a checksum, whole or not at all."""
    import torch

    with replacing(path) as temporary:
        with temporary.open("wb") as file:  # by a path, torch would call records in the file after it
            torch.save(state, file)
        _sign(temporary, path)


def load_checkpoint(path: Path, device: str = "cpu") -> Any | None:
    """Return the state that ``save_checkpoint`` wrote to ``path``, its tensors on ``device``; None if there is none.

    A file that is cut off, changed or of another training is removed with a line to the user: training starts anew.
    """
    import torch

    body = _signed(path)
    if body is None:
        return None
    try:
        return torch.load(body, map_location=device, weights_only=True)
    except Exception as error:  # it is what was written: only another version of torch can refuse it
        _refuse(path, f"torch cannot read it ({type(error).__name__})")
        return None


def claim_checkpoint(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make ``folder`` that of the state of one training, which ``settings``, plain data, tell from any other.

    Raises UserError when a training with other settings was begun in it.
    """
    note, text = folder / "run.json", json.dumps(settings, indent=1, allow_nan=False)
    if note.exists() and note.read_text(encoding="utf-8") != text:
        raise UserError(f"{folder} holds an unfinished training with other settings", "finish or remove it")
    write_atomically(note, text)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write finished arrays of long work with a checksum, whole or not at all; ``path`` ends in ``.npz``."""
    import numpy as np

    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        _sign(temporary, path)


def load_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that ``save_arrays`` wrote to ``path``; None, as ``load_checkpoint``, if there are none."""
    import numpy as np

    body = _signed(path)
    if body is None:
        return None
    with np.load(body, allow_pickle=False) as stored:
        return dict(stored)


def kept_images(path: Path, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return a part of long work on images from ``path``; ``make`` it and keep it there when there is none."""
    arrays = load_arrays(path)
    if arrays is None:
        arrays = {"images": make()}
        save_arrays(path, arrays)
    return arrays["images"]


def checkpoint_is_whole(path: Path) -> bool | None:
    """Return whether a checkpoint is what was written; None for a file without a checksum."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < CHECKSUM + len(MARK):
            return None
        file.seek(-CHECKSUM - len(MARK), os.SEEK_END)
        ending = file.read()
        if not ending.endswith(MARK):
            return None
        return _checksum(file, size - len(ending), path) == ending[:CHECKSUM]


def _sign(file: Path, path: Path) -> None:
    """Append the checksum of ``file``, which will be called ``path``."""
    with file.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        checksum = _checksum(stream, size, path)
        stream.seek(size)
        stream.write(checksum + MARK)


def _signed(path: Path) -> io.BytesIO | None:
    """Return the content of a checkpoint, or None."""
    if not path.exists():
        return None
    try:
        state = checkpoint_is_whole(path)
        if state:
            return io.BytesIO(path.read_bytes()[: -CHECKSUM - len(MARK)])
        _refuse(path, "it is not whole" if state is None else "it is damaged or of another training")
    except OSError as error:
        _refuse(path, f"it cannot be read: {error.strerror}")
    return None


def _refuse(path: Path, reason: str) -> None:
    log.warning("ue-bench: %s is not used, %s; that part of the work starts anew", path, reason)
    with contextlib.suppress(OSError):
        path.unlink()


def _checksum(file: io.BufferedIOBase | Any, size: int, path: Path) -> bytes:
    """Return the checksum of the first ``size`` bytes, and of the place they belong to."""
    checksum = blake2b(_place(path).encode("utf-8", "surrogateescape"), digest_size=CHECKSUM)
    file.seek(0)
    while size > 0 and (piece := file.read(min(size, 2**20))):
        checksum.update(piece)
        size -= len(piece)
    return checksum.digest()


def _place(path: Path) -> str:
    """Return what a checkpoint is of: in a cache, the key of the work; elsewhere a user may move its folder."""
    parts = path.parts
    if "unfinished" not in parts:
        return path.name
    key, *rest = parts[len(parts) - parts[::-1].index("unfinished") :]
    return "/".join([key.partition(".")[0], *rest])  # without the token of the lease under which it was written


def check_output(out: Path, *suffixes: str) -> None:
    """Check that ``out`` can be written, before any work is done for it.

    Raises UserError when it exists or ends in none of ``suffixes``, EnvironmentProblem when its folder cannot be
    written.
    """
    if out.suffix.lower() not in suffixes:
        raise UserError(f"--out {out} does not end in {' or '.join(suffixes)}", "the suffix says the format")
    try:
        if out.exists():
            raise UserError(f"{out} exists already", "remove it or choose another --out")
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {out}: {error.strerror}", "choose another --out") from error


def write_output(out: Path, content: bytes) -> None:
    """Write ``out`` whole or not at all. Raises EnvironmentProblem when that fails."""
    try:
        write_atomically(out, content)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {out}: {error.strerror}", "choose another --out") from error
