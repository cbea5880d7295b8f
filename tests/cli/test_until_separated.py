"""``run --until-separated`` on three rows whose accuracies are made up, each of a training that does not happen."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ue_bench.catalogue import boards
from ue_bench.engine.loop import Outcome
from ue_bench.grid.cell import Cell
from ue_bench.grid.stages import train
from ue_bench.store.results import ResultStore

from .conftest import Command

GRID = [
    *("-D", "demo[train_per_class=4,test_per_class=3]", "-V", "resnet9[width=4]", "--protocol", "smoke"),
    *("-P", "noise,noise[mode=class],ops", "-C", "vanilla,cutout,mixup,gaussian-filter", "--devices", "cpu"),
    *("--precision", "fp32", "--out", "out"),
]  # fmt: skip
SEPARATE = [*GRID, "--until-separated", "--budget"]
SECONDS: dict[str, float] = {}  # of a training by row, 2 where nothing is given
MEANS = {"none": 90.0, "noise": 70.0, "noise[mode=class]": 30.0, "ops": 50.0}


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Accuracies that spread by half a point over seeds, of rows whose means a test may change."""
    small = dataclasses.replace(boards.board("demo"), reference=("none",))
    monkeypatch.setattr(boards, "board", lambda name: small)
    means = dict(MEANS)

    def no_training(cell: Cell, *others: Any) -> tuple[None, Outcome, None]:
        axes = sum(map(ord, cell.protector.selector)), sum(map(ord, cell.countermeasure.name)), cell.seed
        value = means[cell.protector.selector] + 0.5 * np.random.default_rng(axes).normal()
        seconds = SECONDS.get(cell.protector.selector, 2.0)
        return None, Outcome([8.0], [value], [99.0], [0.1], seconds, 10.0, value), None

    monkeypatch.setattr(train, "train_victim", no_training)
    return means


def seeds(out: Path) -> dict[tuple[str, str], list[int]]:
    """Return the seeds that are stored, by row and column."""
    found: dict[tuple[str, str], list[int]] = {}
    for r in sorted(ResultStore(out).results(), key=lambda r: r.seed):
        found.setdefault((r.protector, r.countermeasure), []).append(r.seed)
    return found


