"""A driver of light stages, to be killed and multiplied: ``python -m schedule.board FOLDER JOBS [MODE]``.

Three 'protect' stages, each needed by four cells. All of the harness but torch is real: planner, leases, executor and
publishing. What is stored holds a random token, so that an outcome that was computed again would differ.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ue_bench import machine
from ue_bench.atomic import write_once
from ue_bench.errors import UserError
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.filling import FillOptions, fill
from ue_bench.grid.stages.base import ArtifactStage, Stage, StageCost, Stores, Work
from ue_bench.keys import digest
from ue_bench.schedule.executor import Event

from .targets import write

PROTECTORS, COLUMNS = "abc", "wxyz"


@dataclass(frozen=True)
class Protect(ArtifactStage):
    name: str
    mode: str
    log: str
    kind = "protected"
    uses_torch = False

    @property
    def key(self) -> str:
        return digest(self.name)

    @property
    def label(self) -> str:
        return f"protect {self.name}"

    def cost(self) -> StageCost:
        return StageCost(1, other=1.0)

    def fill(self, folder: Path, work: Work) -> None:
        begin(self, work)
        if self.mode == "surrogate":
            with work.context(0) as ctx:
                made = ctx.cached("shared by all", lambda place: make_surrogate(place, self.log))
                assert (made / "weights").exists()
        (folder / "token").write_text(token(), encoding="utf-8")

    def run(self, work: Work) -> None:
        def before_publishing() -> None:
            work.check_lease()
            stop_at_the_last_moment(self)

        if self.exists(work.stores):
            return
        work.artifacts.make(self.kind, self.key, lambda folder: self.fill(folder, work), before_publishing)
        ours = (self.folder(work.artifacts) / "token").read_text(encoding="utf-8").endswith(f" {os.getpid()}")
        write(self.log, f"{'made' if ours else 'again'} {self.name} {os.getpid()}")


@dataclass(frozen=True)
class CellStage(Stage):
    name: str
    mode: str
    log: str
    kind = "cell"
    keeps_failure = True
    stored_in = "out"
    uses_torch = False

    @property
    def key(self) -> str:
        return digest(self.name)

    @property
    def label(self) -> str:
        return f"train {self.name}"

    def needs(self) -> list[Stage]:
        return [Protect(self.name[0], self.mode, self.log)]

    def cost(self) -> StageCost:
        return StageCost(1, other=2.0)

    def path(self, out: Path) -> Path:
        return out / "cells" / self.name

    def exists(self, stores: Stores) -> bool:
        return self.path(stores.results.out).exists()

    def run(self, work: Work) -> None:
        assert self.needs()[0].exists(work.stores)
        path = self.path(work.env.out)
        if path.exists():
            return
        begin(self, work)
        work.check_lease()
        stop_at_the_last_moment(self)
        made = write_once(path, token())
        write(self.log, f"{'made' if made else 'again'} {self.name} {os.getpid()}")
        time.sleep(0.01)


def begin(stage: Any, work: Work) -> None:
    """Work for a moment, or misbehave as the mode says."""
    write(stage.log, f"start {stage.name} {os.getpid()} {work.attempt}")
    match stage.mode:
        case "hang" if stage.name == "aw" and work.attempt == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        case "slow":
            time.sleep(0.6)
        case "fail" if stage.name in ("aw", "b"):
            raise UserError(f"{stage.name} cannot be computed", "no luck")
        case "long":
            time.sleep(600)
        case "big out" if stage.kind == "cell":
            (work.env.out / "filler").write_bytes(b"x" * 3_000_000)
        case "big cache" if stage.name == "b":
            (work.env.cache_dir / "filler").write_bytes(b"x" * 3_000_000)
        case "hog" if stage.name == "aw":
            devour(int(os.environ.get("BOARD_ROOM", "0")))
    time.sleep(0.04)


def token() -> str:
    """What is stored: other than any other, and it says which process stored it."""
    return f"{secrets.token_hex(8)} {os.getpid()}"


def stop_at_the_last_moment(stage: Any) -> None:
    """Stand still between the last look at the lease and the moment in which the outcome appears."""
    if stage.mode == f"stop {stage.name}":
        write(stage.log, f"stopped {stage.name} {os.getpid()}")
        os.kill(os.getpid(), signal.SIGSTOP)


def devour(room: int) -> None:
    """Take memory until there is none: until an allocation fails after ``room`` bytes, or the kernel ends it."""
    if room:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    taken = []
    while True:
        taken.append(b"x" * 1_000_000)


def make_surrogate(folder: Path, log: str) -> None:
    write(log, f"surrogate begun {os.getpid()}")
    time.sleep(0.5)
    (folder / "weights").write_text(secrets.token_hex(8), encoding="utf-8")


class Said:
    """A follower that prints what happens."""

    def begin(self, tasks: Any, targets: int, missing: int, workers: Any) -> None:
        print("begin", missing, flush=True)

    def on_event(self, event: Event) -> None:
        if event.kind != "progress":
            print(event.kind, event.task.label if event.task else "", event.text, flush=True)

    def end(self) -> None:
        print("end", flush=True)


def main(folder: Path, jobs: int, mode: str) -> int:
    log = os.environ.get("BOARD_LOG") or str(folder / "log")
    env = RunEnvironment(folder / "cache", folder / "data", folder / "out")
    silence = os.environ.get("BOARD_SILENCE")
    options = {"silence": silence} if silence else {}
    targets = [CellStage(p + c, mode, log) for p in PROTECTORS for c in COLUMNS]
    try:
        failed = fill(targets, env, "cpu", jobs, Said(), FillOptions(executor_options=options))
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        print(f"problem: {error}", flush=True)
        return error.exit_code
    return 1 if failed else 0


def without_torch() -> tuple[machine.Device, ...]:
    return (machine.Device("cpu", "a processor", "fp32"),)


if __name__ == "__main__":
    from schedule import board  # the stages of a main module cannot be sent to workers

    machine.devices = without_torch  # type: ignore[assignment]  # the real one is cached
    sys.exit(board.main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "short"))
