"""Write small pictures of protected images beside a board's results: clean, protected, and ten times their difference.

They are of protected sets that are in the cache: no set is made for a picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..atomic import write_atomically
from ..errors import UserError
from ..grid.grid import Request, resolve
from ..grid.stages.protect import ProtectStage
from ..store.artifacts import ArtifactStore, load_images
from ..store.schema import Result
from . import figures
from .evidence import PICTURES, picture_name

IMAGES = 4  # in a picture, one a column
GAIN = 10  # of the difference, around middle gray
SIDE = 64  # pixels: of larger images the middle is shown
GAP = 2


def write_pictures(request: Request, results: Sequence[Result], out: Path) -> tuple[list[Path], list[str]]:
    """Write a picture a dataset and protector of ``results``; return their paths, and why others have none.

    ``request`` says which board it is, and where data and cache are. A picture that is there is made again.
    """
    paths, left_out = [], []
    first: dict[tuple[str, str], Result] = {}
    for r in sorted(results, key=lambda r: (r.protector, r.seed, r.key)):
        first.setdefault((r.dataset.fingerprint, r.protector), r)
    for r in first.values():
        try:
            content = _picture(request, r)
        except UserError as error:
            left_out.append(f"{r.protector}: {error.message}")
            continue
        path = out / PICTURES / picture_name(r)
        write_atomically(path, content)
        paths.append(path)
    return paths, left_out


def _picture(request: Request, r: Result) -> bytes:
    """Return the picture of a result's protected set. Raises UserError where the set, or its images, are not here."""
    grid = resolve(
        replace(
            request,
            protectors=[r.protector],
            countermeasures=[r.countermeasure],
            victims=[r.victim],
            dataset=r.dataset.selector,
            protocol=r.protocol,
            seeds=[r.seed],
            precision=r.precision,
            reference=False,
        )
    )
    if grid.data.info.fingerprint != r.dataset.fingerprint:
        raise UserError("the images here are others than those of the results", "")
    stage, store = ProtectStage.of(grid.cells[0]), ArtifactStore(grid.env.cache_dir)
    if not store.has(stage.kind, stage.key):
        raise UserError("its protected set is not in the cache", "")
    clean = load_images(store.path("datasets", grid.data.artifact) / "train")
    chosen = figures.spread(clean.labels, min(IMAGES, len(clean)), 0)
    return strip(clean.images[chosen], load_images(stage.folder(store)).images[chosen])


def strip(clean: NDArray[np.uint8], protected: NDArray[np.uint8]) -> bytes:
    """Return a PNG file with images, N x H x W x 3, in columns: clean, protected, and 10 times the difference."""
    change = protected.astype(np.int16) - clean
    lines = [_middle(clean), _middle(protected), _middle(np.clip(128 + GAIN * change, 0, 255).astype(np.uint8))]
    _, height, width, _ = lines[0].shape
    count = len(clean)
    canvas = np.full((3 * (height + GAP) - GAP, count * (width + GAP) - GAP, 3), 255, np.uint8)
    for y, line in enumerate(lines):
        for x, image in enumerate(line):
            top, left = y * (height + GAP), x * (width + GAP)
            canvas[top : top + height, left : left + width] = image
    stream = io.BytesIO()
    Image.fromarray(canvas).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _middle(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = images.shape[1:3]
    top, left = max(height - SIDE, 0) // 2, max(width - SIDE, 0) // 2
    return images[:, top : top + SIDE, left : left + SIDE]
