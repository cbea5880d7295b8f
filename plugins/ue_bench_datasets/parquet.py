"""Image sets in Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ue_bench.api import Context, ImageSet, InputPath, UserError, ValidationError, check_file

from . import hub
from .common import HeldOut, Labels, check_labels, check_same_classes, check_split, first_per_class, store_pictures


class Parquet(HeldOut):
    """Parquet files as ``datasets`` of Hugging Face writes them: ``train-*.parquet`` and ``test-*.parquet``.

    The image column is a struct with ``bytes``, or plain bytes; the label column holds integers or strings. Class
    names come from the hub's metadata, else from the sorted strings, else they are ``class_0``, ``class_1``...
    A file on its own holds training images, and test images by ``test_fraction``. A folder without training files may
    have them in a sub-folder, that of the only configuration there is. Where names say how many files a split has
    (``train-00000-of-00002.parquet``), all of them must be there.
    """

    name: ClassVar[str] = "parquet"

    path: InputPath = Field(description="folder with the Parquet files, or one such file")
    image_column: str | None = Field(None, description="column with the images, where it is not plain which")
    label_column: str | None = Field(None, description="column with the labels, where it is not plain which")
    test_split: str | None = Field(
        None, pattern=r"^[\w.]+$", description="split to test on, where it is not the first of test and validation"
    )

    def files(self, data_dir: Path) -> list[Path]:
        return [*self._files("train"), *self._files("test")]

    def load(self, split: str, ctx: Context) -> ImageSet:
        check_split(split)
        train = self._table("train")
        tests = self._files("test")
        class_names = train.class_names
        if tests:
            check_same_classes(class_names, self._table("test").class_names, str(self.path))
        table = self._table("test") if tests and split == "test" else train
        where = f"the {split} files of {self.path.name}"
        labels = table.labels(class_names)
        if tests and split == "test":
            self._check_labelled(labels, tests)
        # A held-out share is part of the training files, so all of their rows are checked.
        check_labels(labels, class_names, where)
        if tests:
            rows = first_per_class(labels, self.limit(split))
        else:
            rows = self.held_out(split, labels, class_names, self.path.name)
            rows = rows[first_per_class(labels[rows], self.limit(split))]
        images = store_pictures(table.pictures(rows), len(rows), self.size, ctx, f"reading {self.path.name} {split}")
        return ImageSet(images, labels[rows], class_names, self.path.stem)

    def _check_labelled(self, labels: Labels, files: list[Path]) -> None:
        """Refuse test images without labels: competitions keep theirs back, and write -1 in their place."""
        if len(labels) and labels.max() < 0:
            others = [name for name in hub.TEST if hub.shards(self._folder(), (name,)) not in ([], files)]
            raise ValidationError(
                f"{files[0]} has no labels, only {labels[0]}",
                f"test on another split: test_split={others[0]}" if others else "hold a share out: test_fraction=0.2",
            )

    def _table(self, split: str) -> hub.Table:
        files = self._files(split)
        if not files:
            raise UserError(
                f"{self.path} holds no {split} images in Parquet files", f"they are looked for as {split}-*.parquet"
            )
        if self.path.is_dir():
            hub.check_shards(files)
        return hub.Table(tuple(files), self.image_column, self.label_column)

    def _files(self, split: str) -> list[Path]:
        check_file(self.path, "file or folder")
        if self.path.is_file():
            return [self.path] if split == "train" else []
        folder = self._folder()
        if split == "train":
            return hub.shards(folder, hub.TRAIN)
        if self.test_fraction is not None:
            return []
        shards = hub.shards(folder, (self.test_split,) if self.test_split else hub.TEST)
        if self.test_split and not shards:
            raise UserError(f"{self.path} has no split {self.test_split!r}", "files are named SPLIT-*.parquet")
        return shards

    def _folder(self) -> Path:
        """Return where the files are: ``path``, or its only sub-folder with training files, as for a configuration."""
        if hub.shards(self.path, hub.TRAIN):
            return self.path
        places = [self.path, self.path / "data"]
        inside = sorted(p for place in places if place.is_dir() for p in place.iterdir() if p.name[0] != ".")
        folders = [folder for folder in inside if folder.is_dir() and hub.shards(folder, hub.TRAIN)]
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise UserError(f"{self.path} has several sets: {names}", f"choose one: parquet[path={folders[0]}]")
        return folders[0] if folders else self.path