def test_rows_of_a_class_get_seeds_until_they_are_apart(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    before = ue_bench("run", "--dry-run", *SEPARATE, "60")
    assert before.out.splitlines()[-1] == "then further seeds of rows until they are apart, at most 60 cells"
    done = ue_bench("run", *SEPARATE, "60")
    assert done.code == 0, done.err
    assert "linf 8/255, resnet9[width=4]: 1 of 1 pairs of rows are apart" in done.err.replace("Linf", "linf")
    assert re.search(r"all rows that share a class are apart, with \d+ of 60 cells spent on further seeds", done.err)
    stored = seeds(tmp_path / "out")
    for row in ("noise", "noise[mode=class]"):
        given = stored[row, "vanilla"]
        assert given == list(range(len(given)))
        assert len(given) > 1
        assert all(stored[row, column] == given for column in ("cutout", "mixup"))
        assert stored[row, "gaussian-filter"] == [0]  # it repeats plain training
    assert [stored["ops", c] for c in ("vanilla", "cutout")] == [[0], [0]]  # alone in its class
    assert stored["none", "vanilla"] == [0]
    assert "n=1–" in done.out.replace(" ", "")  # the table has the further seeds too

    count = len(computed)
    again = ue_bench("run", *SEPARATE, "60")
    assert again.code == 0
    assert len(computed) == count
    planned = ue_bench("plan", *SEPARATE, "60")
    assert planned.out.splitlines()[0] == "0 of 16 cells to compute, 0 stages in all"
    assert planned.out.splitlines()[-1].startswith("all rows that share a class are apart")


def test_rows_that_are_alike_get_seeds_until_the_budget_is_used_up(
    ue_bench: Command, computed: list[str], tmp_path: Path, made_up: dict[str, float]
) -> None:
    made_up["noise"] = made_up["noise[mode=class]"]
    done = ue_bench("run", *SEPARATE, "11")
    assert done.code == 0
    assert "0 of 1 pairs of rows are apart; not yet noise and noise[mode=class] (" in done.err
    assert "the budget allows no further seed of a row, 9 of 11 cells spent" in done.err
    assert sum(seed > 0 for given in seeds(tmp_path / "out").values() for seed in given) == 9

    planned = ue_bench("plan", *SEPARATE, "12")
    assert planned.out.splitlines()[-1].startswith("next: seed 2 of noise")
    assert ue_bench("run", *SEPARATE, "12", "--no-table").code == 0  # goes on where the other stopped
    given = seeds(tmp_path / "out")
    assert [given[row, "mixup"] for row in ("noise", "noise[mode=class]")] == [[0, 1, 2], [0, 1, 2]]


def test_a_step_that_was_stopped_is_finished_first(
    ue_bench: Command, computed: list[str], tmp_path: Path, made_up: dict[str, float]
) -> None:
    made_up["noise"] = made_up["noise[mode=class]"]
    assert ue_bench("run", *GRID, "--no-table").code == 0
    part = [*GRID, "-P", "noise", "-C", "^cutout,^mixup,^gaussian-filter", "--seeds", "0,1", "--no-table"]
    assert ue_bench("run", *part).code == 0
    computed.clear()
    assert ue_bench("run", *SEPARATE, "6", "--no-table").code == 0
    assert sum("/noise/" in label and label.endswith("/s1") for label in computed) == 2  # not vanilla, which is there


def test_device_time_is_a_budget_too(ue_bench: Command, computed: list[str], made_up: dict[str, float]) -> None:
    made_up["noise"] = made_up["noise[mode=class]"]
    done = ue_bench("run", *SEPARATE, "19s")
    assert done.code == 0
    spent = re.search(r"no further seed of a row, 0:(\d+) of 0:19 of device time spent", done.err)
    assert spent is not None
    assert 18 <= int(spent[1]) <= 19  # three steps of three cells at two seconds, and the protected sets


def test_the_row_that_costs_less_gets_more_seeds(
    ue_bench: Command, computed: list[str], tmp_path: Path, made_up: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECONDS, "noise", 4000.0)
    made_up["noise"] = made_up["noise[mode=class]"] + 0.3
    assert ue_bench("run", *SEPARATE, "24", "--no-table").code == 0
    given = seeds(tmp_path / "out")
    assert len(given["noise[mode=class]", "vanilla"]) > len(given["noise", "vanilla"]) >= 2


def test_a_row_with_a_failed_cell_gets_no_more_seeds(
    ue_bench: Command, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = train.train_victim

    def fails(cell: Cell, *others: Any) -> Any:
        if (cell.seed, cell.protector.selector) == (1, "noise"):
            raise ValueError("no convergence")
        return made_up(cell, *others)

    monkeypatch.setattr(train, "train_victim", fails)
    done = ue_bench("run", *SEPARATE, "30", "--no-table")
    assert done.code == 1
    assert "rows with failed cells get no more seeds" in done.err or "the budget allows" in done.err
    assert (("noise", "vanilla"), [0]) in seeds(tmp_path / "out").items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--until-separated"], "--until-separated needs a budget"),
        (["--budget", "5"], "--budget is that of --until-separated"),
        (["--until-separated", "--budget", "0"], "cannot read the budget '0'"),
        (["--until-separated", "--budget", "soon"], "cannot read the budget 'soon'"),
        (
            ["--until-separated", "--budget", "5", "--shard", "1/2"],
            "rows cannot be told apart by a part of their cells",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(ue_bench: Command, words: list[str], message: str) -> None:
    refused = ue_bench("run", *GRID, *words)
    assert refused.code == 2
    assert message in refused.err
    assert "Traceback" not in refused.err
