"""How work grows with a grid: each group does the same at two sizes, and the ratio of the medians is the claim.

    pytest benchmarks/test_scale.py --benchmark-only --benchmark-columns=min,median,rounds

Four times the cells should take four times as long; what grows faster is a fault. What reads finished cells does so as
a new process does: with the index of their folder or, in the group that says so, without. On a busy machine
``--benchmark-timer=time.process_time`` leaves out the time that others had the processor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from leaderboard.factory import BOARD, result
from toys import PROTOCOL, Brighter, Doubler, Linear, Toy, planned, toy_data

from ue_bench.grid.cell import Cell, Cells, cells
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.filling import fill
from ue_bench.grid.grid import Targets
from ue_bench.grid.overview import overview
from ue_bench.grid.progress import Progress
from ue_bench.grid.stages.train import TrainStage
from ue_bench.keys import digest
from ue_bench.leaderboard.statistics import panels
from ue_bench.leaderboard.tables import terminal
from ue_bench.store import index, records, requests
from ue_bench.store.exporting import export
from ue_bench.store.results import ResultStore, fresh_path
from ue_bench.store.schema import Result, record_text

COLUMNS = 25


@pytest.mark.benchmark(group="closing table, 25 columns")
@pytest.mark.parametrize("rows", [100, 400])
def test_closing_table(benchmark: BenchmarkFixture, rows: int) -> None:
    results = [result(f"toy[count={i}]", f"jpeg[quality={j}]") for i in range(rows) for j in range(COLUMNS)]
    text = benchmark.pedantic(lambda: "\n".join(map(terminal, panels(results, BOARD))), rounds=5, warmup_rounds=1)
    assert text.count("PSNR (dB)") >= rows / 10  # at most so many protectors fit into a block


@pytest.mark.benchmark(group="plan, nothing stored")
@pytest.mark.parametrize("rows", [100, 400])
def test_plan(benchmark: BenchmarkFixture, rows: int) -> None:
    columns = [Doubler(), *(Brighter(by=by) for by in range(COLUMNS - 1))]
    protectors = [Toy(count=count) for count in range(rows)]

    def work() -> int:
        wanted = cells(toy_data(), protectors, columns, [Linear()], PROTOCOL, range(4), 1.0, "fp32")
        return len(planned(TrainStage(cell) for cell in wanted))

    assert benchmark.pedantic(work, rounds=5, warmup_rounds=1) == rows * 4 * (COLUMNS + 2)


def grid(rows: int) -> Cells:
    data = toy_data()
    fingerprint = digest([data.train_fingerprint, data.test_fingerprint])[:16]
    data = replace(data, info=data.info.model_copy(update={"fingerprint": fingerprint}))
    protectors = [Toy(count=count) for count in range(rows)]
    columns = [Doubler(), *(Brighter(by=by) for by in range(COLUMNS - 1))]
    return cells(data, protectors, columns, [Linear()], PROTOCOL, range(2), 1.0, "fp32")


def finished(cell: Cell) -> Result:
    names = cell.protector.selector, cell.countermeasure.selector
    told: dict[str, Any] = {"version": 2, "key": cell.key, "cell": cell.identity(), "id": cell.id}
    told |= {"dataset": cell.data.info, "victim": cell.victim.selector, "protocol": cell.protocol.name}
    made = result(*names, accuracy=int(cell.key[:4], 16) / 700, seed=cell.seed)
    return Result.model_validate(made.model_dump() | told)


@pytest.fixture(params=[40, 160], ids=["2000 cells", "8000 cells"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Cells, Path]:
    """A grid and its finished results, as another process left them with their index."""
    wanted = grid(request.param)
    requests.record(tmp_path, wanted.wanted())
    for cell in wanted:
        one = finished(cell)
        names = one.countermeasure, one.victim, one.protocol, f"s{one.seed}"
        path = fresh_path(tmp_path / "results", one.key, one.protector, *names)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record_text(one), encoding="utf-8")
    monkeypatch.setattr(index, "clock_of", lambda folder: folder.stat().st_mtime + 60)  # files are not new
    assert len(ResultStore(tmp_path).results()) == len(wanted)
    return wanted, tmp_path


def timed(benchmark: BenchmarkFixture, work: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> Any:
    """Time ``work`` as in a process that has read nothing yet."""

    def setup() -> None:
        records._remembered.clear()
        before()

    return benchmark.pedantic(work, setup=setup, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="first read, no index")
def test_first_read(benchmark: BenchmarkFixture, folder: tuple[Cells, Path]) -> None:
    wanted, out = folder
    remove = partial((out / "results" / index.FILE).unlink, missing_ok=True)
    assert len(timed(benchmark, ResultStore(out).results, remove)) == len(wanted)


@pytest.mark.benchmark(group="read again")
def test_read_again(benchmark: BenchmarkFixture, folder: tuple[Cells, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, out = folder
    monkeypatch.setattr(records, "_parse", None)  # no file is read
    assert len(timed(benchmark, ResultStore(out).results)) == len(wanted)


@pytest.mark.benchmark(group="rerun of a finished grid")
def test_rerun(benchmark: BenchmarkFixture, folder: tuple[Cells, Path]) -> None:
    wanted, out = folder
    env = RunEnvironment(out / "cache", out / "data", out)
    assert timed(benchmark, lambda: fill(Targets(wanted, TrainStage), env, "cpu", 1, Progress())) == {}


@pytest.mark.benchmark(group="status of a folder")
def test_status(benchmark: BenchmarkFixture, folder: tuple[Cells, Path]) -> None:
    wanted, out = folder
    assert timed(benchmark, lambda: overview(out)).counts == (len(wanted), 0, 0)


@pytest.mark.benchmark(group="export to CSV")
def test_export(benchmark: BenchmarkFixture, folder: tuple[Cells, Path]) -> None:
    wanted, out = folder
    assert timed(benchmark, lambda: export(out, out / "results.csv", "csv")) == len(wanted)
