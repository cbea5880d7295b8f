"""Times of stages: remembered, and what is predicted from them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from toys import PROTOCOL, Brighter, Clean, Doubler, Linear, Plain, Toy, planned, toy_cell, toy_data

from ue_bench.grid import prediction, trial
from ue_bench.grid.cell import cells
from ue_bench.grid.filling import tasks_of
from ue_bench.grid.grid import Grid
from ue_bench.grid.planner import Planned
from ue_bench.grid.prediction import Predictor, forecast
from ue_bench.grid.stages.base import Stage
from ue_bench.grid.stages.protect import ProtectStage
from ue_bench.grid.stages.train import TrainStage
from ue_bench.grid.timings import FILE, KEPT, START_UP, Timed, Timings, paces, remembered
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.executor import Event, EventKind
from ue_bench.schedule.graph import Task
from ue_bench.schedule.rules import SHORTEST_LIMIT, Limits

SLOTS = [Slot("cpu#0", "cpu", 1), Slot("cpu#1", "cpu", 1)]


class Heard:
    """A follower that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, tasks: list[Task], targets: int, missing: int, workers: list[Slot]) -> None:
        self.heard.append(f"begin {targets} {missing}")

    def on_event(self, event: Event) -> None:
        self.heard.append(event.kind)

    def end(self) -> None:
        self.heard.append("end")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def task(stage: Stage) -> Task:
    return Task(stage.key, stage.label, stage)


def work(
    timed: Timed, clock: Clock, stage: Stage, seconds: float, slot: str = "cpu#0", end: EventKind = "done"
) -> None:
    timed.on_event(Event("started", task(stage), slot))
    clock.now += seconds
    timed.on_event(Event(end, task(stage)))


def place(tmp_path: Path, cell: Any = None) -> Grid:
    """A grid as far as predictions ask."""
    env = SimpleNamespace(device="cpu", threads=1, cache_dir=tmp_path)
    return cast(Grid, SimpleNamespace(env=env, data=toy_data(), precision="fp32", place="here"))


