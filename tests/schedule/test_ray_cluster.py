"""A light grid through a real Ray cluster of two nodes with GPUs that are numbers only; one node is lost in mid-run."""

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


@pytest.fixture(scope="module", autouse=True)
def ray_and_a_network() -> None:
    pytest.importorskip("ray", reason="pip install 'ue-bench[ray]'")
    if reason := slurm_cluster.no_network():
        pytest.skip(reason)


def through(kind: str, folder: Path, mode: str, seconds: float) -> dict[str, Any]:
    """What the driver saw, in a process that has nothing but a loopback interface."""
    command = [sys.executable, "-m", cluster_grid.__name__, str(folder), kind, mode, str(seconds), str(seconds)]
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    ran = subprocess.run(
        slurm_cluster.in_own_network(*command),
        env={**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    seen: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return seen


@pytest.mark.parametrize("mode", ["none", "node", "hang"])
def test_two_nodes_give_the_results_of_this_machine(tmp_path: Path, mode: str) -> None:
    here, there = tmp_path / "local", tmp_path / "ray"
    assert through("local", here, "none", 0.0)["failed"] == {}
    seen = through("ray", there, mode, 1.5)
    assert seen["failed"] == {}
    results = cluster_grid.stored(there / "out")
    assert sorted(results) == sorted(cluster_grid.NAMES)
    assert results == cluster_grid.stored(here / "out")
    made = Counter(name for word, name, *_ in read_log(there / "log") if word == "made")
    assert made == Counter(cluster_grid.NAMES)
    crashed = [event for event in seen["events"] if event[0] == "crashed"]
    assert {event[4] for event in crashed} == {"none": set(), "node": {"infrastructure"}, "hang": {"timeout"}}[mode]
    slots = {event[2] for event in seen["events"] if event[0] == "started"}
    assert len({slot.partition("/")[0] for slot in slots}) == 2
    environment = [json.loads(p.read_text())["environment"] for p in (there / "out").glob("*.json")]
    assert environment == [{"device": "cuda:0", "packed": 2, "gpu": "0"}] * len(environment)
