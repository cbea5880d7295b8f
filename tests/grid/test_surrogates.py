"""Networks that protectors attack: trained once, shared, continued after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ue_bench.contract.context import Context
from ue_bench.contract.imageset import ImageSet
from ue_bench.engine import loop, saving
from ue_bench.errors import Diverged, UserError
from ue_bench.grid.surrogates import Surrogates

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
RECIPE: dict[str, Any] = {"batch": 8, "epochs": 3, "learning_rate": 0.1, "schedule": "cosine", "pad": 1}


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context("cpu", 3, tmp_path, tmp_path / "artifacts", tmp_path, networks=Surrogates())


def images() -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (20, 8, 10, 3), dtype=np.uint8), np.arange(20) % 3, ("a", "b", "c"))


def weights(model: torch.nn.Module) -> bytes:
    return b"".join(v.numpy().tobytes() for v in model.state_dict().values())


def test_a_surrogate_is_frozen_and_takes_pixels(ctx: Context) -> None:
    net = ctx.surrogate(images(), NET, shift=0.5, **RECIPE)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert net(torch.rand(2, 3, 8, 10)).shape == (2, 3)


def test_it_is_trained_once(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights(ctx.surrogate(images(), NET, **RECIPE))
    others = [
        weights(ctx.surrogate(images(), NET, **(RECIPE | {"epochs": 2}))),
        weights(ctx.surrogate(images(), NET, "at[steps=1]", **RECIPE)),
        weights(replace(ctx, seed=4).surrogate(images(), NET, **RECIPE)),
    ]
    assert len({first, *others}) == 4
    monkeypatch.setattr(loop, "train", None)  # no more training
    before = torch.get_rng_state()
    assert weights(ctx.surrogate(images(), NET, **RECIPE)) == first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is kept after every step and every epoch."""
    monkeypatch.setattr(saving, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(saving, "SHARE", float("inf"))


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("states", [1, 2, 3, 5, 6])
def test_one_that_was_killed_ends_the_same(ctx: Context, states: int) -> None:
    """Two steps an epoch: the third state is the one after the first epoch."""
    whole = weights(replace(ctx, artifacts=ctx.artifacts / "other").surrogate(images(), NET, **RECIPE))
    train: Callable[..., Any] = loop.train
    steps: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        *rest, state, save, due = arguments

        def saved(found: dict[str, Any]) -> None:
            save(found)
            steps.append(found["step"])
            if len(steps) == states:
                raise KeyboardInterrupt

        return train(*rest, state, saved, due)

    def continued(*arguments: Any) -> Any:
        state = arguments[-3]
        assert state["step"] == steps[-1]
        return train(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ctx.surrogate(images(), NET, **RECIPE)
    assert not list((ctx.artifacts / "plugin").glob("*/weights.pt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", continued)
        assert weights(ctx.surrogate(images(), NET, **RECIPE)) == whole
    assert steps == [1, 2, 2, 3, 4, 4][:states]
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_untrained_networks_come_from_the_seed(ctx: Context) -> None:
    before = torch.get_rng_state()
    one, same = (weights(ctx.network(images(), NET)) for _ in range(2))
    assert one == same != weights(replace(ctx, seed=4).network(images(), NET))
    assert torch.equal(torch.get_rng_state(), before)


def test_states_of_one_training(ctx: Context) -> None:
    recipe = RECIPE | {"epochs": 5}
    first, second, last = ctx.checkpoints(images(), NET, 3, **recipe)  # after 2, 3 and 5 epochs
    assert weights(last) == weights(ctx.surrogate(images(), NET, **recipe))
    assert len({weights(first), weights(second), weights(last)}) == 3
    assert not any(p.requires_grad for p in first.parameters())
    # A constant rate does not depend on the length, so that short trainings are the beginnings of longer ones.
    constant = recipe | {"schedule": "multistep", "milestones": ()}
    states = ctx.checkpoints(images(), NET, 3, **constant)
    for state, epochs in zip(states, (2, 3, 5), strict=True):
        assert weights(state) == weights(ctx.surrogate(images(), NET, **(constant | {"epochs": epochs})))


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("step", [4, 5])  # at the end of an epoch and in the middle of one
@pytest.mark.parametrize("damaged", ["", "state.pt", "epoch-1.pt"])
def test_states_of_a_training_that_was_killed(
    ctx: Context, damaged: str, step: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = replace(ctx, artifacts=ctx.artifacts / "other")
    whole = [weights(state) for state in elsewhere.checkpoints(images(), NET, 3, **RECIPE)]
    train: Callable[..., Any] = loop.train

    def interrupted(*arguments: Any) -> Any:
        *rest, save, due = arguments

        def saved(found: dict[str, Any]) -> None:
            save(found)
            if (found["epoch"], found["step"]) == (2, step):
                raise KeyboardInterrupt

        return train(*rest, saved, due)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ctx.checkpoints(images(), NET, 3, **RECIPE)
    if damaged:
        [file] = (ctx.artifacts / "unfinished").rglob(damaged)
        os.truncate(file, file.stat().st_size // 2)
    assert [weights(state) for state in ctx.checkpoints(images(), NET, 3, **RECIPE)] == whole
    assert (f"{damaged} is not used" in caplog.text) == bool(damaged)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_there_are_no_more_states_than_epochs(ctx: Context) -> None:
    with pytest.raises(UserError, match="4 states of a network that is trained for 3 epochs"):
        ctx.checkpoints(images(), NET, 4, **RECIPE)


@pytest.mark.parametrize(
    ("victim", "countermeasure", "message"),
    [
        ("resnet9,resnet18", "vanilla", "is 2 victims"),
        (NET, "gray", "gray changes stored images"),
        (NET, "vanilla,cutout", "is 2 countermeasures"),
        ("resnet7", "vanilla", "no victim 'resnet7'"),
    ],
)
def test_mistakes(ctx: Context, victim: str, countermeasure: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ctx.surrogate(images(), victim, countermeasure, **RECIPE)


def test_one_that_diverges_is_not_kept(ctx: Context) -> None:
    with pytest.raises(Diverged, match=r"diverged at step \d of 6: .* not finite"):
        ctx.surrogate(images(), NET, **(RECIPE | {"learning_rate": 1e30}))
    assert not (ctx.artifacts / "plugin").exists() or list((ctx.artifacts / "plugin").iterdir()) == []
