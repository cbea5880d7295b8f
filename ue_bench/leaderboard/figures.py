"""Draw figures of images: choose which to show, map perturbations, and lay out grids with crisp pixels."""

from __future__ import annotations

import io
import re
import unicodedata
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from ..seeds import derive

Picture = NDArray[np.uint8]
SIDE = 96  # smaller pictures are enlarged to this longer side or a little more
GAP, WIDE_GAP = 4, 16  # pixels between pictures, and between groups of them
FONT_SIZE, INK, GROUND = 14, "#1a1a1a", "#ffffff"
NAME_WIDTH = 140  # pixels a row's name may take
HEADING_LINES = 5
MAX_PIXELS = 80_000_000  # Pillow, for one, warns when it opens more


def spread(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return indices of ``count`` images, sorted by label: a random choice in which classes are as even as possible."""
    order = np.random.default_rng(derive(seed, "figure")).permutation(len(labels))
    seen: Counter[int] = Counter()
    turns = []  # 0 for the first image of its class in that order, 1 for the second
    for label in labels[order].tolist():
        turns.append(seen[label])
        seen[label] += 1
    chosen = np.sort(order[np.argsort(turns, kind="stable")[:count]])
    return chosen[np.argsort(labels[chosen], kind="stable")]


def perturbation_map(clean: Picture, protected: Picture) -> Picture:
    """Return |protected - clean|, H x W x 3, stretched from its smallest to its largest value onto 0 to 255.

    All channels are stretched alike. Where all values are the same there is nothing to stretch: black for no
    perturbation, white for an even one.
    """
    change = np.abs(protected.astype(np.int16) - clean)
    low, high = int(change.min()), int(change.max())
    if low == high:
        return np.full(change.shape, 255 if high else 0, np.uint8)
    stretched: Picture = np.rint((change - low) * (255 / (high - low))).astype(np.uint8)
    return stretched


def heat_overlay(image: Picture, heat: NDArray[np.floating[Any]]) -> Picture:
    """Return an image, H x W x 3, under a map of values from 0 to 1, H x W: blue is low, green between, red high."""
    # Trapezoids of the three channels, as in the colour map "jet" that papers on Grad-CAM use.
    ramp = [1.5 - np.abs(4 * heat - centre) for centre in (3, 2, 1)]
    colours = 255 * np.clip(np.stack(ramp, -1), 0, 1)
    mixed: Picture = np.rint(0.5 * image + 0.5 * colours).astype(np.uint8)
    return mixed


GRID_FORMATS = (".png", ".svg")  # endings of files that pictures in a grid are written to


@dataclass(frozen=True)
class _Layout:
    """Where everything of a grid lies, in pixels: texts by their middle or right end and their base line."""

    width: int
    height: int
    font: ImageFont.FreeTypeFont
    texts: Sequence[tuple[float, float, str, str]]  # x, base line, text, "middle" or "end"
    pictures: Sequence[tuple[int, int, Picture]]  # left, top, picture
    side: tuple[int, int]  # width and height of a picture


def picture_grid(
    rows: Sequence[Sequence[Picture]],
    names: Sequence[str],
    groups: Sequence[tuple[str, int]],
    hint: str,
    ending: str = ".png",
) -> bytes:
    """Return a file of pictures, H x W x 3 and of one size, in rows with their names to the left.

    ``groups`` are headings, each with the number of columns below it; a row may end early. Small pictures are enlarged
    by a whole factor, each pixel becoming a square. Letters that the font lacks lose their accents or become '?'.
    ``ending`` is one of ``GRID_FORMATS``: a PNG file of these pixels, or an SVG file with the same layout, whose texts
    are text and whose pictures are PNG files inside it.

    Raises UserError with ``hint`` when the picture would be too large to open.
    """
    layout = _layout(rows, names, groups, hint)
    return _svg(layout) if ending == ".svg" else _png(layout)


def _layout(
    rows: Sequence[Sequence[Picture]], names: Sequence[str], groups: Sequence[tuple[str, int]], hint: str
) -> _Layout:
    height, width = rows[0][0].shape[:2]
    scale = max(1, -(-SIDE // max(height, width)))
    height, width = height * scale, width * scale
    font = ImageFont.load_default(FONT_SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)  # as it is whenever a size is given
    ascent, descent = font.getmetrics()
    line = ascent + descent

    labels = [_lines(name, NAME_WIDTH, max(1, height // line), font) for name in names]
    x = GAP + max((round(font.getlength(text)) + 2 * GAP for label in labels for text in label if text), default=0)
    margin = x - 2 * GAP  # where names end
    lefts: list[int] = []
    headings: list[tuple[int, list[str]]] = []  # the middle of each, and its lines
    for heading, columns in groups:
        taken = columns * (width + GAP) - GAP
        room = max(taken, SIDE) if heading else taken
        lefts += [x + (room - taken) // 2 + column * (width + GAP) for column in range(columns)]
        headings.append((x + room // 2, _lines(heading, room, HEADING_LINES, font)))
        x += room + WIDE_GAP
    right = x - WIDE_GAP + GAP
    top = GAP + (max(len(text) for _, text in headings) * line + GAP if any(h for h, _ in groups) else 0)
    pitch = max(height, line) + GAP
    bottom = top + len(rows) * pitch
    if right * bottom > MAX_PIXELS:
        raise UserError(f"a picture of {right} x {bottom} pixels is too large to be of use", hint)

    texts: list[tuple[float, float, str, str]] = []
    for middle, text in headings:
        for number, part in enumerate(text):
            texts.append((middle, top - GAP - (len(text) - number) * line + ascent, part, "middle"))
    pictures = []
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = top + number * pitch
        for index, part in enumerate(label):
            middle = y + (2 * index + 1 - len(label)) * line // 2 + max(height, line) // 2
            texts.append((margin, middle + (ascent - descent) / 2, part, "end"))
        pictures += [(left, y, picture) for left, picture in zip(lefts, row, strict=False)]
    return _Layout(right, bottom, font, texts, pictures, (width, height))


def _png(layout: _Layout) -> bytes:
    canvas = Image.new("RGB", (layout.width, layout.height), GROUND)
    draw = ImageDraw.Draw(canvas)
    for x, base, text, anchor in layout.texts:
        draw.text((x, base), text, INK, layout.font, anchor={"middle": "ms", "end": "rs"}[anchor])
    for left, top, picture in layout.pictures:
        canvas.paste(Image.fromarray(picture).resize(layout.side, Image.Resampling.NEAREST), (left, top))
    return _encoded(canvas)


def _svg(layout: _Layout) -> bytes:
    """Return the grid as SVG.

    Its pixels are not smoothed, for which browsers and Inkscape follow different words. Each text has the length that
    the layout has measured, whatever font is there.
    """
    width, height = layout.side
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{layout.width}" '
        f'height="{layout.height}" viewBox="0 0 {layout.width} {layout.height}">',
        f'<rect width="100%" height="100%" fill="{GROUND}"/>',
        f'<g font-family="Helvetica, Arial, sans-serif" font-size="{FONT_SIZE}" fill="{INK}">',
        *(f'<text x="{x:g}" y="{base:g}" text-anchor="{anchor}" textLength="{layout.font.getlength(text):.1f}" '
          f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
          for x, base, text, anchor in layout.texts if text),
        "</g>",
        '<g style="image-rendering: optimizeSpeed; image-rendering: pixelated">',
        *(f'<image x="{left}" y="{top}" width="{width}" height="{height}" preserveAspectRatio="none" '
          f'xlink:href="data:image/png;base64,{b64encode(_encoded(Image.fromarray(picture))).decode()}"/>'
          for left, top, picture in layout.pictures),
        "</g>",
        "</svg>",
    ]  # fmt: skip
    return "\n".join([*parts, ""]).encode()


def _encoded(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _lines(text: str, width: int, most: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Break ``text`` into at most ``most`` lines of ``width`` pixels, after separators where possible."""
    split = unicodedata.normalize("NFKD", text)
    # The font that Pillow ships knows ASCII and little else; its boxes would say less than the letters below accents.
    rest = "".join(c for c in split if not unicodedata.combining(c)).encode("ascii", "replace").decode()
    rest = re.sub(r"[\s\x00-\x1f\x7f]+", " ", rest).strip()
    lines: list[str] = []
    while rest and len(lines) < most:
        end = 1
        while end < len(rest) and font.getlength(rest[: end + 1]) <= width:
            end += 1
        if end < len(rest):
            for separators in (r"[ ,\[]", r"[_./-]"):
                cuts = [match.end() for match in re.finditer(separators, rest[:end])]
                if cuts:
                    end = cuts[-1]
                    break
        lines.append(rest[:end].strip())
        rest = rest[end:].lstrip()
    if rest:
        lines[-1] = lines[-1][:-3] + "..."
    return lines or [""]
