"""Hold what a data owner asks for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract.context import Context, Report
from .contexts import owner_context
from .pictures import Format

if TYPE_CHECKING:
    from ..contract.plugin import Protector


@dataclass(frozen=True)
class ProtectionRequest:
    """The request of a data owner: what to protect, how, and where to write.

    ``size`` brings all images to squares of that side first.
    """

    protector: Protector
    source: Path
    out: Path
    record: Path
    key: Path
    labels: Path | None = None
    kind: Format = "png"
    size: int | None = None
    seed: int | None = None
    lossless: bool = False
    force: bool = False
    device: str = "cpu"
    threads: int = 1
    precision: str = "fp32"
    cache_dir: Path | None = None
    data_dir: Path | None = None

    def owner_context(self, report: Report) -> contextlib.AbstractContextManager[Context]:
        """Open the context in which the protector works."""
        assert self.seed is not None  # ``begin`` chose one
        return owner_context(
            self.seed, self.device, self.threads, self.precision, report, self.cache_dir, self.data_dir
        )
