"""Image sets in folders, one for each class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from ue_bench.api import Context, ImageSet, InputPath, UserError, check_file, class_folders, visible_files

from .common import (
    HeldOut,
    Labels,
    Picture,
    check_labels,
    check_same_classes,
    check_split,
    first_per_class,
    store_pictures,
)

SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"]
)
TRAIN = ("train",)
TEST = ("test", "val", "validation", "valid")  # the first of them that exists


class Listing(NamedTuple):
    """Image files with their classes, in dataset order: by class, then by path."""

    files: list[Path]
    labels: Labels
    class_names: tuple[str, ...]


class ImageFolder(HeldOut):
    """``path/train/CLASS/*`` and ``path/test/CLASS/*`` (or ``val``), or ``path/CLASS/*`` with ``test_fraction``.

    Classes are the subfolders in alphabetical order; images may lie deeper inside them. A ``test`` folder without any
    of the classes has no labels: ``val`` is read in its place. Hidden files and folders, and files whose extension is
    not that of an image, are ignored; a damaged image is an error, and so is a link to nothing. Links to images are
    followed, and so are ``train`` and ``test`` where they are links; links to folders inside a class are not, and a
    class must not be one. EXIF orientation is applied, transparency is laid on white, everything is converted to 8-bit
    RGB; animations give their first frame.
    """

    name: ClassVar[str] = "imagefolder"

    path: InputPath = Field(description="folder with the images")

    def files(self, data_dir: Path) -> list[Path]:
        splits = [self.path / name for name in (*TRAIN, *TEST)]
        return [self.path, *(folder for folder in splits if folder.is_symlink())]

    def load(self, split: str, ctx: Context) -> ImageSet:
        check_split(split)
        train, test = self._folders()
        if test is not None:
            names = tuple(class_folders(train))
            check_same_classes(names, tuple(class_folders(test)), self.path.name)
        listing = _list(test if test is not None and split == "test" else train)
        where = f"{self.path.name} {split}" if test is not None else self.path.name
        check_labels(listing.labels, listing.class_names, where)
        if test is not None:
            rows = first_per_class(listing.labels, self.limit(split))
        else:
            rows = self.held_out(split, listing.labels, listing.class_names, self.path.name)
            rows = rows[first_per_class(listing.labels[rows], self.limit(split))]
        pictures = [Picture(str(listing.files[row]), listing.files[row]) for row in rows]
        images = store_pictures(pictures, len(rows), self.size, ctx, f"reading {self.path.name} {split}")
        return ImageSet(images, listing.labels[rows], listing.class_names, self.path.name)

    def _folders(self) -> tuple[Path, Path | None]:
        """Return the folders of the training and, if it is to be used, the test images."""
        if not self.path.is_dir():
            check_file(self.path, "folder")
            raise UserError(f"{self.path} is not a folder", "give the folder that holds the class folders")
        train = next(iter(self._split(TRAIN)), None)
        if train is None:
            self._check_flat()
            return self.path, None
        if self.test_fraction is not None:
            return train, None
        tests, classes = self._split(TEST), class_folders(train).keys()
        # A test split may come without labels (one folder, or none): then the one with labels is meant.
        labelled = [folder for folder in tests if classes & class_folders(folder).keys()]
        return train, next(iter([*labelled, *tests]), None)

    def _split(self, names: tuple[str, ...]) -> list[Path]:
        """Return a split's folders that are there, by any of its names. They may be links, the classes in them not."""
        folders = [self.path / name for name in names]
        for folder in folders:
            if folder.is_symlink():
                check_file(folder, "folder")
        return [folder for folder in folders if folder.is_dir()]

    def _check_flat(self) -> None:
        """Refuse folders of a split under another name, which would be taken for classes."""
        folders = class_folders(self.path)
        # A class may be called valley, but not all of them are.
        all_splits = all(name.casefold().startswith(("train", "test", "val")) for name in folders)
        for name, folder in folders.items():
            if (all_splits or name in TEST) and class_folders(folder):
                raise UserError(
                    f"{self.path} has {name}/ but no train/",
                    f"put the training images in {self.path / 'train'}, and those to test on in {self.path / 'test'}",
                )


def _list(folder: Path) -> Listing:
    classes = class_folders(folder)
    if not classes:
        hint = "put the images of each class in a folder of its own"
        if any(path.suffix == ".tar" for path in folder.iterdir()):
            hint = "WebDataset shards: unpack them first, as docs/protocols-and-boards.md shows"
        raise UserError(f"{folder} has no class folders", hint)
    files: list[Path] = []
    labels: list[int] = []
    for label, place in enumerate(classes.values()):
        class_files = visible_files(place, SUFFIXES)
        files += class_files
        labels += [label] * len(class_files)
    return Listing(files, np.array(labels, dtype=np.int64), tuple(classes))
