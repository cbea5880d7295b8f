"""Recover the clean images behind protected ones, with the owner's key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import EnvironmentProblem, UserError, ValidationError, disk_problem
from ..progress import usable_device
from . import files, folders, keyfile, pictures
from .contexts import owner_context

if TYPE_CHECKING:
    from ..contract.context import Context, ProgressReport
    from ..contract.plugin import Protector

BATCH_PIXELS = 2**20


@dataclass
class RecoveryOutcome:
    """The outcome of recovery: how well each file was recovered, and why others were not.

    ``exact`` are the clean pixels to the last bit; ``near`` are as close as the protector comes, of unchanged images;
    ``changed`` were recovered from images that are not as they were written, unchecked. ``ignored`` are no images.
    """

    images: int
    exact: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    remark: str = ""


def recover(
    key_path: Path,
    source: Path,
    out: Path,
    device: str | None,
    report: ProgressReport,
    modified: bool = False,
    force: bool = False,
    cache_dir: Path | None = None,
) -> RecoveryOutcome:
    """Write the clean image of every protected one in ``source``, a folder or a file, into ``out``.

    Without ``modified`` only images that the key knows are recovered; with it, all that the protector can undo.

    Raises UserError when the key is none, or its protector is not here, and ValidationError when it knows none of the
    images: then nothing is written.
    """
    key = keyfile.load(key_path)
    protector = key.protector()
    if not protector.recovers():
        raise UserError(f"{protector.name} cannot be undone here", "install the version that protected the images")
    listing = folders.images(source)
    image_files = listing.files
    if not image_files:
        raise UserError(f"{source} holds no image", "give the protected images")
    files.apart(source, out)
    outcome = RecoveryOutcome(
        len(image_files) + len(listing.refused), failed=dict(listing.refused), ignored=listing.ignored
    )
    if protector.revision != key.revision:
        outcome.remark = f"the key is of revision {key.revision} of {protector.name}, this is {protector.revision}"
    known, sizes = _look(key, image_files, outcome, report)
    if not known and not modified:
        raise ValidationError(
            f"{key_path} is not the key of these images: it knows none of {len(image_files):,}",
            "give the key that was written with them; --modified if they were changed since",
        )
    for file in image_files:
        if file.name not in known and not modified:
            outcome.failed.setdefault(file.name, "not protected with this key, or changed since")
    todo = [
        RecoveryTask(file, sizes[file.name], known.get(file.name))
        for file in image_files
        if file.name not in outcome.failed
    ]

    files.check_writable(out)
    names = folders.renamed([file.name for file in image_files], ".png")
    done = 0
    with owner_context(
        key.seed, usable_device(device or key.device), key.threads, key.precision, report, cache_dir
    ) as ctx:
        ctx = replace(ctx, recovery_key=key.arrays)
        for batch in _batches(todo):
            _recover_batch(
                batch, protector, ctx, {t.file.name: out / names[t.file.name] for t in batch}, force, outcome
            )
            done += len(batch)
            report(done, len(todo), "recover")
    return outcome


@dataclass(frozen=True)
class RecoveryTask:
    """A file to recover, its size, and what the key knows of it."""

    file: folders.File
    size: tuple[int, ...]
    entry: keyfile.Entry | None


def recover_each(protector: Protector, images: NDArray[np.uint8], ctx: Context) -> list[pictures.Pixels | UserError]:
    """Recover ``images`` (N x H x W x 3); an image that cannot be recovered gives the reason."""
    try:
        return list(protector.recover(images, ctx))
    except EnvironmentProblem:
        raise
    except UserError as error:
        if len(images) == 1:
            return [error]
    except Exception as error:  # a protector may raise anything for what was changed, and too many at once cost memory
        if isinstance(error, OSError) and disk_problem(error):
            raise
        if len(images) == 1:
            return [UserError(f"{type(error).__name__}: {error}".splitlines()[0])]
    return [recover_each(protector, image[None], ctx)[0] for image in images]


def batch_size(size: tuple[int, ...]) -> int:
    """Return how many images of that size are recovered at a time."""
    return max(1, min(32, BATCH_PIXELS // (size[0] * size[1])))


def _batches(todo: list[RecoveryTask]) -> Iterator[list[RecoveryTask]]:
    """Yield files of one size together."""
    by_size: dict[tuple[int, ...], list[RecoveryTask]] = {}
    for task in todo:
        by_size.setdefault(task.size, []).append(task)
    for size, tasks in by_size.items():
        for start in range(0, len(tasks), batch_size(size)):
            yield tasks[start : start + batch_size(size)]


def _look(
    key: keyfile.Key, image_files: list[folders.File], outcome: RecoveryOutcome, report: ProgressReport
) -> tuple[dict[str, keyfile.Entry], dict[str, tuple[int, ...]]]:
    """Return the entries of images that the key knows, and the sizes of all. Files that cannot be read are failures."""

    def look(file: folders.File) -> tuple[bytes, tuple[int, ...]] | str:
        try:
            pixels = pictures.read(file.path.read_bytes()).pixels
        except OSError as error:
            return error.strerror or "cannot be read"
        except UserError as error:
            return error.message
        return pictures.digest(pixels), pixels.shape[:2]

    known, sizes = {}, {}
    for number, (file, seen) in enumerate(zip(image_files, files.in_threads(look, image_files), strict=True), 1):
        if isinstance(seen, str):
            outcome.failed[file.name] = seen
        else:
            digest, sizes[file.name] = seen
            if digest in key.images:
                known[file.name] = key.images[digest]
        report(number, len(image_files), "compare with the key")
    return known, sizes


def _recover_batch(
    batch: list[RecoveryTask],
    protector: Protector,
    ctx: Context,
    targets: dict[str, Path],
    force: bool,
    outcome: RecoveryOutcome,
) -> None:
    """Recover images of one size and write them, save those that are there already."""
    todo = []
    for task in batch:
        there = _pixels(targets[task.file.name]) if task.entry else None
        if there is not None and task.entry and pictures.digest(there) == task.entry.clean:
            outcome.exact.append(task.file.name)
        else:
            todo.append(task)
    images = {task.file.name: _image(task) for task in todo}
    outcome.failed |= {name: image.message for name, image in images.items() if isinstance(image, UserError)}
    usable = [(task, image) for task in todo if isinstance(image := images[task.file.name], pictures.Picture)]
    if not usable:
        return
    results = recover_each(protector, np.stack([image.pixels for _, image in usable]), ctx)
    for (task, image), recovered in zip(usable, results, strict=True):
        name = task.file.name
        try:
            _write(task, image, recovered, targets[name], force, outcome)
        except EnvironmentProblem:  # a full disk is no property of this image
            raise
        except UserError as error:
            outcome.failed[name] = error.message


def _write(
    task: RecoveryTask,
    image: pictures.Picture,
    recovered: pictures.Pixels | UserError,
    target: Path,
    force: bool,
    outcome: RecoveryOutcome,
) -> None:
    """Complete what was recovered, write it, and say how good it is. Raises UserError when that cannot be."""
    name, entry = task.file.name, task.entry
    if isinstance(recovered, UserError):
        if entry is None or entry.sidecar is None:
            raise recovered
        recovered = image.pixels  # what the sidecar was made for where nothing could be recovered
    if entry is not None:
        recovered = entry.restored(recovered)
    exact = entry is not None and pictures.digest(recovered) == entry.clean
    if files.exists(target) and not force:
        there = _pixels(target)
        if there is None or not np.array_equal(there, recovered):
            raise UserError(f"{target} exists already and is something else", "use --force")
    files.write(target, pictures.encode(recovered, image, gray=entry is not None and entry.gray))
    if exact:
        outcome.exact.append(name)
    elif entry is None:
        outcome.changed.append(name)
    elif entry.exact or entry.sidecar is not None:
        raise UserError("recovered, but not exactly: this machine computes otherwise than the one that protected it")
    else:
        outcome.near.append(name)


def _image(task: RecoveryTask) -> pictures.Picture | UserError:
    """Return the protected image, or why it is not what it was at first."""
    try:
        image = pictures.read(task.file.path.read_bytes())
    except OSError as error:
        return UserError(f"{error.strerror or 'cannot be read'}, it was there before")
    except UserError as error:
        return error
    return image if image.pixels.shape[:2] == task.size else UserError("changed while the command ran")


def _pixels(path: Path) -> pictures.Pixels | None:
    """Return the image at ``path``, if there is one."""
    try:
        return pictures.read(path.read_bytes()).pixels
    except (OSError, UserError):
        return None
