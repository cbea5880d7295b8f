"""Protect images of one size, write and measure them, and try to recover them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract.context import Context, publish
from ..contract.imageset import ImageSet
from ..contract.plugin import check_size
from ..errors import EnvironmentProblem, UserError
from ..store import perturbation
from ..store.artifacts import load_images, read_json, save_images
from . import files, keyfile, pictures
from .looking import Seen, content_of, fitted
from .recovering import batch_size, recover_each
from .request import ProtectionRequest

UNCHANGED = "protection left it as it was"
TAKEN = "exists already and is something else"


@dataclass
class ProtectionOutcome:
    """The outcome of protection: new names of the files, why others have none, and how well recovery works."""

    written: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)  # removed or changed since they were first read
    images: dict[bytes, keyfile.Entry] = field(default_factory=dict)
    earlier: dict[bytes, keyfile.Entry] = field(default_factory=dict)  # of a key that is there already
    contents: dict[str, str] = field(default_factory=dict)  # digests of the files that are there, by old name
    digests: dict[str, bytes] = field(default_factory=dict)  # of what was written, as in ``images``
    arrays: dict[str, Any] = field(default_factory=dict)
    measured: perturbation.Measurement = field(default_factory=perturbation.Measurement)
    squares: int = 0  # of what recovery misses where it is possible
    values: int = 0
    lost: list[str] = field(default_factory=list)  # cannot be recovered at all
    cached: list[Path] = field(default_factory=list)  # protected pixels, needed until all is written


@dataclass(frozen=True)
class ProtectionWork:
    """The work on groups of images of one size each. ``original`` names the images that the command began with."""

    request: ProtectionRequest
    classes: tuple[str, ...]
    names: dict[str, str]
    original: str
    done: ProtectionOutcome

    def protect(self, group: list[Seen], ctx: Context, text: str) -> None:
        """Protect images of one size and write them. The pixels stay in the cache, in a folder of ``done.cached``."""
        protector = self.request.protector
        check_size(protector, group[0].size)
        clean, group = self._load(group, ctx, text)
        if not group:
            return
        folder = ctx.checkpoint_dir(
            {"folder": self.original, "protector": protector.identity(), "seed": ctx.seed, "size": group[0].size,
             "resized": self.request.size, "precision": ctx.precision, "device": ctx.device,
             "threads": self.request.threads}
        )  # fmt: skip
        self.done.cached.append(folder)
        places = _places(folder / "set", group)
        if places is None:
            shutil.rmtree(folder / "set", ignore_errors=True)
            perturbation.check_classes(protector, clean.labels.tolist())
            protected = protector.protect(clean, ctx)
            perturbation.check(protector, clean, protected)

            def fill(target: Path) -> None:
                save_images(target, protected)
                (target / "members.json").write_text(
                    json.dumps([_member(s) for s in group], allow_nan=False), encoding="utf-8"
                )

            publish(folder / "set", fill)
            places = list(range(len(group)))
        self._write(group, clean, load_images(folder / "set").images, places, ctx, text)

    def measure_again(self, group: list[Seen], ctx: Context, text: str) -> None:
        """Take in files that an earlier run wrote, as they are."""
        clean, group = self._load(group, ctx, text)
        ctx = replace(ctx, recovery_key=self.done.arrays)

        def stored(seen: Seen) -> pictures.Pixels | str:
            try:
                content = (self.request.out / self.names[seen.file.name]).read_bytes()
                pixels = pictures.read(content).pixels
            except (OSError, UserError):
                return TAKEN
            self.done.contents[seen.file.name] = content_of(content)
            return pixels if pixels.shape[:2] == seen.size else TAKEN

        self._take(group, clean, files.in_threads(stored, group), ctx, f"measure images{text}")

    def _load(self, group: list[Seen], ctx: Context, text: str) -> tuple[ImageSet, list[Seen]]:
        """Return the clean images of a group, without those that changed since they were first read."""
        index = {label: number for number, label in enumerate(self.classes)}
        while True:
            gone: dict[str, str] = {}
            size = group[0].size if group else (1, 1)
            shape = (len(group), *size, 3)
            images = ctx.store_images(shape, self._clean(group, gone, ctx, f"load images{text}"))
            if not gone:
                labels = np.array([index[seen.file.label] for seen in group], np.int64)
                return ImageSet(images, labels, self.classes, self.request.source.name), group
            self.done.failed |= gone
            self.done.gone |= set(gone)
            group = [seen for seen in group if seen.file.name not in gone]

    def _clean(self, group: list[Seen], gone: dict[str, str], ctx: Context, text: str) -> Iterator[pictures.Pixels]:
        """Yield the pixels of each image; black, with the reason in ``gone``, where they cannot be read any more."""

        def one(seen: Seen) -> pictures.Pixels | str:
            try:
                return fitted(_again(seen), self.request.size).pixels
            except UserError as error:
                return error.message

        loaded = ctx.progress(files.in_threads(one, group), text, len(group))
        for seen, pixels in zip(group, loaded, strict=True):
            if isinstance(pixels, str):
                gone[seen.file.name] = pixels
                pixels = np.zeros((*seen.size, 3), np.uint8)
            yield pixels[None]

    def _write(
        self,
        group: list[Seen],
        clean: ImageSet,
        protected: NDArray[np.uint8],
        places: list[int],
        ctx: Context,
        text: str,
    ) -> None:
        """Write the files of images of one size; ``places`` says where in ``protected`` each of them is."""
        protector = self.request.protector
        if protector.recovers() and not self.done.arrays:
            self.done.arrays = protector.recovery_key(clean, ctx)

        def store(number: int) -> pictures.Pixels | str:
            image = protected[places[number]]
            if protector.changes_images and np.array_equal(image, clean.images[number]):
                return UNCHANGED
            return self._store(group[number], image)

        stored = files.in_threads(store, range(len(group)))
        self._take(group, clean, stored, replace(ctx, recovery_key=self.done.arrays), f"write images{text}")

    def _take(
        self, group: list[Seen], clean: ImageSet, stored: Iterator[pictures.Pixels | str], ctx: Context, text: str
    ) -> None:
        """Note what became of each image, measure what was stored, and try to recover it."""
        done, step = self.done, batch_size(clean.size)
        for start in range(0, len(group), step):
            numbers = list(range(start, min(start + step, len(group))))
            by_number = dict(zip(numbers, stored, strict=False))  # in this order zip takes none of the next batch
            for number, why in [(number, why) for number, why in by_number.items() if isinstance(why, str)]:
                done.failed[group[number].file.name] = why
            pixels = {number: image for number, image in by_number.items() if not isinstance(image, str)}
            if pixels:
                part = [group[number] for number in pixels]
                before, after = _stacked(clean.images, list(pixels)), _joined(list(pixels.values()))
                done.measured.add(before, after)
                done.written |= {seen.file.name: self.names[seen.file.name] for seen in part}
                if self.request.protector.recovers():
                    self._try_recovery(part, before, after, ctx)
            ctx.report(numbers[-1] + 1, len(group), text)

    def _store(self, seen: Seen, protected: pictures.Pixels) -> pictures.Pixels | str:
        """Write one file, and return its pixels as they are stored, or why it was not written."""
        request, target = self.request, self.request.out / self.names[seen.file.name]
        try:
            alpha = fitted(_again(seen), request.size).alpha if seen.transparent else None
            content = pictures.encode(protected, pictures.Picture(protected, alpha, seen.profile), request.kind)
            if request.force or not files.exists(target):
                files.write(target, content)
            elif not _same(target, content):
                return f"{target} {TAKEN}"
            self.done.contents[seen.file.name] = content_of(content)
        except EnvironmentProblem:  # a full disk is no property of this image
            raise
        except UserError as error:
            return error.message
        return protected if request.kind == "png" else pictures.read(content).pixels

    def _try_recovery(self, group: list[Seen], clean: pictures.Pixels, stored: pictures.Pixels, ctx: Context) -> None:
        """Recover images as their owner will, and note what that misses."""
        done, lossless = self.done, self.request.lossless
        results = recover_each(self.request.protector, stored, ctx)
        for seen, before, after, recovered in zip(group, clean, stored, results, strict=True):
            undone = not isinstance(recovered, UserError)
            if isinstance(recovered, UserError):
                if not lossless:
                    done.lost.append(seen.file.name)
                recovered = after
            entry, digest = keyfile.entry(before, recovered, seen.gray, lossless), pictures.digest(after)
            done.digests[seen.file.name] = digest
            done.images[digest] = keyfile.merged(done.images.get(digest, entry), entry)
            if undone and not entry.exact:
                done.squares += int(np.square(before.astype(np.int32) - recovered).sum(dtype=np.int64))
                done.values += before.size


def _stacked(images: NDArray[np.uint8], numbers: list[int]) -> NDArray[np.uint8]:
    """Return the images of these numbers: as they lie where it is one, which may have 100 megapixels."""
    return images[numbers[0] : numbers[0] + 1] if len(numbers) == 1 else images[numbers]


def _joined(pixels: list[pictures.Pixels]) -> NDArray[np.uint8]:
    """Return images of one size as one array, without a copy of one alone."""
    return pixels[0][None] if len(pixels) == 1 else np.stack(pixels)


def _again(seen: Seen) -> pictures.Picture:
    """Read a picture again. Raises UserError when its file is not the same any more."""
    try:
        data = seen.file.path.read_bytes()
    except OSError as error:
        raise UserError(f"{error.strerror or 'cannot be read'}, it was there before") from error
    if content_of(data) != seen.content:
        raise UserError("changed while the command ran")
    return pictures.read(data)


def _member(seen: Seen) -> list[str]:
    return [seen.file.name, seen.content, seen.file.label]


def _places(folder: Path, group: list[Seen]) -> list[int] | None:
    """Return where the images of ``group`` are in a set that an earlier run protected; None where one is not."""
    try:
        index = {tuple(member): number for number, member in enumerate(read_json(folder / "members.json"))}
    except (OSError, ValueError):
        return None
    places = [index.get(tuple(_member(seen))) for seen in group]
    return None if None in places else [place for place in places if place is not None]


def _same(path: Path, content: bytes) -> bool:
    """Return whether the file holds these bytes, or the same pixels, which other versions of Pillow pack otherwise."""
    try:
        there = path.read_bytes()
        return there == content or np.array_equal(pictures.read(there).pixels, pictures.read(content).pixels)
    except (OSError, UserError):
        return False
