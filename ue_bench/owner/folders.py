"""List folders of images with their classes: one sub-folder a class, or one file of labels."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import UserError
from ..files import composed

SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".tga", ".avif", ".jp2",
})  # fmt: skip
# Images all the same, which must not pass for other files.
FOREIGN = frozenset({
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raw", ".exr",
    ".hdr", ".ico", ".xcf",
})  # fmt: skip
LABEL_FILES = ("labels.csv", "labels.tsv", "labels.txt")
SPLITS = frozenset(["train", "test", "val", "valid", "validation"])


@dataclass(frozen=True)
class File:
    """An image file: its path in the folder, written with ``/``, where it is, and its class."""

    name: str
    path: Path
    label: str


@dataclass(frozen=True)
class LabelFile:
    """A file of labels: lines of a file name, its class, and whatever else; a delimiter, or None for white space."""

    path: Path
    delimiter: str | None
    header: list[str] | None
    rows: list[list[str]]

    def renamed(self, names: dict[str, str]) -> str:
        """Write it with other file names; lines of files that have none are left out."""
        kept = [[names[row[0]], *row[1:]] for row in self.rows if row[0] in names]
        stream = io.StringIO()
        if self.delimiter is None:
            stream.writelines(" ".join(row) + "\n" for row in kept)
        else:
            lines = ([self.header] if self.header else []) + kept
            csv.writer(stream, delimiter=self.delimiter, lineterminator="\n").writerows(lines)
        return stream.getvalue()


@dataclass(frozen=True)
class Listing:
    """The images of a folder in order: by class and path, or as the file of labels has them.

    ``refused`` are images that cannot be used, with the reason; ``ignored`` are files that are not images.
    """

    files: list[File]
    classes: tuple[str, ...]
    refused: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    table: LabelFile | None = None


def scan(folder: Path, labels: Path | None = None, classes_needed: bool = True) -> Listing:
    """List what ``folder`` holds: one sub-folder a class, with images anywhere below, or images and a file of labels.

    The file of labels is ``labels``, or one called labels.csv, .tsv or .txt in a folder without sub-folders. Where
    classes are not needed, all images of a folder without either are of one class without a name.

    Raises UserError when there is no such folder, or no way to tell classes, and when the file of labels cannot be read
    or names a file twice.
    """
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}", "check the path")
    try:
        inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}", "check its permissions") from error
    inside_folders = [p for p in inside if p.is_dir() and not p.is_symlink()]
    places = {composed(p.name) for p in inside_folders}
    if labels is None and not places:
        labels = next((folder / name for name in LABEL_FILES if (folder / name).is_file()), None)
    if labels is not None:
        return _labelled(folder, read_table(labels, folder))
    if not places:
        if classes_needed:
            links = ", but links, which are not followed" if any(p.is_dir() for p in inside) else ""
            raise UserError(
                f"{folder} has no class folders and no labels.csv{links}",
                "put the images of each class in a folder of its own, or name a file with --labels",
            )
        return images(folder)
    if classes_needed and SPLITS.issuperset(map(str.lower, places)) and any(map(_has_folders, inside_folders)):
        raise UserError(f"{folder} holds {' and '.join(sorted(places))}, which are no classes", "give one of them")
    names = [p.name for p in inside if p not in inside_folders]
    for place in sorted(inside_folders, key=lambda p: (composed(p.name), p.name)):
        names += [f"{place.name}/{name}" for name in _below(place)]

    def label_of(name: str) -> str | None:
        head, slash, _ = name.partition("/")
        return composed(head) if slash else None

    return _sorted_out(folder, names, tuple(sorted(places)), label_of)


def images(path: Path) -> Listing:
    """List the image at ``path``, or all images in that folder and below, of one class without a name.

    Raises UserError when there is nothing.
    """
    if path.is_file():
        return Listing([File(path.name, path, "")], ("",))
    if not path.is_dir():
        raise UserError(f"no file or folder at {path}", "check the path")
    return _sorted_out(path, _below(path), ("",), lambda name: "")


def _sorted_out(
    folder: Path, names: Iterable[str], classes: tuple[str, ...], label_of: Callable[[str], str | None]
) -> Listing:
    listing = Listing([], classes)
    for name in names:
        suffix, label, path = PurePosixPath(name).suffix.lower(), label_of(name), folder / name
        if path.is_dir():
            listing.refused[name] = "a link to a folder, which is not followed"
        elif suffix in FOREIGN:
            listing.refused[name] = f"{suffix} files cannot be read"
        elif suffix not in SUFFIXES:
            listing.ignored.append(name)
        elif path.exists() and not path.is_file():
            listing.refused[name] = "not a file but a pipe, a socket or a device"
        elif label is None:
            listing.refused[name] = "in no class folder"
        else:
            listing.files.append(File(name, path, label))
    return listing


def _labelled(folder: Path, table: LabelFile) -> Listing:
    table_path = table.path.resolve()
    there = {composed(name): name for name in _below(folder) if (folder / name).resolve() != table_path}
    for row in table.rows:
        row[0] = there.get(composed(row[0]), row[0])  # as the file system writes it
    names, present = {row[0]: row[1] for row in table.rows}, set(there.values())
    classes = tuple(sorted(set(names.values()), key=lambda c: (not c.isdecimal(), int(c) if c.isdecimal() else 0, c)))
    listed = _sorted_out(folder, [name for name in names if name in present], classes, names.get)
    unnamed = _sorted_out(folder, [name for name in there.values() if name not in names], (), lambda name: None)
    refused = listed.refused | dict.fromkeys(unnamed.refused, f"not named in {table.path.name}")
    refused |= {name: f"named in {table.path.name}, but not there" for name in names if name not in present}
    return Listing(listed.files, classes, refused, listed.ignored + unnamed.ignored, table)


def read_table(path: Path, folder: Path) -> LabelFile:
    """Read the file of labels at ``path``: on every line a file of ``folder`` and its class.

    Columns are divided by tabs, commas, semicolons or white space, whichever the first line has first in this order. A
    first line that names no image is a header. Raises UserError when it cannot be read so.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "check the path given with --labels") from error
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = next((d for d in ("\t", ",", ";") if lines and d in lines[0]), None)
    if delimiter is None:
        rows = [line.strip().rsplit(None, 1) for line in lines]
    else:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    header = None
    if (
        rows
        and PurePosixPath(rows[0][0]).suffix.lower() not in SUFFIXES | FOREIGN
        and not (folder / rows[0][0]).is_file()
    ):
        header, *rows = rows
    short = next((row for row in rows if len(row) < 2 or not row[0] or not row[1]), None)
    if not rows or short is not None:
        raise UserError(
            f"cannot read labels from {path.name}: {'no class in ' + repr(short) if short else 'it names no file'}",
            "write a file name and a class on every line, such as cat.png,3",
        )
    for row in rows:
        row[0] = PurePosixPath(row[0].replace("\\", "/")).as_posix()
    name, times = Counter(row[0] for row in rows).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path.name} names {name} {times} times", "give every image one line")
    return LabelFile(path, delimiter, header, rows)


