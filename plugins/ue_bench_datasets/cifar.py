"""CIFAR-10 and CIFAR-100, from what lies in the data folder or else from their authors' site."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from ue_bench.api import Context, EnvironmentProblem, ImageSet, ValidationError, check_file, first_line

from . import hub
from .common import (
    SPLITS,
    Labels,
    Pixels,
    StoredDataset,
    check_labels,
    check_same_classes,
    check_split,
    first_per_class,
    store_arrays,
    store_pictures,
)
from .pickled import read_pickle

T = TypeVar("T")
SIDE = 32


class Cifar10(StoredDataset):
    """CIFAR-10: 50,000 training and 10,000 test photographs of ten classes.

    Looked for in the data folder: the authors' ``cifar-10-batches-py``, then Parquet files of the Hugging Face hub in
    ``cifar10/`` or in the folder itself; downloaded otherwise. Copies on the hub may have been stored as JPEG, which
    is lossy; their ``source`` says so. A copy of which a part is missing is refused, not downloaded again.
    """

    name: ClassVar[str] = "cifar10"
    paper: ClassVar[str] = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"

    title: ClassVar[str] = "CIFAR-10"
    classes: ClassVar[int] = 10
    folder: ClassVar[str] = "cifar-10-batches-py"
    archive: ClassVar[str] = "cifar-10-python.tar.gz"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
    }
    meta: ClassVar[str] = "batches.meta"
    label_key: ClassVar[str] = "labels"
    names_key: ClassVar[str] = "label_names"
    label_column: ClassVar[str] = "label"
    downloader: ClassVar[str] = "CIFAR10"

    def files(self, data_dir: Path) -> list[Path]:
        folder = self._pickles(data_dir)
        if folder is not None:
            return [folder / name for name in self._names()]
        shards = self._shards(data_dir)
        return [*shards["train"], *shards["test"]] if shards else []

    def load(self, split: str, ctx: Context) -> ImageSet:
        """Return the images of ``split`` in the order of the original files."""
        check_split(split)
        folder = self._pickles(ctx.data_dir)
        shards = None if folder else self._shards(ctx.data_dir)
        if shards:
            return self._from_parquet(shards, split, ctx)
        if folder is None:
            self._check_whole(ctx.data_dir)
            self._download(ctx.data_dir)
            folder = ctx.data_dir / self.folder
        self._check_files(folder)
        return self._from_pickles(folder, split, ctx)

    def _names(self) -> tuple[str, ...]:
        return (*self.batches["train"], *self.batches["test"], self.meta)

    def _pickles(self, data_dir: Path) -> Path | None:
        for folder in (data_dir / self.folder, data_dir):
            if (folder / self.meta).is_file() and (folder / self.batches["train"][0]).is_file():
                return folder
        return None

    def _shards(self, data_dir: Path) -> dict[str, list[Path]] | None:
        for folder in self._hub_folders(data_dir):
            shards = {"train": hub.shards(folder, ("train",)), "test": hub.shards(folder, ("test",))}
            # The data folder itself may hold any Parquet files: those of another dataset are not for us.
            if shards["train"] and shards["test"] and (folder != data_dir or self._is_ours(shards["train"])):
                return shards
        return None

    def _hub_folders(self, data_dir: Path) -> list[Path]:
        inside = data_dir / self.name
        return [inside, inside / self.name, inside / "plain_text", data_dir]

    def _is_ours(self, files: list[Path]) -> bool:
        try:
            table = hub.Table(tuple(files), "img", self.label_column)
            return bool(table.image and table.label) and len(table.class_names) == self.classes
        except Exception:  # whatever it is, it is not this dataset
            return False

    def _check_whole(self, data_dir: Path) -> None:
        """Refuse a copy of which only a part is there: taken for none, another would be downloaded."""
        if (data_dir / self.folder).is_symlink() or (data_dir / self.folder).exists():
            check_file(data_dir / self.folder, "folder")
            self._check_files(data_dir / self.folder)
        for folder in self._hub_folders(data_dir)[:-1]:
            shards = {split: hub.shards(folder, (split,)) for split in SPLITS}
            if any(shards.values()):
                missing = next(split for split in SPLITS if not shards[split])
                raise ValidationError(f"{folder} lacks {missing}-*.parquet", "fetch the folder again, or remove it")

    def _check_files(self, folder: Path) -> None:
        missing = []
        for name in self._names():
            if not (folder / name).is_file():
                missing.append(name)
                if (folder / name).is_symlink():
                    check_file(folder / name)
        if missing:
            raise ValidationError(
                f"{folder} lacks {', '.join(missing)}",
                f"it was not unpacked to the end: unpack {self.archive} again, or remove the folder",
            )

    def _from_parquet(self, shards: dict[str, list[Path]], split: str, ctx: Context) -> ImageSet:
        for files in shards.values():
            hub.check_shards(files)
        tables = {name: hub.Table(tuple(files), None, self.label_column) for name, files in shards.items()}
        names = tables["train"].class_names
        check_same_classes(names, tables["test"].class_names, self.title)
        table = tables[split]
        labels = table.labels(names)
        self._check(labels, names, split)
        rows = first_per_class(labels, self.limit(split))
        images = store_pictures(table.pictures(rows), len(rows), self.size, ctx, f"reading {self.title} {split}")
        if self.size is None and images.shape[1:3] != (SIDE, SIDE):
            raise ValidationError(
                f"{shards[split][0]} is no copy of {self.title}: its images are not 32x32", "fetch it again"
            )
        stored = table.format()
        return ImageSet(
            images, labels[rows], names, f"{self.title} ({stored} copy)" if "JPEG" in stored else self.title
        )

    def _from_pickles(self, folder: Path, split: str, ctx: Context) -> ImageSet:
        names = self._entry(folder / self.meta, self.names_key, lambda stored: tuple(map(str, stored)))
        paths = [folder / name for name in self.batches[split]]
        stored = [self._entry(path, self.label_key, _labels) for path in paths]
        lengths = dict(zip(paths, map(len, stored), strict=True))
        labels = np.concatenate(stored)
        self._check(labels, names, split)
        rows = first_per_class(labels, self.limit(split))

        def batches() -> Iterator[Pixels]:
            start = 0
            for path in paths:
                data = self._entry(path, "data", np.asarray)
                if data.dtype != np.uint8 or data.shape[1:] != (3 * SIDE * SIDE,):
                    raise ValidationError(
                        f"{path} holds {data.dtype} {data.shape}, not {self.title} images", "fetch it again"
                    )
                if len(data) != lengths[path]:
                    raise ValidationError(
                        f"{path} has {len(data)} images for {lengths[path]} labels", "it is damaged; fetch it again"
                    )
                chosen = rows[(rows >= start) & (rows < start + len(data))] - start
                start += len(data)
                yield data[chosen].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)

        images = store_arrays(batches(), len(rows), self.size, ctx, f"reading {self.title} {split}")
        return ImageSet(images, labels[rows], names, self.title)

    def _check(self, labels: Any, names: tuple[str, ...], split: str) -> None:
        if len(names) != self.classes:
            raise ValidationError(
                f"this copy of {self.title} has {len(names)} classes, not {self.classes}", "fetch it again"
            )
        check_labels(labels, names, f"{self.title} {split}")

    @staticmethod
    def _entry(path: Path, key: str, convert: Callable[[Any], T]) -> T:
        """Return an entry of a file. Raises ValidationError where it cannot be read or converted."""
        try:
            return convert(read_pickle(path)[key])
        except Exception as error:  # damaged pickles fail in many ways
            reason = first_line(error)
            raise ValidationError(
                f"cannot read {path}: {type(error).__name__} {reason}".rstrip(), "it is damaged; fetch it again"
            ) from error

    def _download(self, data_dir: Path) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for data
                from torchvision import datasets

                getattr(datasets, self.downloader)(str(data_dir), download=True)
        except Exception as error:  # no network, a broken torchvision, a read-only folder
            reason = first_line(error)
            archive = data_dir / self.archive
            if archive.exists():  # one with the right checksum would have been unpacked
                raise ValidationError(
                    f"{archive} is damaged or not whole, and cannot be downloaded again: {reason}", "fetch it again"
                ) from error
            raise EnvironmentProblem(
                f"{self.title} is not in {data_dir} and cannot be downloaded: {reason}",
                f"give the folder that holds {self.folder} or {self.name}/*.parquet with --data-dir",
            ) from error


class Cifar100(Cifar10):
    """CIFAR-100: the same numbers of photographs of a hundred (fine) classes; found in the same ways."""

    name: ClassVar[str] = "cifar100"

    title: ClassVar[str] = "CIFAR-100"
    classes: ClassVar[int] = 100
    folder: ClassVar[str] = "cifar-100-python"
    archive: ClassVar[str] = "cifar-100-python.tar.gz"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    meta: ClassVar[str] = "meta"
    label_key: ClassVar[str] = "fine_labels"
    names_key: ClassVar[str] = "fine_label_names"
    label_column: ClassVar[str] = "fine_label"
    downloader: ClassVar[str] = "CIFAR100"


def _labels(stored: Any) -> Labels:
    labels = np.asarray(stored, dtype=np.int64)
    if labels.ndim != 1:
        raise ValueError(f"labels of {labels.ndim} dimensions")
    return labels
