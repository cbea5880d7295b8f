"""Pair clean and protected images: from folders by name, from arrays by position."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from ..contract.imageset import release
from ..errors import UserError, ValidationError
from ..files import composed
from ..store.image_readers import Stored
from . import folders, pictures
from .audit import Batch, Names

BATCH_IMAGES, BATCH_BYTES = 200, 8 * 2**20
HELD_BYTES = 8 * BATCH_BYTES  # of images that wait for others of their size


@dataclass
class Pairs:
    """A stream of ``count`` pairs in ``batches``; ``labels`` and ``problems`` are complete when these are read."""

    count: int
    batches: Iterator[Batch]
    labels: str
    problems: dict[str, Names] = field(default_factory=dict)

    def problem(self, what: str, name: str) -> None:
        self.problems.setdefault(what, Names()).add(name)


def of_arrays(clean: Stored, protected: Stored, class_names: tuple[str, ...] = ()) -> Pairs:
    """Pair images by position. Raises ValidationError when number or size differ."""
    if clean.shape != protected.shape:
        raise ValidationError(
            f"{clean.shape[0]:,} clean images of {clean.shape[2]}x{clean.shape[1]} px, but {protected.shape[0]:,} "
            f"protected ones of {protected.shape[2]}x{protected.shape[1]} px",
            "give the protected versions of these images, in their order",
        )
    count = clean.shape[0]
    step = max(1, min(BATCH_IMAGES, BATCH_BYTES // max(1, int(np.prod(clean.shape[1:])))))
    labels = clean.labels if clean.labels is not None else protected.labels

    def batches() -> Iterator[Batch]:
        for start in range(0, count, step):
            where = slice(start, min(start + step, count))
            before, after = clean.read(where), protected.read(where)
            numbers = range(where.start, where.stop)
            known = [""] * len(numbers) if labels is None else [_name(k, class_names) for k in labels[where].tolist()]
            yield Batch([f"image {n}" for n in numbers], known, before, after)
            release(before)
            release(after)

    pairs = Pairs(count, batches(), "not stored with both sets, not compared")
    if clean.labels is not None and protected.labels is not None:
        other = np.flatnonzero(clean.labels != protected.labels)
        pairs.labels = "the same in the same order" if len(other) == 0 else f"{len(other):,} of {count:,} differ"
        for index in other.tolist():
            pairs.problem("with another label", f"image {index}")
    return pairs


def _name(label: int, class_names: tuple[str, ...]) -> str:
    return class_names[label] if 0 <= label < len(class_names) else str(label)


def of_folders(clean: Path, protected: Path, labels: Path | None = None) -> Pairs:
    """Pair files by name, whatever the suffix: ``a/cat.jpg`` and ``a/cat.png``. Sizes may differ between pairs.

    ``labels`` is the file of labels of the clean folder, as in ``folders.scan``.
    """
    beside = protected / labels.name if labels is not None else None  # 'protect' writes it under its own name
    before = folders.scan(clean, labels, False)
    after = folders.scan(protected, beside if beside is not None and beside.is_file() else None, False)
    known = {file.name: file for file in after.files}
    partner = _partners([file.name for file in before.files], list(known))
    matched = [(file, known[partner[file.name]]) for file in before.files if file.name in partner]
    pairs = Pairs(len(matched), iter(()), "not stored with both sets, not compared")

    unmatched = {PurePosixPath(name).stem: name for name in known.keys() - set(partner.values())}
    for file in before.files:
        if file.name not in partner:
            elsewhere = unmatched.pop(PurePosixPath(file.name).stem, None)
            if elsewhere:
                pairs.problem("in another folder", f"{file.name} -> {elsewhere}")
            else:
                pairs.problem("without a protected version", file.name)
    for name in sorted(unmatched.values()):
        pairs.problem("protected images without a clean version", name)
    for listing in (before, after):
        for name, reason in listing.refused.items():
            pairs.problem("that cannot be used", f"{name} ({reason})")

    if before.classes != ("",) and after.classes != ("",):
        other = [file.name for file, its in matched if file.label != its.label]
        pairs.labels = f"{len(other):,} of {len(matched):,} differ" if other else "the same"
        for name in other:
            pairs.problem("with another label", name)
        places = {name: place for place, name in enumerate(known)}
        order = [places[its.name] for _, its in matched]
        if before.table and after.table and order != sorted(order):
            pairs.problem("files of labels in another order", after.table.path.name)
    pairs.batches = _batches(matched, pairs.problem)
    return pairs


def _partners(clean: list[str], protected: list[str]) -> dict[str, str]:
    """Return the protected file of each clean one that has one, no file twice.

    Names that are the same to the byte go first: two forms of one letter may be two files.
    """
    stored = [folders.renamed(clean, suffix) for suffix in pictures.SUFFIX.values()]
    wanted = {name: (name, *(names[name] for names in stored)) for name in clean}
    free, partners = dict.fromkeys(protected), dict[str, str]()

    def pair(name: str, candidates: Iterable[str | None]) -> None:
        partner = next((one for one in candidates if one is not None and one in free), None)
        if partner is not None:
            partners[name] = partner
            del free[partner]

    for name in clean:
        pair(name, wanted[name])
    there = {composed(name): name for name in free}
    stems = Counter(PurePosixPath(name).with_suffix("") for name in clean)
    by_stem = {PurePosixPath(composed(name)).with_suffix(""): name for name in free}
    for name in clean:
        if name not in partners:
            candidates = [there.get(composed(one)) for one in wanted[name]]
            if stems[PurePosixPath(name).with_suffix("")] == 1:
                candidates.append(by_stem.get(PurePosixPath(composed(name)).with_suffix("")))
            pair(name, candidates)
    return partners


def _batches(matched: list[tuple[folders.File, folders.File]], problem: Callable[[str, str], None]) -> Iterator[Batch]:
    """Yield pairs of one size together, as many as are measured at a time."""
    held: dict[tuple[int, ...], list[tuple[folders.File, pictures.Pixels, pictures.Pixels]]] = {}
    size = 0

    def batch(shape: tuple[int, ...]) -> Batch:
        files, before, after = zip(*held.pop(shape), strict=True)
        return Batch([f.name for f in files], [f.label for f in files], np.stack(before), np.stack(after))

    for clean, protected in matched:
        pair = []
        for file in (clean, protected):
            try:
                pair.append(_read(file.path))
            except UserError as error:
                problem("that cannot be used", f"{file.name} ({error.message})")
        if len(pair) < 2:
            continue
        before, after = pair
        if before.shape != after.shape:
            problem("of another size", f"{clean.name} ({_across(before)} -> {_across(after)})")
            continue
        group = held.setdefault(before.shape, [])
        group.append((clean, before, after))
        size += before.nbytes
        if len(group) == BATCH_IMAGES or len(group) * before.nbytes > BATCH_BYTES:
            yield batch(before.shape)
            size -= len(group) * before.nbytes
        if size > HELD_BYTES:
            for shape in list(held):
                yield batch(shape)
            size = 0
    for shape in list(held):
        yield batch(shape)


def _across(image: pictures.Pixels) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _read(path: Path) -> pictures.Pixels:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(error.strerror or "cannot be read") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which does not concern the pixels
        return pictures.read(content).pixels
