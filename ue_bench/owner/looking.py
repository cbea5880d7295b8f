"""Look at the images of a folder for the first time: which can be used, and at what size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..contract.context import ProgressReport
from ..errors import UserError
from . import files, folders, pictures

if TYPE_CHECKING:
    from ..contract.plugin import Protector

Size = tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """The result of a first look at a file: its content, the size it is protected at, and what a copy carries over."""

    file: folders.File
    content: str
    size: Size
    gray: bool
    transparent: bool
    profile: bytes | None
    notes: tuple[str, ...]


def content_of(data: bytes) -> str:
    """Return a digest that tells one file's content from another's."""
    return hashlib.sha256(data).hexdigest()[:32]


def look(listing: folders.Listing, size: int | None, report: ProgressReport) -> tuple[list[Seen], dict[str, str]]:
    """Look at every file for the first time, and return those to use and why others cannot be used."""
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
            file, content_of(content), picture.pixels.shape[:2], picture.gray,
            picture.alpha is not None, profiles.setdefault(picture.profile, picture.profile), picture.notes,
        )  # fmt: skip

    seen: list[Seen] = []
    refused: dict[str, str] = {}
    for number, (file, result) in enumerate(zip(listing.files, files.in_threads(one, listing.files), strict=True), 1):
        if isinstance(result, str):
            refused[file.name] = result
        else:
            seen.append(result)
        report(number, len(listing.files), "read images")
    return seen, refused


def fitted(picture: pictures.Picture, size: int | None) -> pictures.Picture:
    """Return ``picture`` as a square of ``size`` pixels: the shorter side resized (Lanczos), the centre cut out."""
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
    """Group the images by size. Raises UserError when there are several sizes and the protector takes one only."""
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
