"""Protecting a folder of images of any sizes and formats.

Images are read twice: once to know which can be used, then size by size. The protected pixels of a size are kept in the
cache until all its files are written, so that whoever interrupts this loses nothing but the file at hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..contract.context import Context, Report, publish
from ..contract.imageset import ImageSet
from ..errors import EnvironmentProblem, UserError
from ..keys import digest as digest_of
from ..store import perturbation
from ..store.artifacts import load_images, save_images
from . import files, folders, keyfile, pictures
from .contexts import owner_context
from .recovering import batch_size, recover_each

if TYPE_CHECKING:
    from ..contract.plugin import Protector

Size = tuple[int, int]
FORMAT = "ue-bench protect 1"


@dataclass(frozen=True)
class Request:
    """What to protect, how, and where things go. ``size`` brings all images to squares of that side first."""

    protector: Protector
    source: Path
    out: Path
    record: Path
    key: Path
    labels: Path | None = None
    kind: pictures.Format = "png"
    size: int | None = None
    seed: int | None = None
    lossless: bool = False
    force: bool = False
    device: str = "cpu"
    threads: int = 1
    precision: str = "fp32"
    cache_dir: Path | None = None
    data_dir: Path | None = None

    def owner_context(self, report: Report) -> contextlib.AbstractContextManager[Context]:
        """The context in which the protector works."""
        assert self.seed is not None  # ``begin`` chose one
        return owner_context(
            self.seed, self.device, self.threads, self.precision, report, self.cache_dir, self.data_dir
        )


@dataclass(frozen=True)
class Seen:
    """What the first look at a file told: its content, the size it is protected at, and what a copy must carry over."""

    file: folders.File
    content: str
    size: Size
    gray: bool
    transparent: bool
    profile: bytes | None
    notes: tuple[str, ...]


@dataclass
class Done:
    """What became of the files: their new names, why others have none, and how well recovery works."""

    written: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    images: dict[bytes, keyfile.Entry] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)  # of what was written, as in ``images``
    arrays: dict[str, Any] = field(default_factory=dict)
    measured: perturbation.Measurement = field(default_factory=perturbation.Measurement)
    squares: int = 0  # of what recovery misses where it is possible
    values: int = 0
    lost: list[str] = field(default_factory=list)  # cannot be recovered at all


def protect(request: Request, report: Report) -> dict[str, Any]:
    """Protect the folder and return the record, as it is written beside it too.

    Raises UserError when nothing can be done, or when what is there belongs to something else. Single images that
    cannot be protected are named in ``failed`` of the record.
    """
    protector, out = request.protector, request.out
    files.apart(request.source, out)
    files.check_private(request.record, "record", [request.source, out])
    if protector.recovers():
        files.check_private(request.key, "key", [request.source, out])
        if request.key.resolve() == request.record.resolve():
            raise UserError(f"{request.key} would be both key and record", "give them names of their own")
    listing = folders.scan(request.source, request.labels)
    seen, refused = look(listing, request.size, report)
    failed = listing.refused | refused
    if not seen:
        named = "; ".join(f"{name}: {reason}" for name, reason in list(failed.items())[:3])
        raise UserError(f"{request.source} holds no image to protect{' - ' + named if named else ''}", "check the path")
    groups = by_size(seen, protector)
    content = digest_of([[s.file.name, s.content, s.file.label] for s in seen])
    settings = {
        "protector": protector.identity(), "selector": protector.selector, "seed": request.seed, "format": request.kind,
        "size": request.size, "lossless": request.lossless, "precision": request.precision, "input": content,
    }  # fmt: skip
    record = begin(request, settings)
    if record["state"] == "finished":
        return record
    request = replace(request, seed=record["settings"]["seed"], force=record["force"])

    same = frozenset([".jpg", ".jpeg"]) if request.kind == "jpeg" else frozenset[str]()
    names = folders.renamed([file.name for file in listing.files], pictures.SUFFIX[request.kind], same)
    done = Done(failed=failed)
    kept: list[Path] = []
    for number, group in enumerate(groups, 1):
        text = f", size {number} of {len(groups)}" if len(groups) > 1 else ""
        try:
            with request.owner_context(report) as ctx:
                clean, protected = protect_group(request, group, listing.classes, content, ctx, kept, text)
                write_group(request, group, clean, protected, names, ctx, done, text)
        except UserError as error:
            if len(groups) == 1 or isinstance(error, EnvironmentProblem):
                raise
            done.failed |= {s.file.name: error.message for s in group if s.file.name not in done.written}
    if listing.table is not None:
        target = out / listing.table.path.name
        lines = listing.table.renamed(done.written).encode("utf-8", "surrogateescape")
        if target.exists() and target.read_bytes() != lines and not request.force:
            done.failed[target.name] = "exists already and is something else"
        else:
            files.write(target, lines)
    if protector.recovers():
        files.write(request.key, keyfile.encode(_key(request, done)))
    record = _record(request, record["settings"], seen, listing, done)
    files.write_json(request.record, record)
    for folder in kept:
        shutil.rmtree(folder)
    return record


def look(listing: folders.Listing, size: int | None, report: Report) -> tuple[list[Seen], dict[str, str]]:
    """A first look at every file, and why some cannot be used."""
    profiles: dict[bytes | None, bytes | None] = {}

    def one(file: folders.File) -> Seen | str:
        try:
            content = file.path.read_bytes()
            picture = fitted(pictures.read(content), size)
        except OSError as error:
            return error.strerror or "cannot be read"
        except UserError as error:
            return error.message
        return Seen(
            file, hashlib.sha256(content).hexdigest()[:32], picture.pixels.shape[:2], picture.gray,
            picture.alpha is not None, profiles.setdefault(picture.profile, picture.profile), picture.notes,
        )  # fmt: skip

    seen: list[Seen] = []
    refused: dict[str, str] = {}
    for number, (file, found) in enumerate(zip(listing.files, files.in_threads(one, listing.files), strict=True), 1):
        if isinstance(found, str):
            refused[file.name] = found
        else:
            seen.append(found)
        report(number, len(listing.files), "read images")
    return seen, refused


def fitted(picture: pictures.Picture, size: int | None) -> pictures.Picture:
    """``picture`` as a square of ``size`` pixels: the shorter side resized (Lanczos), the centre cut out."""
    from PIL import Image

    height, width = picture.pixels.shape[:2]
    if size is None or (height, width) == (size, size):
        return picture
    scale = size / min(height, width)
    rows, columns = max(size, round(height * scale)), max(size, round(width * scale))
    top, left = (rows - size) // 2, (columns - size) // 2

    def cut(pixels: pictures.Pixels) -> pictures.Pixels:
        resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.LANCZOS)
        return np.asarray(resized)[top : top + size, left : left + size]

    alpha = None if picture.alpha is None else cut(picture.alpha)
    note = f"{width}x{height} brought to {size}x{size}"
    return replace(picture, pixels=cut(picture.pixels), alpha=alpha, notes=(*picture.notes, note))


def by_size(seen: list[Seen], protector: Protector) -> list[list[Seen]]:
    """The images in groups of one size. Raises UserError when there are several and the protector takes one only."""
    groups: dict[Size, list[Seen]] = {}
    for one in seen:
        groups.setdefault(one.size, []).append(one)
    if len(groups) > 1 and protector.one_size:
        shown = ", ".join(
            f"{s[1]}x{s[0]} ({len(g):,})" for s, g in sorted(groups.items(), key=lambda g: -len(g[1]))[:3]
        )
        raise UserError(
            f"{protector.name} learns from all images together and needs one size; these have {len(groups)}: {shown}"
            + (", ..." if len(groups) > 3 else ""),
            "bring them to one with --size, such as --size 64, or choose a protector that needs no network",
        )
    return list(groups.values())


def begin(request: Request, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of this work: a finished one, that of an interrupted run, or a new one.

    Without a seed the interrupted run's is taken, else one is drawn. Raises UserError when something else is there.
    """
    known = files.read_json(request.record)
    known = known if isinstance(known, dict) and known.get("format") == FORMAT else None
    if known is not None:
        before = known["settings"]
        same = before == {**settings, "seed": before["seed"] if settings["seed"] is None else settings["seed"]}
        whole = (
            known["state"] == "finished"
            and all((request.out / n).is_file() for n in known["files"].values())
            and (request.key.is_file() or not request.protector.recovers())
        )
        if same and whole and not request.force:
            return known
        if same and not (request.force and known["state"] == "finished"):
            return {**known, "state": "unfinished", "force": known.get("force", False) or request.force}
    in_the_way = [
        path for path in (request.record, request.key if request.protector.recovers() else None)
        if path is not None and path.exists()
    ]  # fmt: skip
    if request.out.is_dir() and any(request.out.iterdir()):
        in_the_way.insert(0, request.out)
    if in_the_way and not request.force:
        reason = "holds other images, or the same with other settings" if known else "is there already"
        raise UserError(f"{in_the_way[0]} {reason}", "choose another folder, or --force to overwrite")
    if settings["seed"] is None:
        settings = {**settings, "seed": secrets.randbelow(2**31)}
    record = {"format": FORMAT, "state": "unfinished", "force": request.force, "settings": settings}
    files.check_writable(request.out)
    files.write_json(request.record, record)
    return record


