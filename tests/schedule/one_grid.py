"""A small grid of real result files, without networks: ``python -m schedule.one_grid FOLDER [SHARD]``.

What a result says follows from the cell and from what its protected set holds; its times and its environment do not.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard.factory import result

from ue_bench import machine
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.filling import fill
from ue_bench.grid.progress import Progress
from ue_bench.grid.sharding import Shard
from ue_bench.grid.stages.base import ArtifactStage, Stage, StageCost, Stores, Work
from ue_bench.keys import digest
from ue_bench.store.schema import Curve

PROTECTORS, COLUMNS = ("em", "ar", "lsp"), ("vanilla", "gray", "jpeg", "at")


@dataclass(frozen=True)
class LightProtect(ArtifactStage):
    name: str
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
        time.sleep(0.05)
        (folder / "images").write_text(hashlib.sha256(self.name.encode()).hexdigest(), encoding="utf-8")


@dataclass(frozen=True)
class LightTrain(Stage):
    protector: str
    column: str
    kind = "result"
    keeps_failure = True
    stored_in = "out"
    uses_torch = False

    @property
    def key(self) -> str:
        return digest([self.protector, self.column])

    @property
    def label(self) -> str:
        return f"{self.protector}/{self.column}"

    def needs(self) -> list[Stage]:
        return [LightProtect(self.protector)]

    def cost(self) -> StageCost:
        return StageCost(1, other=2.0)

    def exists(self, stores: Stores) -> bool:
        return stores.results.has(self.key)

    def run(self, work: Work) -> None:
        begun = time.perf_counter()
        images = (LightProtect(self.protector).folder(work.artifacts) / "images").read_text(encoding="utf-8")
        time.sleep(0.05)
        accuracy = int(hashlib.sha256(f"{images}{self.column}".encode()).hexdigest()[:4], 16) % 9000 / 100
        work.check_lease()
        cell = result(
            self.protector, self.column, accuracy, key=self.key, train_seconds=time.perf_counter() - begun,
            finished=f"2026-01-02T03:04:{os.getpid() % 60:02}Z", device=f"process {os.getpid()}",
        )  # fmt: skip
        curve = Curve(key=self.key, epoch=[1.0], accuracy_test=[accuracy], accuracy_train=[1.0], loss_train=[0.5])
        work.stores.results.write(cell, curve)


def targets() -> list[LightTrain]:
    return [LightTrain(protector, column) for protector in PROTECTORS for column in COLUMNS]


def without_torch() -> tuple[machine.Device, ...]:
    return (machine.Device("cpu", "a processor", "fp32"),)


def main(folder: Path, shard: str = "1/1") -> int:
    env = RunEnvironment(folder / "cache", folder / "data", folder / "out")
    part = Shard.parse(shard)
    chosen: list[Any] = [target for target in targets() if part.holds(target)]
    return 1 if fill(chosen, env, "cpu", 1, Progress()) else 0


if __name__ == "__main__":
    from schedule import one_grid  # the stages of a main module cannot be sent to workers

    machine.devices = without_torch  # type: ignore[assignment]  # the real one is cached
    sys.exit(one_grid.main(Path(sys.argv[1]), *sys.argv[2:]))
