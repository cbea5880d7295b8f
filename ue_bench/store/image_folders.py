"""Images stored one a file: in one folder, or in one folder a class, and the orders that their names can mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, ValidationError, first_line
from ..files import absent, broken_link, class_folders, composed, visible_files

SUFFIXES = ((".png",), (".jpg", ".jpeg"))  # the first of these kinds that a folder has
SPLITS = frozenset(["train", "test", "val", "valid", "validation"])

Order = NDArray[np.intp]


@dataclass(frozen=True)
class FolderListing:
    """Image files in order: of one folder by the numbers in their names, of class folders by class and path.

    ``labels`` numbers the class folders, ``class_names`` has their names; both are empty for one folder.
    """

    folder: Path
    files: list[Path]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] = ()


def natural_key(path: Path | PurePosixPath) -> list[str | int]:
    """Return a sort key by which ``2.png`` comes before ``10.png``."""
    parts = re.split("([0-9]+)", path.name)  # text and numbers take turns
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def list_folder(folder: Path) -> FolderListing:
    """List the image files directly in ``folder``. Raises UserError when there are none."""
    for suffixes in SUFFIXES:
        files = sorted(visible_files(folder, suffixes, below=False), key=natural_key)
        if files:
            return FolderListing(folder, files, np.zeros(0, dtype=np.int64))
    raise UserError(f"no PNG files directly in {folder.name}", "put one PNG file an image there, without sub-folders")


def list_class_folders(folder: Path) -> FolderListing:
    """List the image files in the sub-folders of ``folder``, one a class; without any, those directly in it."""
    if any(visible_files(folder, suffixes, below=False) for suffixes in SUFFIXES):
        return list_folder(folder)
    places = class_folders(folder)
    if places and SPLITS.issuperset(map(str.lower, places)):
        raise UserError(f"{folder} holds {' and '.join(places)}, which are no classes", "give the path of one of them")
    for suffixes in SUFFIXES:
        found = [visible_files(place, suffixes) for place in places.values()]
        if any(found):
            labels = np.repeat(np.arange(len(found)), [len(files) for files in found])
            return FolderListing(folder, [file for files in found for file in files], labels, tuple(places))
    raise UserError(
        f"no PNG files in {folder.name}", "put one PNG file an image there, or in one folder a class inside it"
    )


def orders(listing: FolderListing, labels: NDArray[np.int64], class_names: Sequence[str]) -> list[Order]:
    """Return the orders in which the files of class folders may be meant, as a file for every image of a dataset.

    They may be numbered through the dataset, or in each class, or be called as the files of the dataset are. Only
    orders in which folders and classes agree are returned. Raises ValidationError when there are none.
    """
    candidates: list[Order] = []
    if len(listing.files) == len(labels):
        by_number = _by_number(listing.files)
        if by_number is not None and _agree(listing.labels[by_number], labels):
            candidates.append(by_number)
    label_of = _classes(listing, class_names)
    if label_of is not None:
        here, there = (
            np.bincount(label_of[listing.labels], minlength=len(class_names)),
            np.bincount(labels, minlength=len(class_names)),
        )
        if np.array_equal(here, there):
            candidates += [_by_class(listing, label_of, labels, key) for key in (natural_key, _path_key)]
        elif not candidates:
            odd = int(np.argmax(here != there))
            raise ValidationError(
                f"{listing.folder.name} has {here[odd]} images of class {class_names[odd]!r}, "
                f"but the dataset has {there[odd]}",
                "give one image for every training image",
            )
    if not candidates and len(listing.files) == len(labels):
        raise ValidationError(
            f"the folders in {listing.folder.name} are not the classes of the dataset: "
            f"{', '.join(listing.class_names[:5])}",
            f"name them {', '.join(class_names[:3])}, ..., or number the images through all of them",
        )
    return [order for place, order in enumerate(candidates) if not _among(order, candidates[:place])]


def _among(order: Order, others: list[Order]) -> bool:
    return any(np.array_equal(order, other) for other in others)


def _by_number(files: Sequence[Path]) -> Order | None:
    """Return the order of the last, or else the first, number in the names, if no two are the same."""
    numbers = [[int(number) for number in re.findall("[0-9]+", file.stem)] for file in files]
    if not all(numbers):
        return None
    for place in (-1, 0):
        chosen = [its[place] for its in numbers]
        if len(set(chosen)) == len(chosen):
            return np.array(sorted(range(len(files)), key=chosen.__getitem__), dtype=np.intp)
    return None


def _agree(folders: NDArray[np.int64], labels: NDArray[np.int64]) -> bool:
    """Return whether images of one folder, and no others, are of one class."""
    pairs = set(zip(folders.tolist(), labels.tolist(), strict=True))
    return len(pairs) == len({folder for folder, _ in pairs}) == len({label for _, label in pairs})


def _classes(listing: FolderListing, class_names: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the class of every folder: that of its name, else those in the order of the numbers in their names."""
    place = {composed(name): label for label, name in enumerate(class_names)}
    if place.keys() >= set(listing.class_names):
        return np.array([place[name] for name in listing.class_names], dtype=np.int64)
    if len(listing.class_names) != len(class_names):
        return None
    ranked = sorted(range(len(class_names)), key=lambda folder: natural_key(Path(listing.class_names[folder])))
    return np.argsort(ranked).astype(np.int64)


def _by_class(
    listing: FolderListing,
    label_of: NDArray[np.int64],
    labels: NDArray[np.int64],
    key: Callable[[PurePosixPath], list[str | int] | str],
) -> Order:
    """Return the order in which the k-th file of a class belongs to the k-th image of that class."""
    order = np.empty(len(labels), dtype=np.intp)
    folders = label_of[listing.labels]
    for label in np.unique(folders):
        rows: Iterable[int] = np.flatnonzero(folders == label).tolist()
        paths = {row: PurePosixPath(listing.files[row].relative_to(listing.folder).as_posix()) for row in rows}
        order[labels == label] = sorted(rows, key=lambda row: key(paths[row]))
    return order


def _path_key(path: PurePosixPath) -> str:
    return composed(path.as_posix())


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an 8-bit RGB or gray file, H x W x 3. Raises ValidationError that names it."""
    from PIL import Image

    label = f"{path.parent.name}/{path.name}"
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "L"):
                raise ValidationError(f"{label} is of mode {image.mode}, not RGB or L", "export 8-bit RGB or gray")
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise broken_link(path) or absent(path, "file") from None
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged data leads them to
        reason = first_line(error)
        raise ValidationError(f"cannot read {label}: {reason}", "check that the file is whole") from error
