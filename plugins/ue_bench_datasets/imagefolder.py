"""Image sets in folders, one for each class."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from ue_bench.api import Context, ImageSet, InputPath, UserError

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

    Classes are the subfolders in alphabetical order; images may lie deeper inside them. Hidden files, and files whose
    extension is not that of an image, are ignored; a damaged image is an error. EXIF orientation is applied,
    transparency is laid on white, everything is converted to 8-bit RGB; animations give their first frame.
    """

    name: ClassVar[str] = "imagefolder"

    path: InputPath = Field(description="folder with the images")

    def files(self, data_dir: Path) -> list[Path]:
        return [self.path]

    def load(self, split: str, ctx: Context) -> ImageSet:
        check_split(split)
        train, test = self._folders()
        if test is not None:
            names = tuple(_classes(train))
            check_same_classes(names, tuple(_classes(test)), self.path.name)
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
        """The folders of the training and, if it is to be used, the test images."""
        if not self.path.is_dir():
            raise UserError(f"no folder at {self.path}", "check the path")
        train, test = (
            next((self.path / n for n in names if (self.path / n).is_dir()), None) for names in (TRAIN, TEST)
        )
        if train is None and test is not None and _classes(test):
            raise UserError(
                f"{self.path} has {test.name}/ but no train/", f"put the training images in {self.path / 'train'}"
            )
        return train or self.path, test if train is not None and self.test_fraction is None else None


def _classes(folder: Path) -> dict[str, Path]:
    """Class folders by name, in alphabetical order. Names are in composed form, which file systems disagree about."""
    found = {
        unicodedata.normalize("NFC", p.name): p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")
    }
    return dict(sorted(found.items()))


def _list(folder: Path) -> Listing:
    classes = _classes(folder)
    if not classes:
        raise UserError(f"{folder} has no class folders", "put the images of each class in a folder of its own")
    files: list[Path] = []
    labels: list[int] = []
    for label, place in enumerate(classes.values()):
        found = _images(place)
        files += found
        labels += [label] * len(found)
    return Listing(files, np.array(labels, dtype=np.int64), tuple(classes))


def _images(place: Path) -> list[Path]:
    """Image files in a class folder and below, by their path in it."""
    found = []
    for parent, folders, names in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  a million names
        ]
    return sorted(found, key=lambda file: unicodedata.normalize("NFC", file.relative_to(place).as_posix()))
