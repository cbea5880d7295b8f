"""Data for commands that plugins bring, where no stage lends a context."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .. import machine
from ..contract.context import Context, _silent
from ..contract.imageset import ImageSet
from ..errors import UserError

if TYPE_CHECKING:
    from ..contract.plugin import Dataset, Protector
    from .plan import Data
    from .stages import RunEnvironment


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
    from ..store.artifacts import ArtifactStore, load_images

    stored, env = _stored(selector, data_dir, cache_dir, report)
    images = load_images(ArtifactStore(env.cache_dir).path("datasets", stored.artifact) / split)
    return stored.plugin.selector, images


def find_protector(selector: str) -> Protector:
    """The one protector that ``selector`` stands for. Raises UserError when it stands for none or for several."""
    from ..catalogue.registry import registry

    found = registry().resolve("protector", selector)
    if len(found) != 1:
        raise UserError(f"{selector!r} is {len(found)} protectors", "one is needed")
    return cast("Protector", found[0])


@contextlib.contextmanager
def open_protector(
    selector: str,
    dataset: str,
    seed: int = 0,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    report: Callable[[float, float, str], None] = _silent,
) -> Iterator[tuple[Protector, ImageSet, Context]]:
    """One protector, the training images of one dataset, and the context in which it would protect them.

    The context is that of ``ue-bench run --seeds SEED``, but on the CPU: its ``rng`` draws the same. Folders default as
    in ``open_dataset``. Raises UserError when one of the selectors does not stand for one thing.
    """
    from ..store.artifacts import ArtifactStore, load_images
    from .plan import ProtectStage
    from .stages import _context

    protector = find_protector(selector)
    stored, env = _stored(dataset, data_dir, cache_dir, report)
    store = ArtifactStore(env.cache_dir)
    images = load_images(store.path("datasets", stored.artifact) / "train")
    with _context(env, store, ProtectStage(stored, protector, seed, "fp32").stage_seed, report) as ctx:
        yield protector, images, ctx


def _stored(
    selector: str, data_dir: Path | None, cache_dir: Path | None, report: Callable[[float, float, str], None]
) -> tuple[Data, RunEnvironment]:
    """One dataset as it lies in the cache, and the folders around it."""
    from ..catalogue.registry import registry
    from .stages import RunEnvironment, dataset

    found = registry().resolve("dataset", selector)
    if len(found) != 1:
        raise UserError(f"{selector!r} is {len(found)} datasets", "one is needed")
    cache = (cache_dir or machine.cache_dir()).absolute()
    env = RunEnvironment(cache, (data_dir or machine.data_dir(cache)).absolute(), out=cache)
    return dataset(cast("Dataset", found[0]), env, report), env
