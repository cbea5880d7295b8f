"""Device slots: where one task at a time can run."""

from __future__ import annotations

from dataclasses import dataclass

from .. import machine
from ..errors import EnvironmentProblem
from ..machine import usable_cores


@dataclass(frozen=True)
class Slot:
    """A place for one worker: a torch device, and the number of CPU threads it may use."""

    name: str
    device: str
    threads: int


def available() -> list[str]:
    """Torch devices of this machine, best first."""
    return [d.name for d in machine.devices()]


def slots(devices: str, jobs: int | None, threads: int) -> list[Slot]:
    """Slots for a comma-separated list of devices, or ``auto``.

    ``auto`` means all GPUs, else the CPU. ``jobs`` is the number of workers a device: by default one for an
    accelerator, and for the CPU as many as there are usable cores. Raises EnvironmentProblem for a device that is not
    there.
    """
    here = available()
    if devices == "auto":
        wanted = [d for d in here if d.startswith("cuda")] or here[:1]
    else:
        wanted = []
        for device in (d.strip() for d in devices.split(",")):
            matching = [d for d in here if d == device or d.split(":")[0] == device]
            if not matching:
                raise EnvironmentProblem(f"no device {device!r} here", f"available: {', '.join(here)}")
            wanted += matching
    found = []
    for device in dict.fromkeys(wanted):
        count = jobs or (max(1, usable_cores() // threads) if device == "cpu" else 1)
        found += [Slot(f"{device}#{i}" if count > 1 else device, device, threads) for i in range(count)]
    return found
