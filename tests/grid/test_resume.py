"""A stage that trains continues where it was killed, and leaves nothing behind when its outcome is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toys import Clean, Files, Linear, Plain, random_set, toy_cell, write_set

from ue_bench.contract.protocol import Protocol
from ue_bench.engine import loop, saving
from ue_bench.errors import Diverged
from ue_bench.grid.cell import Cell
from ue_bench.grid.data import stored_dataset
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Stage, Stores, Work
from ue_bench.grid.stages.features import FeatureStage
from ue_bench.grid.stages.train import TrainStage
from ue_bench.store.artifacts import ArtifactStore, read_json

pytestmark = pytest.mark.usefixtures("one_thread")
# ten images in batches of two: five steps an epoch
RECIPE = Protocol(
    name="toy", version=1, summary="", source="", batch=2, epochs=4, learning_rate=0.05, schedule="cosine"
)
STAGES = [TrainStage, FeatureStage]


class Killed(BaseException):
    """Stands for a signal."""


class Convolution(Linear):
    """Has features to measure."""

    name: ClassVar[str] = "convolution"

    def build(self, num_classes: int, image_size: tuple[int, int]) -> Any:
        from torch import nn

        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


@pytest.fixture
def cell(env: RunEnvironment) -> Cell:
    write_set(env.data_dir, random_set(10, seed=1), random_set(4, seed=2))
    data = stored_dataset(Files(), env, lambda *done: None)
    return toy_cell(data=data, protector=Clean(), countermeasure=Plain(), victim=Convolution(), protocol=RECIPE)


@pytest.fixture
def work(env: RunEnvironment, cell: Cell) -> Work:
    work = Work(env)
    TrainStage(cell).protect.run(work)
    return work


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is kept after every step and every epoch."""
    monkeypatch.setattr(saving, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(saving, "SHARE", float("inf"))


def killed_after(step: int, stage: Stage, work: Work) -> None:
    """Run ``stage`` until ``step`` steps are done in all and their state is kept."""
    offer = saving.SavedState.offer

    def offered(saved: saving.SavedState, state: dict[str, Any]) -> None:
        offer(saved, state)
        if state["step"] == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving.SavedState, "offer", offered)
        with pytest.raises(Killed):
            stage.run(work)


def outcome(stage: Stage, env: RunEnvironment) -> dict[str, Any]:
    """What is stored of ``stage``, without what differs from run to run."""
    stores = Stores(env)
    if isinstance(stage, FeatureStage):
        return dict(read_json(stage.folder(stores.artifacts) / "features.json"))
    return {
        "metrics": stores.trained[stage.key].metrics.model_dump(),
        "curve": (env.out / "curves" / f"{stage.key}.json").read_text(encoding="utf-8"),
    }


def unfinished(env: RunEnvironment) -> list[Path]:
    return sorted((env.cache_dir / "unfinished").rglob("*"))


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("steps", [[1], [5], [7, 8, 19], [20]], ids=str)
def test_a_stage_that_was_killed_ends_the_same(
    kind: Any, steps: list[int], cell: Cell, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, elsewhere = kind(cell), replace(work.env, out=work.env.out.with_name("other"))
    kind(cell).run(Work(elsewhere))
    expected = outcome(stage, elsewhere)
    if isinstance(stage, FeatureStage):
        ArtifactStore(work.env.cache_dir).path(stage.kind, stage.key).rename(work.env.cache_dir / "set aside")
    for step in steps:
        killed_after(step, stage, work)
        assert unfinished(work.env)[1:] == [work.env.cache_dir / "unfinished" / stage.key / "state.pt"]
        assert not stage.exists(Stores(work.env))

    train, begun = loop.train, []

    def remember(*arguments: Any, **rest: Any) -> Any:
        begun.append(next(a["step"] for a in arguments if isinstance(a, dict)))
        return train(*arguments, **rest)

    monkeypatch.setattr(loop, "train", remember)
    stage.run(work)
    assert begun == [steps[-1]]
    assert outcome(stage, work.env) == expected
    assert unfinished(work.env) == []


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("how", ["cut off", "changed", "of another cell"])
def test_a_damaged_state_starts_anew(how: str, cell: Cell, work: Work, caplog: pytest.LogCaptureFixture) -> None:
    stage, elsewhere = TrainStage(cell), replace(work.env, out=work.env.out.with_name("other"))
    TrainStage(cell).run(Work(elsewhere))
    killed_after(7, stage, work)
    file = work.env.cache_dir / "unfinished" / stage.key / "state.pt"
    whole = file.read_bytes()
    if how == "cut off":
        file.write_bytes(whole[: len(whole) // 2])
    elif how == "changed":
        file.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    else:
        other = TrainStage(replace(cell, seed=1))
        other.protect.run(work)
        killed_after(7, other, work)
        file.write_bytes((file.parents[1] / other.key / "state.pt").read_bytes())
    stage.run(work)
    assert "state.pt is not used" in caplog.text
    assert outcome(stage, work.env) == outcome(stage, elsewhere)
    assert not file.parent.exists()


@pytest.mark.parametrize("kind", STAGES)
def test_a_short_cell_writes_no_state(kind: Any, cell: Cell, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "save_checkpoint", lambda *asked: pytest.fail("wrote"))
    kind(cell).run(work)
    assert unfinished(work.env) == []


@pytest.mark.usefixtures("always_saved")
def test_a_training_that_diverges_leaves_no_state(cell: Cell, work: Work) -> None:
    stage = TrainStage(replace(cell, protocol=RECIPE.model_copy(update={"learning_rate": 1e30})))
    for _ in range(2):
        with pytest.raises(Diverged):
            stage.run(work)
        assert unfinished(work.env) == []
