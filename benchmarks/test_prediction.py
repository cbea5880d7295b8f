"""How near predictions come: a tiny grid is computed twice with other seeds, the second time predicted from the first.

    pytest benchmarks/test_prediction.py -s

The machine should be quiet: what others take of it lies between the two runs too.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from ue_bench.grid.grid import Grid, Request, resolve
from ue_bench.grid.prediction import forecast
from ue_bench.grid.timings import Timed, Timings
from ue_bench.schedule.devices import Slot, slots
from ue_bench.schedule.executor import Event
from ue_bench.schedule.graph import Task


class Measured(Timed):
    """Times of single stages beside what the run as a whole took."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        super().__init__(Silent(), Timings(folder), grid.place)
        self.seconds: dict[str, float] = {}
        self.started = self.clock()
        self.whole = 0.0

    def _note(self, event: Event, task: Task) -> None:
        if event.kind == "done":
            self.seconds[task.key] = self.clock() - self._begun[task.key][0]
        super()._note(event, task)

    def end(self) -> None:
        self.whole = self.clock() - self.started


class Silent:
    def begin(self, tasks: list[Task], targets: int, missing: int, workers: list[Slot]) -> None: ...

    def on_event(self, event: Event) -> None: ...

    def end(self) -> None: ...


@pytest.mark.timeout(900)
def test_predicted_against_real(tmp_path: Path) -> None:
    def grid(seeds: list[int]) -> Grid:
        return resolve(
            Request(
                dataset="demo[train_per_class=200]", protectors=["none", "noise", "lsp", "ops"],
                countermeasures=["vanilla", "gray", "jpeg[quality=10]"], victims=["resnet9[width=8]"], seeds=seeds,
                devices="cpu", precision="fp32", reference=False, out=tmp_path / "out", cache_dir=tmp_path / "cache",
            )
        )  # fmt: skip

    assert grid([0]).fill(Silent()) == {}
    wanted = grid([1, 2])
    todo = wanted.missing()
    expected = forecast(todo, wanted, slots("cpu", None, 1))
    measured = Measured(wanted, tmp_path / "elsewhere")
    assert wanted.fill(measured) == {}
    pairs = [(took, measured.seconds[p.stage.key]) for p, took in zip(todo, expected.stages, strict=True)]
    known = [(predicted, real) for predicted, real in pairs if predicted is not None]
    error = median(abs(predicted - real) / real for predicted, real in known)
    print(f"\n{len(known)} of {len(pairs)} stages predicted, median error {error:.0%}")
    print(f"end predicted after {expected.finish:.1f} s, was {measured.whole:.1f} s")
    assert expected.unknown == 0
    assert error < 1  # 0.25 on a quiet machine
