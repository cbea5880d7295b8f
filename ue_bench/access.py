"""Data for commands that plugins bring, where no stage lends a context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import machine
from .context import _silent
from .errors import UserError
from .imageset import ImageSet


def open_dataset(
    selector: str,
    split: str = "train",
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    report: Callable[[float, float, str], None] = _silent,
) -> tuple[str, ImageSet]:
    """The canonical selector of one dataset, which names no folder of this machine, and its images of ``split``.

    The set is loaded into the cache once, as ``ue-bench run`` does, and is memory-mapped. Folders default as in
    ``run``: UE_BENCH_CACHE or the user's cache folder, UE_BENCH_DATA or ``data`` in it.

    Raises UserError when ``selector`` is not one dataset, and whatever loading it raises.
    """
    from typing import cast

    from .base import Dataset
    from .registry import registry
    from .stages import Workplace, dataset
    from .store.artifacts import ArtifactStore, load_images

    found = registry().resolve("dataset", selector)
    if len(found) != 1:
        raise UserError(f"{selector!r} is {len(found)} datasets", "one is needed")
    cache = (cache_dir or machine.cache_dir()).absolute()
    data = (data_dir or machine.data_dir(cache)).absolute()
    stored = dataset(cast(Dataset, found[0]), Workplace(cache, data, out=cache), report)
    images = load_images(ArtifactStore(cache).path("datasets", stored.artifact) / split)
    return found[0].selector, images
