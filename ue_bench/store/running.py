"""Which stages are being computed, and how far they are: read from what lies beside their leases in a shared folder."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..processes import Identity

LEASES = ".leases"  # in a results or cache folder
DRIVER = "driver."  # begins the name of a lease that says that a driver is there
PROGRESS = "progress"  # in that: a file for every stage at work, written by its worker
NOTE_EVERY = 10.0  # seconds
OWNERS = "owners"  # in that: one file a driver, written again and again while it lives

Report = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Running:
    """A stage in somebody's hands. ``since`` and ``silent`` are seconds by the clock of this machine.

    ``silent``: since its driver last said that it lives; None where that cannot be told. One that is silent for longer
    than its ``patience`` is taken over by other drivers. ``slot``, ``fraction`` and ``text`` are what its worker last
    said, within ``NOTE_EVERY`` seconds.
    """

    key: str
    label: str
    host: str
    process: str
    since: float | None
    silent: float | None
    patience: float
    slot: str = ""
    fraction: float = 0.0
    text: str = ""
    has_ended: bool = False  # its process, as far as that can be seen from here

    @property
    def seconds_left(self) -> float | None:
        """How long it still takes at its pace so far; None where that does not tell."""
        if self.since is None or not 0 < self.fraction <= 1:
            return None
        return self.since * (1 - self.fraction) / self.fraction

    @property
    def is_lost(self) -> bool:
        """Whether its driver seems to be gone."""
        return self.has_ended or self.silent is None or self.silent > max(self.patience, 1.0)


def running(*folders: Path) -> list[Running]:
    """Return the stages that are being computed in results and cache folders, the oldest first."""
    now = time.time()
    found = []
    for folder in dict.fromkeys(folders):
        for path in (folder / LEASES).glob("[!.]*"):
            stage = None if path.name.startswith(DRIVER) else _read(path, now)
            if stage is not None:
                found.append(stage)
    return sorted(found, key=lambda stage: (-(stage.since or 0.0), stage.label))


def drivers(folder: Path) -> list[Running]:
    """Return the commands that work with a results or cache folder, as far as they say so; none that seem gone."""
    now = time.time()
    found = [_read(path, now) for path in (folder / LEASES).glob(f"{DRIVER}*")]
    return [driver for driver in found if driver is not None and not driver.is_lost]


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
            has_ended=Identity.of(str(said["process"])).has_ended,
            **_progress(path),
        )
    except (OSError, ValueError, KeyError, TypeError):  # it ended meanwhile, or is just being written
        return None


@contextlib.contextmanager
def announced(lease: Path, slot: str, report: Report) -> Iterator[Report]:
    """Give ``report``, which now and then also notes beside ``lease`` how far its stage is.

    A note that cannot be written is of no consequence.
    """
    path, last = lease.parent / PROGRESS / lease.name, -NOTE_EVERY

    def note(done: float, total: float, text: str) -> None:
        nonlocal last
        if time.monotonic() - last < NOTE_EVERY:
            return
        last = time.monotonic()
        said = {"slot": slot, "fraction": min(1.0, max(0.0, done / max(total, 1e-9))), "text": text}
        with contextlib.suppress(OSError, ValueError):  # a plugin may report a number that is none
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(said, allow_nan=False), encoding="utf-8")

    def both(done: float, total: float, text: str) -> None:
        report(done, total, text)
        note(done, total, text)

    note(0, 1, "")
    last -= NOTE_EVERY - 1.0  # what it says first is soon shown
    try:
        yield both
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _progress(lease: Path) -> dict[str, Any]:
    """Return what the worker of a lease last said."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((lease.parent / PROGRESS / lease.name).read_bytes())
        return {"slot": str(said["slot"]), "fraction": float(said["fraction"]), "text": str(said["text"])}
    return {}


def _age(path: Path, now: float) -> float | None:
    try:
        return max(0.0, now - path.stat().st_mtime)
    except OSError:
        return None
