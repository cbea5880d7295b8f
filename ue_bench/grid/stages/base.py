"""What every stage knows of itself, and what it is given to work with."""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from ...contract.context import Context, ProgressReport, silent
from ...contract.imageset import ImageSet
from ...contract.plugin import NetworkCost
from ...errors import Deferred
from ...leases import Lease
from ...store.artifacts import ArtifactStore
from ...store.evasion import EvasionResult, EvasionStore
from ...store.results import ResultStore
from ...store.schema import Result
from ..data import open_context
from ..environment import RunEnvironment


class Stores:
    """What is stored for one environment: artifacts, and results as they were when they were first asked for."""

    def __init__(self, env: RunEnvironment) -> None:
        self.artifacts = ArtifactStore(env.cache_dir)
        self.results = ResultStore(env.out)
        self.evasion = EvasionStore(env.out)

    @cached_property
    def trained(self) -> dict[str, Result]:
        """Results of training by key."""
        return {r.key: r for r in self.results.results()}

    @cached_property
    def evaded(self) -> dict[str, EvasionResult]:
        """Results of evasion by key."""
        return {r.key: r for r in self.evasion.results()}


def _to_stderr(text: str) -> None:
    print(f"ue-bench: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Work:
    """What a stage works with: where, how often it was tried, and who hears of its progress and of warnings."""

    env: RunEnvironment
    report: ProgressReport = silent
    attempt: int = 1
    warn: Callable[[str], None] = _to_stderr
    lease: Lease | None = None  # under which it is done; None where nobody else can do it meanwhile
    defers: bool = False  # whether it may end with Deferred rather than wait for another process
    packed: int = 1  # the largest number of stages that share the device
    stores: Stores = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stores", Stores(self.env))

    @property
    def artifacts(self) -> ArtifactStore:
        return self.stores.artifacts

    def context(
        self, seed: int, precision: str = "fp32", learn_from: ImageSet | None = None
    ) -> contextlib.AbstractContextManager[Context]:
        """Give a context with that seed to work in."""
        return open_context(self.env, self.artifacts, seed, self.report, precision, learn_from, self.defers)

    def check_lease(self) -> None:
        """Raise Deferred when another process has taken this work over: what that one stores counts."""
        if self.lease is not None and not self.lease.held():
            raise Deferred(self.lease.path.name)


@dataclass(frozen=True)
class StageCost:
    """Expected work: passes through networks, each over ``images``, and ``other`` work in passes over the set.

    For the order of work and for predictions; no number depends on it. Stages of one kind that share one of the
    ``subjects``, such as a protector, take time in proportion to their work; the subjects that tell most come first.
    """

    images: int
    networks: tuple[NetworkCost, ...] = ()
    other: float = 0.0
    subjects: tuple[str, ...] = ()

    @property
    def weight(self) -> float:
        """All of it in passes over the set."""
        return self.other + sum(network.passes for network in self.networks)

    @property
    def work(self) -> float:
        """All of it in passes of one image, never nothing."""
        return max(self.weight, 1e-3) * max(self.images, 1)


class Stage(ABC):
    """A piece of work that is computed once and shared. Plain data: it is sent to workers.

    ``kind`` names it in ``plan``. ``keeps_failure``: whether a failure is recorded beside the results; that of another
    stage is told by the stages that need it. ``uses_torch``: a worker sets its threads before it begins.
    """

    kind: ClassVar[str]
    keeps_failure: ClassVar[bool] = False
    uses_torch: ClassVar[bool] = True
    stored_in: ClassVar[Literal["cache", "out"]] = "cache"  # the folder whose users agree on who computes it

    @property
    @abstractmethod
    def key(self) -> str:
        """Digest of everything that can change what comes out."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Readable name."""

    def needs(self) -> Sequence[Stage]:
        """Return the stages whose outcome this one reads."""
        return ()

    @abstractmethod
    def cost(self) -> StageCost:
        """Return the expected work."""

    def try_on(self, few: ImageSet, ctx: Context) -> bool:
        """Do to a few training images what this stage does to all of them, for a prediction; return False if it cannot.

        That can be done before the stages it needs: the time depends on the number of images, not on what they show.
        """
        return False

    @abstractmethod
    def exists(self, stores: Stores) -> bool:
        """Return whether its outcome is stored."""

    def is_stored(self, stores: Stores) -> bool:
        """Return whether its outcome is stored by now, whoever stored it since ``stores`` were first read."""
        return self.exists(stores)

    @abstractmethod
    def run(self, work: Work) -> None:
        """Compute and store the outcome. What exists already is left alone, even if its maker died since."""

    def measured(self, stores: Stores) -> Mapping[str, float] | None:
        """Return the stored numbers by name, such as ``accuracy``; None where there are none yet."""
        return None


class ArtifactStage(Stage):
    """A stage whose outcome is a folder in the store, under ``kind`` and ``key``."""

    @abstractmethod
    def fill(self, folder: Path, work: Work) -> None:
        """Write the outcome into ``folder``."""

    def exists(self, stores: Stores) -> bool:
        return stores.artifacts.has(self.kind, self.key)

    def run(self, work: Work) -> None:
        work.artifacts.make(self.kind, self.key, lambda folder: self.fill(folder, work), work.check_lease)

    def folder(self, store: ArtifactStore) -> Path:
        """Return where the outcome is or will be."""
        return store.path(self.kind, self.key)
