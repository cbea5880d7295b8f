"""One grid, filled in every way: the same result files, up to what they say of environment and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ue_bench.store.merging import merge

from . import one_grid, ray_cluster, slurm_cluster

ROOT = Path(__file__).resolve().parents[2]
VARIES = ("environment", "cost", "finished")
UE_BENCH = [sys.executable, "-c", "from ue_bench.cli.main import main; main()"]
CELLS = [
    "-D", "demo[train_per_class=8,test_per_class=4]", "-V", "resnet9[width=4]", "--protocol", "smoke",
    "-P", "none", "-P", "lsp", "-C", "vanilla", "-C", "gray", "-C", "jpeg[quality=10]",
    "--precision", "fp32", "--devices", "cpu", "--threads", "1",
]  # fmt: skip


def files(out: Path) -> dict[str, Any]:
    """Result files and curves by their place in the folder, without what may differ."""
    paths = [path for kind in ("results", "curves") for path in sorted((out / kind).rglob("*.json"))]
    read = {str(path.relative_to(out)): json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return {name: {k: v for k, v in said.items() if k not in VARIES} for name, said in read.items()}


def at_once(*commands: list[str], **environment: str) -> None:
    """Run commands side by side, all of them to a good end."""
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    started = [
        subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    ends = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ends] == [0] * len(commands), "\n".join(said[-3000:] for said, _ in ends)


def test_one_driver_four_drivers_and_shards_leave_the_same_files(tmp_path: Path) -> None:
    def driver(folder: str, *shard: str) -> list[str]:
        return [sys.executable, "-m", one_grid.__name__, str(tmp_path / folder), *shard]

    at_once(driver("alone"), driver("first", "1/2"), driver("second", "2/2"), *[driver("four")] * 4)
    expected = files(tmp_path / "alone" / "out")
    assert len(expected) == 2 * len(one_grid.targets())
    assert len({json.dumps(said) for said in expected.values()}) == len(expected)
    assert files(tmp_path / "four" / "out") == expected
    parts = [tmp_path / name / "out" for name in ("first", "second")]
    assert merge(parts, tmp_path / "merged").added == len(one_grid.targets())
    assert files(tmp_path / "merged") == expected
    assert all(len(files(part)) < len(expected) for part in parts)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_executor_leaves_the_same_files_as_this_machine(tmp_path: Path) -> None:
    """With trained networks, through the command line. What is not installed here is left out, and said."""

    def run(folder: str, *more: str) -> list[str]:
        place = ["--out", str(tmp_path / folder / "out"), "--cache-dir", str(tmp_path / folder / "cache")]
        return [*UE_BENCH, "run", *CELLS, *place, "--no-table", *more]

    at_once(run("local", "--jobs", "2"))
    expected = files(tmp_path / "local" / "out")
    assert len(expected) == 2 * 9  # noise is a row of its own
    at_once(*[run("four", "--jobs", "1")] * 4)
    assert files(tmp_path / "four" / "out") == expected
    at_once(run("first", "--shard", "1/2"), run("second", "--shard", "2/2"))
    assert merge([tmp_path / name / "out" for name in ("first", "second")], tmp_path / "merged").whole
    assert files(tmp_path / "merged") == expected

    left_out = []
    if reason := slurm_cluster.no_network() or missing("ray"):
        left_out.append(f"Ray: {reason}")
    else:
        command = [sys.executable, "-m", ray_cluster.__name__, *run("ray", "--executor", "ray", "--jobs", "1")]
        at_once(slurm_cluster.in_own_network(*command), RAY_USAGE_STATS_ENABLED="0")
        assert files(tmp_path / "ray" / "out") == expected
    if reason := slurm_cluster.lacks() or missing("submitit"):
        left_out.append(f"SLURM: {reason}")
    else:
        command = run("slurm", "--executor", "slurm", "--slurm", "time=5", "--devices", "cpu")
        cluster = [sys.executable, "-m", slurm_cluster.__name__, str(tmp_path / "cluster"), *command]
        at_once(slurm_cluster.in_own_network(*cluster))
        assert files(tmp_path / "slurm" / "out") == expected
    if left_out:
        pytest.skip(f"the same files from this machine, four drivers and shards; left out: {'; '.join(left_out)}")


def missing(package: str) -> str:
    """Why ``package`` cannot be used; empty if it can."""
    ran = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False)
    return f"{package} is not installed" if ran.returncode else ""
