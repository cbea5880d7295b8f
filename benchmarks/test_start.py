"""What a command takes before it works, against a bare ``import torch``: ratios within one run.

    pytest benchmarks/test_start.py --benchmark-only --benchmark-json=out.json

More than 1 is less than the import; a run of one tiny cell has two processes that import torch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pairs import in_pairs, sized
from pytest_benchmark.fixture import BenchmarkFixture

TINY = (
    "run", "-D", "demo[train_per_class=20,test_per_class=20]", "-P", "none", "-C", "vanilla", "-V", "linear",
    "--protocol", "smoke", "--devices", "cpu", "--jobs", "1", "--no-table",
)  # fmt: skip
COMMANDS = {
    "--help": ("--help",),
    "list countermeasures": ("list", "countermeasures"),
    "run, nothing to do": TINY,
    "run, one tiny row": TINY,
}


@pytest.mark.benchmark(group="start")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", COMMANDS)
def test_start(benchmark: BenchmarkFixture, name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "UE_BENCH_CACHE": str(tmp_path / "cache")}
    arguments = [*COMMANDS[name], *(["--out", str(out)] if "run" in name else [])]

    def run(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, capture_output=True, env=environment)

    def prepare() -> None:
        if name == "run, one tiny row":
            shutil.rmtree(out, ignore_errors=True)

    in_pairs(
        benchmark, f"ue-bench {name}", lambda: run("-m", "ue_bench", *arguments), "import torch",
        lambda: run("-c", "import torch"), rounds=sized(3, 10), prepare=prepare,
    )  # fmt: skip