def protect_group(
    request: Request,
    group: list[Seen],
    classes: tuple[str, ...],
    content: str,
    ctx: Context,
    kept: list[Path],
    text: str,
) -> tuple[ImageSet, ImageSet]:
    """Images of one size, clean and protected. The latter lie in the cache, in a folder that is added to ``kept``."""

    def one(seen: Seen) -> pictures.Pixels:
        data = seen.file.path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:32] != seen.content:
            raise UserError(f"{seen.file.name} changed meanwhile", "start anew, with --force")
        return fitted(pictures.read(data), request.size).pixels

    def chunks() -> Iterator[pictures.Pixels]:
        for pixels in ctx.progress(files.in_threads(one, group), f"load images{text}", len(group)):
            yield pixels[None]

    protector = request.protector
    index = {label: number for number, label in enumerate(classes)}
    labels = np.array([index[seen.file.label] for seen in group])
    images = ctx.store_images((len(group), *group[0].size, 3), chunks())
    clean = ImageSet(images, labels, classes, request.source.name)
    folder = ctx.checkpoint_dir(
        {"folder": content, "protector": protector.identity(), "seed": ctx.seed, "size": group[0].size,
         "resized": request.size, "precision": ctx.precision, "device": ctx.device, "threads": request.threads}
    )  # fmt: skip
    if not (folder / "set").exists():
        made = protector.protect(clean, ctx)
        perturbation.check(protector, clean, made)
        publish(folder / "set", lambda target: save_images(target, made))
    kept.append(folder)
    return clean, load_images(folder / "set")


