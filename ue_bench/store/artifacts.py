"""Stage outputs in a content-addressed folder: whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.context import publish
from ..contract.imageset import ImageSet
from ..errors import EnvironmentProblem


def save_images(folder: Path, data: ImageSet) -> None:
    """Write ``data`` into ``folder`` (made if need be); an array that is a file already is linked, not copied."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "images.npy"
    if not _link(data, target):
        with target.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": data.images.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in data.chunks():
                file.write(np.ascontiguousarray(data.images[part]).data)
    np.save(folder / "labels.npy", data.labels)
    meta = {"class_names": list(data.class_names), "source": data.source, "fingerprint": data.fingerprint}
    (folder / "images.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _link(data: ImageSet, target: Path) -> bool:
    """Link the file that ``data.images`` maps, if it maps all of it as it stands: views of it keep its name."""
    images = data.images
    name = getattr(images, "filename", None)
    if name is None or getattr(images, "mode", "c") == "c":
        return False
    with contextlib.suppress(OSError, ValueError):
        whole = np.load(name, mmap_mode="r")
        if (whole.dtype, whole.shape, whole.strides) == (images.dtype, images.shape, images.strides):
            os.link(name, target)
            return True
    return False


def load_images(folder: Path) -> ImageSet:
    """The set that ``save_images`` wrote, images memory-mapped."""
    meta = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    images = np.load(folder / "images.npy", mmap_mode="r")
    data = ImageSet(images, np.load(folder / "labels.npy"), tuple(meta["class_names"]), meta["source"])
    data.__dict__["fingerprint"] = meta["fingerprint"]  # fills the cached property: hashing gigabytes is slow
    return data


class ArtifactStore:
    """Artifacts by kind and key under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise EnvironmentProblem(
                f"the cache folder {root} cannot be written: {error.strerror}", "choose another with --cache-dir"
            ) from error

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        return self.path(kind, key).is_dir()

    def make(self, kind: str, key: str, fill: Callable[[Path], None]) -> Path:
        """The artifact's folder, filled by ``fill(folder)`` if it does not exist yet."""
        target = self.path(kind, key)
        if not target.is_dir():
            publish(target, fill)
        return target

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the same file system that is gone afterwards."""
        parent = self.root / "scratch"
        parent.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".making-{os.getpid()}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes left half made."""
        for folder in self.root.glob("*/.making-*"):
            pid = folder.name.split("-")[1]
            if not (pid.isdigit() and _alive(int(pid))):
                shutil.rmtree(folder, ignore_errors=True)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Number of artifacts and bytes by kind."""
        found: dict[str, tuple[int, int]] = {}
        for kind in sorted(p for p in self.root.iterdir() if p.is_dir()):
            artifacts = [p for p in kind.iterdir() if p.is_dir()]
            size = sum(f.stat().st_size for a in artifacts for f in a.rglob("*") if f.is_file())
            found[kind.name] = (len(artifacts), size)
        return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def read_json(path: Path) -> Any:
    """Plain data from a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
