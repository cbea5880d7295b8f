"""The context in which a protector works for a data owner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import machine
from ..contract.context import Context
from ..grid.stages import RunEnvironment, _context
from ..seeds import derive
from ..store.artifacts import ArtifactStore

Report = Callable[[float, float, str], None]


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
    """A context for ``seed``, with torch on so many threads: sums come out the same only for the same number."""
    import torch

    cache = (cache_dir or machine.cache_dir()).absolute()
    data = (data_dir or machine.data_dir(cache)).absolute()
    env = RunEnvironment(cache, data, cache, device, threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _context(env, ArtifactStore(cache), derive(seed, "protect"), report, precision) as ctx:
            yield ctx
    finally:
        torch.set_num_threads(before)
