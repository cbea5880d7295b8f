"""Open the context in which a protector works for a data owner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..contract.context import Context, Report
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
    report: Report,
    cache_dir: Path | None = None,
    data_dir: Path | None = None,
) -> Iterator[Context]:
    """Give a context for ``seed``, with torch on so many threads: sums come out the same only for the same number."""
    import torch

    env = RunEnvironment.of(cache_dir, data_dir, None, device, threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with open_context(env, ArtifactStore(env.cache_dir), derive(seed, "protect"), report, precision) as ctx:
            yield replace(ctx, secret=True)
    finally:
        torch.set_num_threads(before)