def trained(**changes: Any) -> TrainStage:
    return TrainStage(toy_cell(**changes))


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of an image through any network takes a second, and nothing is tried."""
    monkeypatch.setattr(trial, "seconds", lambda *_: None)
    monkeypatch.setattr(prediction, "network_seconds", lambda network, images, *rest: network.passes * images)


def test_times_are_those_between_start_and_end(tmp_path: Path) -> None:
    clock, heard = Clock(), Heard()
    timed = Timed(heard, Timings(tmp_path), "here", clock)
    timed.begin([], 2, 1, SLOTS)
    first = trained(seed=0)
    work(timed, clock, first, 50)  # of a new process
    for seed in (1, 2, 3):
        work(timed, clock, trained(seed=seed), 10 * seed)
    timed.end()
    assert heard.heard == ["begin 2 1", *["started", "done"] * 4, "end"]
    assert Predictor(place(tmp_path)).seconds(first) == pytest.approx(20)  # the median of 10, 20, 30
    assert Predictor(place(tmp_path)).start_up == pytest.approx(30)


def test_a_first_stage_tells_where_nothing_else_does(tmp_path: Path) -> None:
    clock = Clock()
    timed = Timed(Heard(), Timings(tmp_path), "here", clock)
    work(timed, clock, trained(), 50)
    timed.end()
    assert Predictor(place(tmp_path)).seconds(trained(seed=1)) == pytest.approx(50)


def test_what_failed_tells_nothing_and_its_slot_starts_anew(tmp_path: Path) -> None:
    clock = Clock()
    timed = Timed(Heard(), Timings(tmp_path), "here", clock)
    work(timed, clock, trained(seed=0), 10)
    work(timed, clock, trained(seed=1), 10)
    work(timed, clock, trained(seed=2), 1000, end="failed")
    work(timed, clock, trained(seed=3), 40)  # 30 of them are the start of another process
    timed.end()
    predictor = Predictor(place(tmp_path))
    assert predictor.seconds(trained(seed=9)) == pytest.approx(10)
    assert predictor.start_up == pytest.approx(15)  # the median of 0 and 30


def test_the_most_alike_tells(tmp_path: Path) -> None:
    clock = Clock()
    timed = Timed(Heard(), Timings(tmp_path), "here", clock)
    for seed in range(4):
        work(timed, clock, trained(seed=seed, countermeasure=Brighter()), 10)
        work(timed, clock, trained(seed=seed, countermeasure=Plain()), 10)
        work(timed, clock, trained(seed=seed, countermeasure=Doubler()), 40)
    timed.end()
    predictor = Predictor(place(tmp_path))
    assert predictor.seconds(trained(countermeasure=Doubler())) == pytest.approx(40)
    assert predictor.seconds(trained(countermeasure=Brighter(by=7))) == pytest.approx(10)  # the median of its victim
    passes = trained().cost().weight * 10
    assert predictor.seconds(trained(victim=Linear(width=5))) == pytest.approx(passes)  # nothing but passes tells
    assert predictor.seconds(ProtectStage.of(toy_cell())) is None


def test_time_is_in_proportion_to_work(tmp_path: Path) -> None:
    clock = Clock()
    timed = Timed(Heard(), Timings(tmp_path), "here", clock)
    for seed in range(3):
        work(timed, clock, trained(seed=seed), 10)
    timed.end()
    longer = trained(protocol=PROTOCOL.model_copy(update={"epochs": 6}))
    assert Predictor(place(tmp_path)).seconds(longer) == pytest.approx(30)


def test_the_newest_values_count_and_processes_add_to_one_file(tmp_path: Path) -> None:
    first, second = Timings(tmp_path), Timings(tmp_path)
    for _ in range(KEPT):
        first.add("x", 1.0)
    second.add("x", 5.0)
    second.add("y", 7.0)
    first.save()
    second.save()
    found = Timings(tmp_path)
    assert (found.median("x"), found.median("y"), found.median("z")) == (1.0, 7.0, None)
    assert len(json.loads((tmp_path / FILE).read_text(encoding="utf-8"))["x"]) == KEPT
    for _ in range(KEPT):
        found.add("x", 3.0)
    assert found.median("x") == 3.0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 3}', '{"x": ["a"]}', '{"x": null}'])
def test_a_file_that_is_none_is_made_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content, encoding="utf-8")
    timings = Timings(tmp_path)
    assert timings.median("x") is None
    timings.add("x", 2.0)
    timings.save()
    assert Timings(tmp_path).median("x") == 2.0


def test_a_cache_that_cannot_be_written_costs_the_times_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    timings = Timings(tmp_path / "file")
    timings.add("x", 2.0)
    timings.save()
    assert Timings(tmp_path / "file").median("x") is None


def known(tmp_path: Path, protect: float, train: float, start_up: float = 0.0) -> Timings:
    """Timings in which every stage of these tests takes so many seconds."""
    timings = Timings(tmp_path)
    for stage, seconds in ((ProtectStage.of(toy_cell(protector=Clean())), protect), (trained(), train)):
        for pace in paces(stage.kind, stage.cost(), "here"):
            timings.add(pace, seconds / stage.cost().work)
    timings.add(f"{START_UP}|here", start_up)
    return timings


def stages(seeds: int) -> list[Planned]:
    wanted = cells(toy_data(), [Clean()], [Brighter()], [Linear()], PROTOCOL, range(seeds), 1.0, "fp32")
    return planned(TrainStage(cell) for cell in wanted)


@pytest.mark.parametrize(
    ("seeds", "slots", "finish"),
    [
        (1, 1, 11.0),  # one chain
        (1, 2, 11.0),
        (4, 1, 44.0),
        (4, 2, 22.0),
        (3, 2, 21.5),  # the tail: one slot is idle; the order of protection moves it a little
    ],
)
def test_work_ends_when_the_last_slot_does(tmp_path: Path, seeds: int, slots: int, finish: float) -> None:
    found = forecast(stages(seeds), place(tmp_path), SLOTS[:slots], known(tmp_path, 1, 10))
    assert found.work == pytest.approx(11 * seeds)
    assert found.finish == pytest.approx(finish, abs=0.5)
    assert found.unknown == 0


def test_every_worker_starts_once(tmp_path: Path) -> None:
    found = forecast(stages(4), place(tmp_path), SLOTS, known(tmp_path, 1, 10, start_up=5))
    assert found.finish == pytest.approx(27)
    assert found.work == pytest.approx(44)


def test_what_nothing_tells_is_not_counted_but_said(tmp_path: Path) -> None:
    found = forecast(stages(2), place(tmp_path), SLOTS)
    assert found.unknown == 2
    assert [seconds is None for seconds in found.stages] == [True, False, True, False]


def test_tasks_weigh_the_seconds_of_earlier_runs_and_know_them(tmp_path: Path) -> None:
    timings = known(tmp_path, 1, 10)
    tasks = tasks_of(stages(2), remembered(timings, "here"))
    assert [one.weight for one in tasks] == pytest.approx([1, 10, 1, 10])
    assert [one.seconds for one in tasks] == pytest.approx([1, 10, 1, 10])
    assert Limits().of(tasks[1]) == SHORTEST_LIMIT


def test_what_was_never_measured_weighs_what_it_would_at_the_pace_of_its_kind(tmp_path: Path) -> None:
    slow = stages(1)
    [other] = planned([TrainStage(toy_cell(protector=Clean(), victim=Linear(width=5)))])[1:]
    tasks = tasks_of([*slow, other], remembered(known(tmp_path, 1, 10), "here"))
    assert [one.seconds for one in tasks] == [pytest.approx(1), pytest.approx(10), None]
    assert tasks[2].weight == pytest.approx(10 * other.stage.cost().weight / slow[1].stage.cost().weight)


def test_without_earlier_runs_tasks_weigh_passes(tmp_path: Path) -> None:
    tasks = tasks_of(stages(1))
    assert [(one.weight, one.seconds) for one in tasks] == [(p.stage.cost().weight, None) for p in stages(1)]


def test_nothing_to_do_takes_no_time(tmp_path: Path) -> None:
    found = forecast([], place(tmp_path), [])
    assert (found.work, found.finish, found.unknown) == (0, 0, 0)


def test_every_stage_says_what_its_time_is_in_proportion_to() -> None:
    cell = toy_cell(countermeasure=Doubler(), protector=Toy(count=4))
    found = {stage.kind: stage.cost().subjects for stage in (TrainStage(cell), *TrainStage(cell).needs())}
    assert found == {
        "result": ("linear under doubler", "linear"),
        "protected": ("toy[count=4]",),
        "purified": ("doubler",),
    }