def write_group(
    request: Request,
    group: list[Seen],
    clean: ImageSet,
    protected: ImageSet,
    names: dict[str, str],
    ctx: Context,
    done: Done,
    text: str,
) -> None:
    """Write the files of images of one size, measure them, and try to recover them."""
    recovers = request.protector.recovers()
    if recovers and not done.arrays:
        done.arrays = request.protector.recovery_key(clean, ctx)
    ctx = replace(ctx, recovery_key=done.arrays)

    def store(place: int) -> pictures.Pixels | str:
        seen = group[place]
        return _store(request, seen, protected.images[place], request.out / names[seen.file.name])

    step = batch_size(group[0].size)
    found = files.in_threads(store, range(len(group)))
    for start in range(0, len(group), step):
        places = list(range(start, min(start + step, len(group))))
        stored = dict(zip(places, found, strict=False))  # in this order zip takes none of the next batch
        for place, why in [(place, why) for place, why in stored.items() if isinstance(why, str)]:
            done.failed[group[place].file.name] = why
        pixels = {place: image for place, image in stored.items() if not isinstance(image, str)}
        if pixels:
            before, after = clean.images[list(pixels)], np.stack(list(pixels.values()))
            done.measured.add(before, after)
            done.written |= {group[k].file.name: names[group[k].file.name] for k in pixels}
            if recovers:
                _try_recovery(request, [group[k] for k in pixels], before, after, ctx, done)
        ctx.report(places[-1] + 1, len(group), f"write images{text}")


