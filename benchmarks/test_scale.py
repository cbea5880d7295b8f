"""How work grows with a grid: each group does the same at two sizes, and the ratio of the medians is the claim.

    pytest benchmarks/test_scale.py --benchmark-only --benchmark-columns=min,median,rounds

Four times the cells should take four times as long; what grows faster is a fault. On a busy machine
``--benchmark-timer=time.process_time`` leaves out the time that others had the processor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from leaderboard.factory import BOARD, result
from toys import PROTOCOL, Brighter, Doubler, Linear, Toy, planned, toy_data

from ue_bench.grid.cell import cells
from ue_bench.grid.stages.train import TrainStage
from ue_bench.leaderboard.statistics import panels
from ue_bench.leaderboard.tables import terminal

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
