"""Open the context in which a protector works for a data owner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .. import machine
from ..contract.context import Context, ProgressReport
from ..grid.data import open_context
from ..grid.environment import RunEnvironment
from ..seeds import derive
from ..store.artifacts import ArtifactStore


@contextlib.contextmanager
def owner_context(
    seed: int,
    device: str,
    threads: int,
    precision: str,
    report: ProgressReport,
    cache_dir: Path | None = None,
    data_dir: Path | None = None,
) -> Iterator[Context]:
    """Give a context for ``seed``, with torch on so many threads: sums come out the same only for the same number."""
    env, work_seed = RunEnvironment.of(cache_dir, data_dir, None, device, threads), derive(seed, "protect")
    with (
        machine.torch_threads(threads),
        open_context(env, ArtifactStore(env.cache_dir), work_seed, report, precision) as ctx,
    ):
        yield replace(ctx, secret=True)