def _store(request: Request, seen: Seen, protected: pictures.Pixels, target: Path) -> pictures.Pixels | str:
    """Write one file; its pixels as they are stored, or why it was not written."""
    alpha = None
    if seen.transparent:
        alpha = fitted(pictures.read(seen.file.path.read_bytes()), request.size).alpha
    try:
        content = pictures.encode(protected, pictures.Picture(protected, alpha, seen.profile), request.kind)
    except UserError as error:
        return error.message
    if request.force or not target.exists():
        files.write(target, content)
    elif not _same(target, content):
        return f"{target} exists already and is something else"
    return protected if request.kind == "png" else pictures.read(content).pixels


def _same(path: Path, content: bytes) -> bool:
    """Whether the file holds these bytes, or the same pixels: another version of Pillow may pack them otherwise."""
    there = path.read_bytes()
    if there == content:
        return True
    try:
        return np.array_equal(pictures.read(there).pixels, pictures.read(content).pixels)
    except UserError:
        return False


def _try_recovery(
    request: Request, group: list[Seen], clean: pictures.Pixels, stored: pictures.Pixels, ctx: Context, done: Done
) -> None:
    """Recover images as their owner will, and note what that misses."""
    found = recover_each(request.protector, stored, ctx)
    for seen, before, after, recovered in zip(group, clean, stored, found, strict=True):
        undone = not isinstance(recovered, UserError)
        if isinstance(recovered, UserError):
            if not request.lossless:
                done.lost.append(seen.file.name)
            recovered = after
        entry, digest = keyfile.entry(before, recovered, seen.gray, request.lossless), pictures.digest(after)
        done.digests[seen.file.name] = digest
        done.images[digest] = keyfile.merged(done.images.get(digest, entry), entry)
        if undone and not entry.exact:
            done.squares += int(np.square(before.astype(np.int32) - recovered).sum(dtype=np.int64))
            done.values += before.size


def _key(request: Request, done: Done) -> keyfile.Key:
    parameters = request.protector.model_dump(mode="json", include=set(request.protector.changed()))
    return keyfile.Key(
        request.protector.name, request.protector.revision, parameters, request.seed or 0, request.device,
        request.threads, request.precision, done.arrays, done.images,
    )  # fmt: skip


def _record(
    request: Request, settings: dict[str, Any], seen: list[Seen], listing: folders.Listing, done: Done
) -> dict[str, Any]:
    """The finished record."""
    recovery = None
    if request.protector.recovers():
        entries = list(done.images.values())
        exact = sum(done.images[digest].exact for digest in done.digests.values())
        mse = done.squares / max(1, done.values)
        stored = sum(len(e.sidecar) for e in entries if e.sidecar)
        recovery = {
            "exact": exact, "stored": sum(e.sidecar is not None for e in entries), "lost": done.lost,
            "others": len(done.digests) - exact, "psnr_of_others": 10 * math.log10(255**2 / mse) if mse else None,
            "bits_per_pixel": 8 * stored * 3 / max(1, done.measured.values),
        }  # fmt: skip
    measured = done.measured.result(request.protector.budget).model_dump() if done.written else None
    return {
        "format": FORMAT, "state": "finished", "settings": settings, "ue_bench": __version__,
        "images": len(listing.files) + len(listing.refused), "classes": list(listing.classes), "measured": measured,
        "recovery": recovery, "failed": dict(sorted(done.failed.items())), "ignored": listing.ignored,
        "notes": {s.file.name: list(s.notes) for s in seen if s.notes},
        "files": {s.file.name: done.written[s.file.name] for s in seen if s.file.name in done.written},
    }  # fmt: skip