def _below(place: Path) -> list[str]:
    """Return visible files in a folder and below, by their path in it, in an order that file systems do not change.

    Links to folders are given, not followed: they may lead back here. Raises UserError when a folder cannot be read.
    """
    names_below = []

    def fail(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}", "check its permissions") from error

    for parent, folders, names in os.walk(place, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(place)
        names += [name for name in folders if (Path(parent) / name).is_symlink()]
        names_below += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(names_below, key=composed)


def _has_folders(place: Path) -> bool:
    return any(p.is_dir() for p in place.iterdir())


def renamed(names: Iterable[str], suffix: str, same: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return what each file is called when it is stored with another ``suffix``.

    A name that has it (or one of ``same``) stays, other suffixes are replaced: ``a/cat.jpg`` becomes ``a/cat.png``.
    Where another file would be called so too, ``suffix`` is added instead: ``a/cat.jpg.png``.
    """
    keep = {suffix, *same}
    given = list(names)
    targets = {name: name for name in given if PurePosixPath(name).suffix.lower() in keep}
    wanted = {name: str(PurePosixPath(name).with_suffix(suffix)) for name in given if name not in targets}
    taken = Counter(_folded(name) for name in [*targets.values(), *wanted.values()])
    for name, target in wanted.items():
        if taken[_folded(target)] > 1:
            target = name + suffix
            while _folded(target) in taken:
                target += suffix
            taken[_folded(target)] = 1
        targets[name] = target
    return {name: targets[name] for name in given}


def _folded(name: str) -> str:
    """Return the same for names that some file system takes for the same."""
    return composed(name).casefold()
