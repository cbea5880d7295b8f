"""Data, protectors and contexts for code that runs outside a stage: commands of plugins, notebooks, checks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from ..catalogue.registry import registry
from ..contract.context import Context, ProgressReport, silent
from ..contract.imageset import ImageSet
from ..contract.plugin import Dataset, Protector
from ..errors import UserError
from ..store.artifacts import ArtifactStore
from .cell import Data
from .data import open_context, stored_dataset, stored_split
from .environment import RunEnvironment
from .stages.protect import ProtectStage


def open_dataset(
    selector: str,
    split: str = "train",
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    report: ProgressReport = silent,
) -> tuple[str, ImageSet]:
    """Return the canonical selector of one dataset, which names no folder of this machine, and its images of ``split``.

    The set is loaded into the cache once, as ``ue-bench run`` does, and is memory-mapped. Folders default as in
    ``run``: UE_BENCH_CACHE or the user's cache folder, UE_BENCH_DATA or ``data`` in it.

    Raises UserError when ``selector`` is not one dataset, and whatever loading it raises.
    """
    stored, env = _stored(selector, data_dir, cache_dir, report)
    return stored.info.selector, stored_split(ArtifactStore(env.cache_dir), stored, split)


def find_protector(selector: str) -> Protector:
    """Return the protector that ``selector`` stands for. Raises UserError when it stands for none or for several."""
    protectors = registry().resolve("protector", selector)
    if len(protectors) != 1:
        raise UserError(f"{selector!r} is {len(protectors)} protectors", "one is needed")
    return cast(Protector, protectors[0])


@contextlib.contextmanager
def open_protector(
    selector: str,
    dataset: str,
    seed: int = 0,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    report: ProgressReport = silent,
) -> Iterator[tuple[Protector, ImageSet, Context]]:
    """Give one protector, the training images of one dataset, and the context in which it would protect them.

    The context is that of ``ue-bench run --seeds SEED``, but on the CPU: its ``rng`` draws the same. Folders default as
    in ``open_dataset``. Raises UserError when one of the selectors does not stand for one thing.
    """
    from ..store.artifacts import ArtifactStore

    protector = find_protector(selector)
    stored, env = _stored(dataset, data_dir, cache_dir, report)
    store = ArtifactStore(env.cache_dir)
    seed = ProtectStage(stored, protector, seed, "fp32").stage_seed
    with open_context(env, store, seed, report) as ctx:
        yield protector, stored_split(store, stored, "train"), ctx


def _stored(
    selector: str, data_dir: Path | None, cache_dir: Path | None, report: ProgressReport
) -> tuple[Data, RunEnvironment]:
    """Return one dataset as it lies in the cache, and the folders around it."""
    env = RunEnvironment.of(cache_dir, data_dir)
    datasets = registry().resolve("dataset", selector, folders=(env.data_dir,))
    if len(datasets) != 1:
        raise UserError(f"{selector!r} is {len(datasets)} datasets", "one is needed")
    return stored_dataset(cast(Dataset, datasets[0]), env, report), env
