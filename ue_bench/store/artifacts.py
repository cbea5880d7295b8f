"""Stage outputs in a content-addressed folder: whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import checkpoint_is_whole, publish
from ..checksums import MANIFEST, damage, remove, seal, whole
from ..contract.imageset import ImageSet
from ..errors import StorageProblem, ValidationError
from ..temporaries import FILE, sweep, temporary_folder


def save_images(folder: Path, data: ImageSet) -> None:
    """Write ``data`` into ``folder`` (made if need be). Stored sets share no files: damage to one is its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": data.images.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in data.chunks():
            file.write(np.ascontiguousarray(data.images[part]).data)
    np.save(folder / "labels.npy", data.labels)
    meta = {"class_names": list(data.class_names), "source": data.source, "fingerprint": data.fingerprint}
    (folder / "images.json").write_text(json.dumps(meta, indent=1, allow_nan=False), encoding="utf-8")


def load_images(folder: Path) -> ImageSet:
    """Return the set that ``save_images`` wrote, images memory-mapped. Raises ValidationError when it is damaged."""
    _check(folder)
    return _load(folder)


def _load(folder: Path) -> ImageSet:
    meta = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    images = np.load(folder / "images.npy", mmap_mode="r")
    data = ImageSet(images, np.load(folder / "labels.npy"), tuple(meta["class_names"]), meta["source"])
    data.__dict__["fingerprint"] = meta["fingerprint"]  # fills the cached property: hashing gigabytes is slow
    return data


def _check(place: Path) -> None:
    """Raise ValidationError when ``place``, a published folder or a part of one, is damaged."""
    for folder in (place, place.parent):
        if (folder / MANIFEST).exists():
            inode = folder.stat().st_ino
            if reason := damage(folder):
                remove(folder, reason, inode)
                raise ValidationError(
                    f"{folder.parent.name}/{folder.name[:12]} was damaged: {reason}", "run the command again"
                )
            return


def _adopt(folder: Path) -> None:
    """Add checksums to a folder of an earlier version if all of its image sets have the fingerprints they claim."""
    places = [file.parent for file in sorted(folder.rglob("images.json"))]
    with contextlib.suppress(OSError, EOFError, ValueError, KeyError, TypeError, ValidationError):
        for place in places:
            data = _load(place)
            claimed = data.__dict__.pop("fingerprint")
            if data.fingerprint != claimed:
                return
        if places:
            seal(folder)


@dataclass(frozen=True)
class Damage:
    """An artifact that is not what was written: its kind, its key or file, and what is wrong."""

    kind: str
    name: str
    reason: str


class ArtifactStore:
    """Artifacts by kind and key under one root folder, which is made unless it is only read.

    Raises StorageProblem when it cannot be written, and is to be.
    """

    def __init__(self, root: Path, read_only: bool = False) -> None:
        self.root = root
        if read_only:
            return
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise StorageProblem(
                f"the cache folder {root} cannot be written: {error.strerror}", "choose another with --cache-dir"
            ) from error

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        """Whether the artifact exists and is whole. A damaged one is removed, and the user is told."""
        if not os.path.isdir(f"{self.root}/{kind}/{key}"):  # noqa: PTH112  a plan asks a million times
            return False
        folder = self.path(kind, key)
        if not (folder / MANIFEST).exists():
            _adopt(folder)
        return whole(folder)

    def make(
        self, kind: str, key: str, fill: Callable[[Path], None], before: Callable[[], None] = lambda: None
    ) -> Path:
        """Return the artifact's folder, filled by ``fill(folder)`` if it does not exist or is damaged.

        ``before`` is called before it is published, see :func:`ue_bench.atomic.publish`.
        """
        target = self.path(kind, key)
        if not self.has(kind, key):
            publish(target, fill, before)
        return target

    def verify(self, kinds: Iterable[str]) -> tuple[int, list[Damage]]:
        """Read all artifacts of ``kinds`` and remove the damaged ones; return how many there were, and those.

        Checkpoints, in ``unfinished``, are single files; what plugins wrote there
        without a checksum is left alone.
        """
        count, found = 0, list[Damage]()
        for kind in kinds:
            for folder in sorted(p for p in (self.root / kind).glob("[!.]*") if p.is_dir()):
                if kind == "unfinished":
                    states = {file: _state(file) for file in sorted(folder.rglob("*"))}
                    count += sum(state is not None for state in states.values())
                    for file in (f for f, state in states.items() if state is False):
                        file.unlink(missing_ok=True)
                        found.append(Damage(kind, file.relative_to(self.root / kind).as_posix(), "it is damaged"))
                    continue
                count += 1
                if not (folder / MANIFEST).exists():
                    _adopt(folder)
                inode = folder.stat().st_ino
                if reason := damage(folder, again=True):
                    remove(folder, reason, inode)
                    found.append(Damage(kind, folder.name, reason))
        return count, found

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the same file system that is gone afterwards."""
        parent = self.root / "scratch"
        parent.mkdir(exist_ok=True)
        with temporary_folder(parent) as folder:
            yield folder

    def sweep(self) -> None:
        """Remove what killed processes left half made, a day after they last touched it."""
        sweep(kind for kind in self.root.iterdir() if kind.is_dir())

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Number of artifacts and bytes by kind."""
        found: dict[str, tuple[int, int]] = {}
        for kind in _entries(self.root):
            if not kind.startswith(".") and (folder := self.root / kind).is_dir():
                artifacts = [name for name in _entries(folder) if (folder / name).is_dir()]
                found[kind] = (len(artifacts), sum(_size(folder / name) for name in artifacts))
        return found

    def clear(self, kind: str) -> None:
        """Remove all artifacts of ``kind``; each is whole or absent for whoever looks meanwhile.

        What cannot be removed then lies in a temporary folder, which ``sweep`` knows. Raises OSError for a folder that
        cannot be written.
        """
        folder = self.root / kind
        with temporary_folder(folder) as away:
            for name in _entries(folder):
                if name != away.name:
                    with contextlib.suppress(FileNotFoundError):  # it ended, or another process removed it
                        (folder / name).rename(away / name)
        if not folder.is_symlink():  # which somebody put there, to another disk say
            with contextlib.suppress(OSError):  # something new is in it
                folder.rmdir()


def _state(file: Path) -> bool | None:
    """Return whether a checkpoint is whole; None for what is no finished file, or has gone meanwhile."""
    if file.name.startswith(FILE):
        return None
    try:
        return checkpoint_is_whole(file) if file.is_file() else None
    except FileNotFoundError:
        return None


def _entries(folder: Path) -> list[str]:
    """Return the names in a folder; none where it has gone meanwhile."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []


def _size(folder: Path) -> int:
    """Return the bytes of all files below, without those that go meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).stat().st_size
    return total


def read_json(path: Path) -> Any:
    """Return plain data from a JSON file of an artifact. Raises ValidationError when the artifact is damaged."""
    _check(path.parent)
    return json.loads(path.read_text(encoding="utf-8"))
