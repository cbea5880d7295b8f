"""How long a stage without networks takes on this machine: tried on a few images, on which its time depends."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import machine
from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..store.artifacts import ArtifactStore
from .cell import Data
from .data import stored_split
from .environment import RunEnvironment
from .stages.base import Stage

FEWEST = 32  # images; two of every class, where that is more
TELLS = 0.2  # seconds of work that tell enough; where it was less, more images are taken
LONGEST = (
    2.0  # seconds after which a trial ends with the next report of progress; the first one, with its imports, later
)


def seconds(stage: Stage, data: Data, env: RunEnvironment) -> float | None:
    """Return the expected seconds of ``stage``; None where a few images do not tell, whatever the reason."""
    store = ArtifactStore(env.cache_dir)
    train = stored_split(store, data, "train")
    count, cold, before = max(FEWEST, 2 * train.num_classes), True, (0, 0.0)
    while True:
        few, patience = _spread(train, count), LONGEST * (3 if cold else 1)
        try:
            with store.scratch() as scratch, machine.torch_threads(env.threads):
                once, each = _timed(stage, few, env, scratch, patience)
        except Exception:  # a plugin may need what there is not yet; it says so when it works in earnest
            return None
        if each is None:
            return None
        if cold and each < patience:  # the first time is that of imports too
            cold = False
            continue
        if each >= patience:
            return once + each * len(train) / len(few)
        if len(few) == len(train):
            return once + each
        if before[0] and each >= TELLS:  # two sizes tell what does not depend on the number of images
            one = max(0.0, each - before[1]) / (len(few) - before[0])
            return once + each + one * (len(train) - len(few))
        count, before = 4 * len(few), (len(few), each)


def _spread(train: ImageSet, count: int) -> ImageSet:
    """Return so many images, spread over the classes."""
    by_class = np.argsort(train.labels, kind="stable")
    where = np.sort(by_class[np.linspace(0, len(train) - 1, min(count, len(train))).astype(np.int64)])
    return ImageSet(train.images[where], train.labels[where], train.class_names, train.source)


def _timed(
    stage: Stage, few: ImageSet, env: RunEnvironment, scratch: Path, patience: float
) -> tuple[float, float | None]:
    """Return the seconds for what is made once, and for the images; None where these tell nothing."""
    started = time.perf_counter()
    share = 0.0

    def report(done: float, total: float, text: str) -> None:
        nonlocal share
        share = float(done) / max(float(total), 1e-9)
        if time.perf_counter() - started > patience:
            raise _Ended

    ctx = _TrialContext(env.device, 0, scratch, scratch, env.data_dir, report)
    try:
        if not stage.try_on(few, ctx):
            return 0.0, None
        share = 1.0
    except _Ended:
        if not 0 < share <= 1:
            return 0.0, None
    once = sum(ctx.made)
    return once, (time.perf_counter() - started - once) / share


class _Ended(Exception):
    """The trial has taken long enough."""


class _Unfinished(Exception):
    """The trial ended while an artifact was being made: the share that was done says nothing of the images."""


@dataclass(frozen=True)
class _TrialContext(Context):
    """A context without other datasets and networks, in which nothing is kept. ``made``: seconds for artifacts."""

    made: list[float] = field(default_factory=list)

    def cached(self, key: Any, make: Callable[[Path], None]) -> Path:
        started, folder = time.perf_counter(), self.checkpoint_dir(key)
        try:
            make(folder)
        except _Ended:
            raise _Unfinished from None
        self.made.append(time.perf_counter() - started)
        return folder

    def checkpoint_dir(self, key: Any) -> Path:
        return Path(tempfile.mkdtemp(dir=self.scratch))
