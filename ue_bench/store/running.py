"""Which stages are being computed: read from the leases that drivers keep in a shared folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEASES = ".leases"  # in a results or cache folder
OWNERS = "owners"  # in that: one file a driver, written again and again while it lives


@dataclass(frozen=True)
class Running:
    """A stage in somebody's hands. ``since`` and ``silent`` are seconds by the clock of this machine.

    ``silent``: since its driver last said that it lives; None where that cannot be told. One that is silent for longer
    than its ``patience`` is taken over by other drivers.
    """

    key: str
    label: str
    host: str
    process: str
    since: float | None
    silent: float | None
    patience: float

    @property
    def is_lost(self) -> bool:
        """Whether its driver seems to be gone."""
        return self.silent is None or self.silent > max(self.patience, 1.0)


def running(*folders: Path) -> list[Running]:
    """Return the stages that are being computed in results and cache folders, the oldest first."""
    now = time.time()
    found = []
    for folder in dict.fromkeys(folders):
        for path in (folder / LEASES).glob("[!.]*"):
            stage = _read(path, now)
            if stage is not None:
                found.append(stage)
    return sorted(found, key=lambda stage: (-(stage.since or 0.0), stage.label))


def _read(path: Path, now: float) -> Running | None:
    try:
        said: Any = json.loads(path.read_bytes())
        owner = path.parent / OWNERS / str(said["owner"])
        since = float(said["since"])
        return Running(
            key=path.name,
            label=str(said["label"]) or path.name,
            host=str(said["host"]),
            process=str(said["process"]),
            since=max(0.0, now - since) if since else None,
            silent=_age(owner, now),
            patience=float(said["patience"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # it ended meanwhile, or is just being written
        return None


def _age(path: Path, now: float) -> float | None:
    try:
        return max(0.0, now - path.stat().st_mtime)
    except OSError:
        return None
