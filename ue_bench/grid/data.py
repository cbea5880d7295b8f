"""Datasets as stored, memory-mapped sets."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import files
from ..catalogue.registry import registry
from ..contract.context import Context, ProgressReport
from ..contract.imageset import ImageSet
from ..contract.plugin import Dataset
from ..engine.numerics import full_float32
from ..errors import ValidationError
from ..keys import digest
from ..leases import leases_in
from ..store import schema
from ..store.artifacts import ArtifactStore, load_images, save_images
from .cell import Data
from .environment import RunEnvironment
from .surrogates import Surrogates


def stored_dataset(plugin: Dataset, env: RunEnvironment, report: ProgressReport) -> Data:
    """Load ``plugin`` into the store, unless it is there and its files and parameters have not changed since.

    Raises ValidationError when training and test set do not fit together, or one of them is empty.
    """
    store = ArtifactStore(env.cache_dir)
    identity = plugin.identity()  # first: it says in one line what is not there
    key = digest({"dataset": identity, "files": [_stamp(path) for path in plugin.files(env.data_dir)]})

    def fill(folder: Path) -> None:
        with open_context(env, store, 0, report) as ctx:
            train, test = plugin.load("train", ctx), plugin.load("test", ctx)
            _check_splits(plugin, train, test)
            save_images(folder / "train", train)
            save_images(folder / "test", test)

    leases = leases_in(env.cache_dir)
    busy = f"wait for another process to load {plugin.selector}"
    if not store.has("datasets", key):
        with leases.hold(f"datasets.{key}", plugin.selector, lambda: report(0, 1, busy)):
            store.make("datasets", key, fill)
    folder = store.path("datasets", key)
    train, test = load_images(folder / "train"), load_images(folder / "test")
    info = schema.DatasetInfo(
        selector=plugin.selector,
        source=train.source or plugin.name,
        train=len(train),
        test=len(test),
        classes=train.num_classes,
        height=train.size[0],
        width=train.size[1],
        fingerprint=digest([train.fingerprint, test.fingerprint])[:16],
    )
    return Data(plugin, key, info, train.fingerprint, test.fingerprint)


def stored_split(store: ArtifactStore, data: Data, split: str) -> ImageSet:
    """Open the stored images of ``split``, "train" or "test"."""
    return load_images(store.path("datasets", data.artifact) / split)


def _check_splits(plugin: Dataset, train: ImageSet, test: ImageSet) -> None:
    if train.class_names != test.class_names:
        odd = sorted(set(train.class_names) ^ set(test.class_names))
        how = f"different classes: {', '.join(odd[:5])}" if odd else "the same classes in another order"
        raise ValidationError(
            f"training and test set of {plugin.selector} have {how}",
            "both need the same class names in the same order",
        )
    if train.size != test.size:
        raise ValidationError(
            f"training images of {plugin.selector} are {train.size}, test images {test.size}",
            "bring them to one size with size=...",
        )
    if not len(train) or not len(test):
        raise ValidationError(
            f"{plugin.selector} has {len(train)} training and {len(test)} test images", "both need some"
        )


def _stamp(path: Path) -> Any:
    """Return what tells that a file or folder changed, without reading it.

    Links to folders inside a folder are not followed, as readers do not: they may lead back to it. What is not there,
    or is a link to nothing, has a stamp too: the reader knows whether it needs that file, and says so.
    """
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return [path.name, None]
        raise files.cannot_read(path, error) from error
    if not stat.S_ISDIR(status.st_mode):
        return [path.name, status.st_size, status.st_mtime_ns]
    inside = [
        [entry.name, "link to a folder"]
        if entry.is_symlink() and files.leads_to_folder(entry)
        else _stamp(Path(entry.path))
        for entry in files.entries(path)
    ]
    return [path.name, inside]


@contextlib.contextmanager
def open_context(
    env: RunEnvironment,
    store: ArtifactStore,
    seed: int,
    report: ProgressReport,
    precision: str = "fp32",
    learn_from: ImageSet | None = None,
    defers: bool = False,
) -> Iterator[Context]:
    """Give a context to work in, with a scratch folder that is gone afterwards.

    On a GPU float32 is not rounded to TF32 meanwhile. The states of long work that were opened through it are
    afterwards free for other processes.
    """

    def open_dataset(selector: str, split: str) -> ImageSet:
        [plugin] = registry().resolve("dataset", selector, folders=(env.data_dir,))
        assert isinstance(plugin, Dataset)
        return stored_split(store, stored_dataset(plugin, env, report), split)

    with store.scratch() as scratch, full_float32(env.device):
        try:
            yield Context(
                env.device, seed, scratch, store.root, env.data_dir, report, open_dataset, precision,
                learn_from=learn_from, networks=Surrogates(), defers=defers,
            )  # fmt: skip
        finally:
            leases_in(store.root).release_all("unfinished.")
