"""``--executor``: what reaches the executor, and what is said where it cannot work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ue_bench.grid import filling
from ue_bench.grid.grid import Request, resolve
from ue_bench.grid.progress import Progress
from ue_bench.schedule.choice import ExecutorChoice, SlurmOptions
from ue_bench.schedule.devices import Slot

from .conftest import Command, InProcess

SET, VICTIM = "demo[train_per_class=4,test_per_class=3]", "resnet9[width=4]"
GRID = ["-D", SET, "-V", VICTIM, "--protocol", "smoke", "-C", "vanilla", "-P", "none", "--precision", "fp32"]


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_one_line(
    ue_bench: Command, monkeypatch: pytest.MonkeyPatch, executor: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    ran = ue_bench("run", "--executor", executor, *GRID)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines()[1:] == [
        f"ue-bench: --executor {executor} needs {package}",
        f"  hint: pip install 'ue-bench[{executor}]'",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ray-address", "10.0.0.1"], "--ray-address is for --executor ray"),
        (["--slurm", "time=3"], "--slurm is for --executor slurm"),
        (["--executor", "slurm", "--slurm", "tim=3"], "did you mean time"),
        (["--executor", "slurm", "--precision", "auto"], "add --precision bf16 or fp32"),
        (["--executor", "ray", "--devices", "cuda:3"], "takes no device 'cuda:3'"),
    ],
)
def test_a_mistake_is_one_of_usage(ue_bench: Command, words: list[str], said: str) -> None:
    ran = ue_bench("run", *GRID, *words)
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.parametrize("command", ["run", "evade", "reproduce"])
def test_every_command_that_computes_takes_the_options(ue_bench: Command, command: str) -> None:
    help_text = ue_bench(command, "--help").out
    assert all(option in help_text for option in ("--executor", "--ray-address", "--slurm"))


class Recorder:
    """Stands for an executor elsewhere; computes here."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def __call__(self, call: Any, *given: Any) -> InProcess:
        self.given += given
        return InProcess(call.target, call.settings, [Slot("there", call.device, call.threads)], Path(), {})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, computed: list[str]) -> Recorder:
    recorder = Recorder()
    for name in ("RayExecutor", "SlurmExecutor"):
        monkeypatch.setattr(filling, name, recorder)
    for name in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return recorder


def test_stages_reach_a_ray_cluster(ue_bench: Command, elsewhere: Recorder, computed: list[str]) -> None:
    ran = ue_bench(
        "run", *GRID, "--executor", "ray", "--ray-address", "10.0.0.1:6379", "--devices", "cpu", "--jobs", "3", "--json"
    )
    assert ran.code == 0, ran.err
    assert elsewhere.given == ["10.0.0.1:6379", "cpu", 3]
    assert [result["precision"] for result in ran.json] == ["fp32", "fp32"]
    assert sum(label.startswith("demo") for label in computed) >= 2


def test_a_library_call_reaches_slurm(tmp_path: Path, elsewhere: Recorder) -> None:
    choice = ExecutorChoice("slurm", slurm=SlurmOptions(partition="gpu"))
    request = Request(
        protectors=["none"], countermeasures=["vanilla"], victims=[VICTIM], dataset=SET, protocol="smoke",
        precision="fp32", out=tmp_path / "out", cache_dir=tmp_path / "cache", executor=choice,
    )  # fmt: skip
    grid = resolve(request)
    assert grid.fill(Progress(), 5) == {}
    assert elsewhere.given == [tmp_path / "out" / "slurm", choice.slurm, 5, "auto"]
    assert len(grid.results()) == len(grid.cells) == 2


@pytest.mark.parametrize(("executor", "pack"), [("ray", "auto"), ("slurm", 2)])
def test_packing_that_an_executor_cannot_do_is_refused(
    ue_bench: Command, elsewhere: Recorder, executor: str, pack: int | str
) -> None:
    ran = ue_bench("run", *GRID, "--executor", executor, "--pack", str(pack))
    assert ran.code == 2
    assert {"ray": "--pack auto measures", "slurm": "leave --pack out"}[executor] in ran.err


def test_doctor_says_what_is_there_of_each(ue_bench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("ue_bench.cli.doctor._version", lambda package: {"ray": "2.60.0"}.get(package))
    executors = json.loads(ue_bench("doctor", "--json").out)["executors"]
    assert executors == {
        "local": "works",
        "ray": "ray 2.60.0",
        "slurm": "pip install 'ue-bench[slurm]'; no sbatch and squeue here",
    }
