"""Device slots: where one task at a time can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .. import machine
from ..arguments import whole
from ..errors import EnvironmentProblem, UserError
from ..machine import usable_cores


@dataclass(frozen=True)
class Slot:
    """A place for one worker: a torch device, and the number of CPU threads it may use.

    ``packed`` is the largest number of workers that share an accelerator; a CPU is shared by cores.
    """

    name: str
    device: str
    threads: int
    packed: int = 1


def available() -> list[str]:
    """Torch devices of this machine, best first."""
    return [d.name for d in machine.devices()]


MOST_WORKERS = 10_000  # of a device, or threads of one: more is a slip of the hand
LARGEST_PACK = 8  # workers on one accelerator that "auto" comes to
Pack = int | Literal["auto"]


def slots(devices: str, jobs: int | None, threads: int, pack: Pack | None = None) -> list[Slot]:
    """Slots for a comma-separated list of devices, or ``auto``.

    ``auto`` means all GPUs, else the CPU. ``jobs`` is the number of workers a device: by default one for an
    accelerator, and for the CPU as many as there are usable cores. ``pack`` is that for accelerators; "auto" gives as
    many slots as may come to be used. Raises EnvironmentProblem for a device that is not there, UserError when there is
    nothing to pack or ``jobs`` is no number of workers.
    """
    here = ["cpu"] if devices == "cpu" else available()  # asking torch takes seconds
    if devices == "auto":
        wanted = [d for d in here if d.startswith("cuda")] or here[:1]
    else:
        wanted = []
        for device in (d.strip() for d in devices.split(",")):
            matching = [d for d in here if d == device or d.split(":")[0] == device]
            if not matching:
                raise EnvironmentProblem(f"no device {device!r} here", f"available: {', '.join(here)}")
            wanted += matching
    if jobs is not None:
        jobs = whole("the number of workers", jobs, 1, MOST_WORKERS)
    found = []
    for device in dict.fromkeys(wanted):
        if device == "cpu":
            if pack is not None:
                raise UserError("a CPU is shared by cores, there is nothing to pack", "leave --pack out, or use --jobs")
            count, packed = jobs or max(1, usable_cores() // threads), 1
        else:
            count = packed = LARGEST_PACK if pack == "auto" else pack or jobs or 1
        found += [Slot(f"{device}#{i}" if count > 1 else device, device, threads, packed) for i in range(count)]
    return found
