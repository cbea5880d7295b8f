"""A light grid through a real SLURM: munged, slurmctld, slurmd, submitit. What happens to jobs changes no result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from . import cluster_grid, slurm_cluster
from .helpers import read_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(cluster_grid.NAMES)


@pytest.fixture(scope="module", autouse=True)
def slurm() -> None:
    pytest.importorskip("submitit", reason="pip install 'ue-bench[slurm]'")
    if reason := slurm_cluster.lacks():
        pytest.skip(f"no SLURM on this machine: {reason}")


def through_slurm(folder: Path, *modes: str, long: float = 0.5) -> list[dict[str, Any]]:
    """What drivers saw, one after the other, one a mode; those that left saw nothing."""
    runs = [f"'{sys.executable}' -m {cluster_grid.__name__} '{folder}' slurm {m} 0.5 {long}" for m in modes]
    command = [sys.executable, "-m", slurm_cluster.__name__, str(folder / "cluster"), "sh", "-c", " ; ".join(runs)]
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    ran = subprocess.run(
        slurm_cluster.in_own_network(*command),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def made(folder: Path) -> Counter[str]:
    """How often each result was computed to its end."""
    return Counter(name for word, name, *_ in read_log(folder / "log") if word == "made")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result files of the same grid on this machine."""
    folder = tmp_path_factory.mktemp("local")
    assert cluster_grid.main(folder, "local", "none", 0.0, 0.0)["failed"] == {}
    results = cluster_grid.stored(folder / "out")
    assert sorted(results) == NAMES
    return results


def test_arrays_and_groups_give_the_results_of_this_machine(tmp_path: Path, expected: dict[str, Any]) -> None:
    [seen] = through_slurm(tmp_path, "none")
    assert seen["failed"] == {}
    assert cluster_grid.stored(tmp_path / "out") == expected
    assert made(tmp_path) == Counter(NAMES)
    environment = [json.loads(p.read_text())["environment"] for p in (tmp_path / "out").glob("*.json")]
    assert {said["device"] for said in environment} == {"cuda:0"}
    assert {said["gpu"] for said in environment} <= {"0", "1", None}
    submitted = [path.name for path in (tmp_path / "slurm").glob("[0-9]*_submission.sh")]
    assert len(submitted) < len(NAMES) / 2


@pytest.mark.parametrize(
    ("mode", "is_a_failure"), [("cancel", True), ("requeue", False), ("preempt", False), ("time", False)]
)
def test_what_slurm_does_to_a_job_changes_no_result(
    tmp_path: Path, expected: dict[str, Any], mode: str, is_a_failure: bool
) -> None:
    [seen] = through_slurm(tmp_path, mode, long=10.0)  # after SIGTERM it has five seconds
    assert seen["failed"] == {}
    assert cluster_grid.stored(tmp_path / "out") == expected
    assert made(tmp_path) == Counter(NAMES)
    assert any(event[0] == "crashed" for event in seen["events"]) == is_a_failure
    starts = Counter(name for word, name, *_ in read_log(tmp_path / "log") if word == "start")
    assert max(starts.values()) > 1


def test_a_job_that_reaches_its_time_limit_goes_on_where_it_was(tmp_path: Path, expected: dict[str, Any]) -> None:
    [seen] = through_slurm(tmp_path, "limit", long=40.0)  # of two minutes, of which SLURM says so after 30 seconds
    assert seen["failed"] == {}
    assert cluster_grid.stored(tmp_path / "out") == expected
    assert made(tmp_path) == Counter(NAMES)
    assert cluster_grid.LONG in [event[1] for event in seen["events"] if event[0] == "waiting"]
    starts = [line for line in read_log(tmp_path / "log") if line[:2] == ["start", cluster_grid.LONG]]
    assert len(starts) > 1


def test_a_job_past_the_drivers_limit_is_cancelled_and_tried_again(tmp_path: Path, expected: dict[str, Any]) -> None:
    [seen] = through_slurm(tmp_path, "hang")
    assert seen["failed"] == {}
    assert cluster_grid.stored(tmp_path / "out") == expected
    crashed = [(event[1], event[4]) for event in seen["events"] if event[0] == "crashed"]
    assert crashed == [(cluster_grid.LONG, "timeout")]


def test_a_driver_leaves_and_the_next_one_follows(tmp_path: Path, expected: dict[str, Any]) -> None:
    [seen] = through_slurm(tmp_path, "leave", "none", long=5.0)
    assert seen["failed"] == {}
    assert cluster_grid.stored(tmp_path / "out") == expected
    assert made(tmp_path) == Counter(NAMES)
    starts = Counter(name for word, name, *_ in read_log(tmp_path / "log") if word == "start")
    assert starts == Counter(NAMES)
