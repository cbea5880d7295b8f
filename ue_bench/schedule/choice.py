"""Which executor runs the stages, and what is said to it: read from text, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, get_args

from ..errors import EnvironmentProblem, UserError, did_you_mean

ExecutorName = Literal["local", "ray", "slurm"]
CLUSTER_DEVICES = ("auto", "cuda", "cpu")


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What SLURM is asked for, under sbatch's names; empty or None leaves it to SLURM.

    ``group`` is the work in minutes up to which short stages share one SLURM job: it costs the queue more to start one
    than such a stage takes.
    """

    time: int = 240  # minutes
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    gres: str = ""
    gpus_per_node: str = ""
    cpus_per_task: int | None = None
    mem: str = ""
    nodelist: str = ""
    exclude: str = ""
    group: float = 10.0

    @classmethod
    def parse(cls, texts: Iterable[str]) -> SlurmOptions:
        """Read ``partition=gpu,time=4:00:00``; a value may hold commas. Raises UserError for what cannot be read."""
        given: dict[str, str] = {}
        last = ""
        for piece in ",".join(texts).split(","):
            name, equals, value = piece.partition("=")
            name = name.strip().replace("-", "_")
            if equals:
                last, given[name] = name, value.strip()
            elif last:  # the rest of a list, such as nodelist=a,b
                given[last] += f",{piece.strip()}"
            elif piece.strip():
                raise UserError(f"cannot read --slurm {piece.strip()!r}", "write it as partition=gpu,time=4:00:00")
        known = [option.name for option in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise UserError(f"--slurm knows no {name!r}", did_you_mean(name, known))
        values: dict[str, Any] = {name: _value(name, text) for name, text in given.items()}
        return cls(**values)

    @property
    def asks_for_gpus(self) -> bool:
        """Whether a SLURM job gets a GPU for what is asked here."""
        return bool(self.gpus_per_node) or "gpu" in self.gres

    def sbatch(self, threads: int) -> dict[str, str | int]:
        """Return the options for sbatch that are set, with ``threads`` CPUs for a task unless more are asked for."""
        options = dataclasses.asdict(self) | {"cpus_per_task": self.cpus_per_task or threads}
        return {name: value for name, value in options.items() if value and name not in ("group", "time")}


@dataclass(frozen=True)
class ExecutorChoice:
    """What runs the stages: this machine's slots, a Ray cluster, or SLURM."""

    name: ExecutorName = "local"
    ray_address: str = ""  # RAY_ADDRESS, or the cluster that runs on this machine
    slurm: SlurmOptions = field(default_factory=SlurmOptions)

    @classmethod
    def of(cls, name: str = "local", ray_address: str = "", slurm: Iterable[str] = ()) -> ExecutorChoice:
        """Return the choice that these texts describe. Raises UserError when they do not fit together."""
        slurm = list(slurm)
        if name not in get_args(ExecutorName):
            raise UserError(f"there is no executor {name!r}", did_you_mean(name, get_args(ExecutorName)))
        if ray_address and name != "ray":
            raise UserError(f"--ray-address is for --executor ray, not {name}", "leave one of them out")
        if slurm and name != "slurm":
            raise UserError(f"--slurm is for --executor slurm, not {name}", "leave one of them out")
        return cls(name, ray_address, SlurmOptions.parse(slurm))  # type: ignore[arg-type]  # one of the names

    @property
    def is_remote(self) -> bool:
        """Whether stages are computed on machines that this process does not see the devices of."""
        return self.name != "local"

    def check(self, devices: str, precision: str) -> None:
        """Raise UserError where a remote executor cannot take these settings, EnvironmentProblem where it is missing.

        The precision is part of every key, and what is best for the machines of a cluster cannot be seen from here.
        """
        if not self.is_remote:
            return
        if devices not in CLUSTER_DEVICES:
            raise UserError(
                f"--executor {self.name} takes no device {devices!r}", f"choose --devices {', '.join(CLUSTER_DEVICES)}"
            )
        if precision == "auto":
            raise UserError(
                f"--precision auto means nothing with --executor {self.name}: the devices are on other machines",
                "add --precision bf16 or fp32, also to status and plan",
            )
        needed("ray" if self.name == "ray" else "submitit", self.name)


LOCAL = ExecutorChoice()


def needed(package: str, extra: str) -> ModuleType:
    """Import a package that ``extra`` of this distribution brings. Raises EnvironmentProblem when it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise EnvironmentProblem(f"--executor {extra} needs {package}", f"pip install 'ue-bench[{extra}]'") from error


def _value(name: str, text: str) -> str | int | float:
    try:
        if name == "time":
            return minutes(text)
        if name == "group":
            return float(minutes(text))
        return int(text) if name == "cpus_per_task" else text
    except ValueError:
        raise UserError(
            f"cannot read --slurm {name}={text}", "a number, or a time such as 90, 4:00:00 or 1-00"
        ) from None


def minutes(text: str) -> int:
    """Return a time as sbatch writes it in minutes, rounded up: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises ValueError for anything else, and for no time at all.
    """
    days, dash, rest = text.rpartition("-")
    if dash and not days:
        raise ValueError(text)
    parts = [int(part) for part in rest.split(":")]
    if not 1 <= len(parts) <= 3 or min(parts) < 0:
        raise ValueError(text)
    if dash:
        hours, minute, second = (*parts, 0, 0)[:3]
    else:
        hours, minute, second = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    seconds = int(days or 0) * 86400 + hours * 3600 + minute * 60 + second
    if seconds <= 0:
        raise ValueError(text)
    return -(-seconds // 60)
