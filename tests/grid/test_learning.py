"""Where test images are protected, protectors learn from the training images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ue_bench.api import Context, Countermeasure, ImageSet, Victim
from ue_bench.engine import loop
from ue_bench.grid import surrogates

NET = "resnet9[width=4]"
RECIPE: dict[str, Any] = {"batch": 8, "epochs": 2, "learning_rate": 0.05, "schedule": "cosine"}


def images(seed: int) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    return ImageSet(pixels, np.arange(16) % 2, ("a", "b"))


def test_surrogates_are_those_of_the_training_images(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    train = loop.train

    def counted(build: Any, data: ImageSet, *rest: Any) -> Any:
        runs.append(data.fingerprint)
        return train(build, data, *rest)

    monkeypatch.setattr(loop, "train", counted)
    own = ctx.surrogate(images(0), NET, **RECIPE)
    apart = replace(ctx, learn_from=images(0))
    shared = apart.surrogate(images(1), NET, **RECIPE)
    states = apart.checkpoints(images(1), NET, 2, **RECIPE)
    assert runs == [images(0).fingerprint] * 2
    for name, weights in own.state_dict().items():
        assert weights.equal(shared.state_dict()[name])
        assert weights.equal(states[-1].state_dict()[name])
    ctx.surrogate(images(1), NET, **RECIPE)
    assert runs[2:] == [images(1).fingerprint]


def test_what_is_kept_is_kept_apart(ctx: Context) -> None:
    """What comes of test images depends on the training images, which keys of plugins do not know."""

    def make(folder: Path) -> None:
        (folder / "x").touch()

    contexts = [ctx, replace(ctx, learn_from=images(0)), replace(ctx, learn_from=images(1))]
    assert len({c.cached("key", make) for c in contexts}) == 3
    assert len({c.checkpoint_dir("key") for c in contexts}) == 3
    assert contexts[1].cached("key", make) == replace(ctx, learn_from=images(0)).cached("key", make)


def test_learning_gives_images_and_context(ctx: Context) -> None:
    data = images(1)
    assert ctx.learning(data) == (data, ctx)
    other, plain = replace(ctx, learn_from=images(0)).learning(data)
    assert other.fingerprint == images(0).fingerprint
    assert plain == ctx


def test_a_trained_network_can_be_known_before_it_is_trained(ctx: Context) -> None:
    """By the key under which the context keeps it."""
    from ue_bench.catalogue.registry import registry
    from ue_bench.contract.protocol import Protocol
    from ue_bench.keys import digest

    [net] = registry().resolve("victim", NET)
    [plain] = registry().resolve("countermeasure", "vanilla")
    assert isinstance(net, Victim)
    assert isinstance(plain, Countermeasure)
    recipe = Protocol(name="surrogate", version=1, summary="", source="", **RECIPE)
    key = digest(surrogates.artifact(images(0).fingerprint, net, recipe, plain, ctx.seed, ctx.precision))
    assert not (ctx.artifacts / "plugin" / key).exists()
    ctx.surrogate(images(0), NET, **RECIPE)
    assert (ctx.artifacts / "plugin" / key / surrogates.LAST).exists()
