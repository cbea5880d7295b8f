"""Who computes which stage, as drivers and detached jobs agree on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ue_bench.errors import Deferred
from ue_bench.grid import work
from ue_bench.grid.claims import StageClaims
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Work
from ue_bench.leases import Leases
from ue_bench.schedule.call import Report
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.executor import Event

from . import board
from .helpers import task


@pytest.fixture
def stage(env: RunEnvironment, tmp_path: Path) -> board.CellStage:
    board.Protect("a", "short", str(tmp_path / "log")).run(Work(env))
    return board.CellStage("aw", "short", str(tmp_path / "log"))


def another(env: RunEnvironment) -> Leases:
    """Another process, on the folder of results."""
    return Leases(env.out / ".leases", 60)


class Unheard(Report):
    """A report that goes nowhere."""

    def __init__(self) -> None: ...

    def __call__(self, done: float, total: float, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def run(stage: Any, env: RunEnvironment) -> None:
    work.run(work.Assignment(stage), Slot("cpu", "cpu", 1), {"env": env}, Unheard(), 1)


def test_one_of_two_drivers_gets_a_stage_and_the_other_its_outcome(stage: board.CellStage, env: RunEnvironment) -> None:
    other = another(env)
    first, second = StageClaims([stage], env), StageClaims([stage], env, leases_in=lambda root: other)
    one = task(stage.key)
    claim = first.claim(one)
    assert claim.state == "mine"
    assert claim.payload.lease.held()
    assert second.claim(one).state == "taken"
    assert not second.is_free(one, "")
    stage.run(Work(env, lease=claim.payload.lease))
    first.release(one)
    assert second.is_free(one, "")
    assert second.claim(one).state == "stored"
    assert first.claim(one).state == "stored"
    other.close()


def test_a_failure_is_told_to_drivers_that_run_and_not_to_those_that_come(
    stage: board.CellStage, env: RunEnvironment
) -> None:
    other = another(env)
    first, second = StageClaims([stage], env), StageClaims([stage], env, leases_in=lambda root: other)
    one = task(stage.key)
    assert first.claim(one).state == "mine"
    first.release(one, Event("failed", one, text="no luck", failure="diverged"))
    told = second.claim(one)
    assert (told.state, told.failure, told.text) == ("failed", "diverged", "no luck")
    assert StageClaims([stage], env).claim(one).state == "mine"
    other.close()


def test_a_detached_job_takes_its_own_lease(stage: board.CellStage, env: RunEnvironment) -> None:
    claims, one = StageClaims([stage], env, detached=True), task(stage.key)
    claim = claims.claim(one)
    assert (claim.state, claim.payload.lease) == ("mine", None)
    other = another(env)
    held = other.claim(stage.key)
    assert held is not None
    assert claims.claim(one).state == "taken"
    with pytest.raises(Deferred, match=stage.key):
        run(stage, env)
    other.close()
    run(stage, env)
    assert stage.path(env.out).exists()
    assert claims.claim(one).state == "stored"


def test_work_whose_lease_was_taken_over_publishes_nothing(stage: board.CellStage, env: RunEnvironment) -> None:
    leases = another(env)
    lease = leases.claim(stage.key)
    assert lease is not None
    leases.close()
    with pytest.raises(Deferred):
        stage.run(Work(env, lease=lease))
    assert not stage.path(env.out).exists()


def test_a_context_puts_off_what_waits_for_another_process(env: RunEnvironment) -> None:
    def make(folder: Path) -> None:
        (folder / "weights").write_text("1", encoding="utf-8")

    with Work(env, defers=True).context(0) as ctx:
        name = ctx.checkpoint_dir("surrogate").name.partition(".")[0]
        other = Leases(env.cache_dir / ".leases", 60)
        held = other.claim(f"plugin.{name}")
        with pytest.raises(Deferred, match=f"plugin.{name}"):
            ctx.cached("surrogate", make)
        other.close()
        assert (ctx.cached("surrogate", make) / "weights").exists()
    assert held is not None


def test_states_of_long_work_go_to_who_takes_over_and_what_the_former_owner_writes_is_not_read(
    env: RunEnvironment,
) -> None:
    with Work(env).context(0) as ctx:
        before = ctx.checkpoint_dir("training")
        (before / "state").write_text("epoch 3", encoding="utf-8")
        assert ctx.checkpoint_dir("training") == before
    with Work(env).context(0) as ctx:  # another process, for all that leases know: the first was given back
        after = ctx.checkpoint_dir("training")
        assert after != before
        assert (after / "state").read_text(encoding="utf-8") == "epoch 3"
        before.mkdir()  # the former owner wakes up
        (before / "state").write_text("epoch 2", encoding="utf-8")
        assert ctx.checkpoint_dir("training") == after
        assert (after / "state").read_text(encoding="utf-8") == "epoch 3"
