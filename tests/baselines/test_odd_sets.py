"""Sets that releases stumble over: odd sides, unequal and empty classes, one image of a class, gray images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ue_bench.api import Context, ImageSet, Protector
from ue_bench.catalogue.registry import registry

from .helpers import difference, image_set

pytestmark = pytest.mark.usefixtures("one_thread")

NET = "resnet9[width=4,blocks=1]"
ON_A_SURROGATE = {"preset": "micro", "surrogate": NET}
TRAINED = ON_A_SURROGATE | {"surrogate_epochs": 2}
QUICK: dict[str, dict[str, Any]] = {
    "aap": TRAINED | {"iterations": 2},
    "advin-like": TRAINED | {"iterations": 2, "surrogate_training": "at[steps=1]"},
    "ar": {},
    "aue": ON_A_SURROGATE | {"epochs": 1, "steps": 1},
    "cuda": {},
    "deepconfuse": ON_A_SURROGATE
    | {"preset": "trial", "width": 2, "rounds": 1, "interval": 1, "judge_epochs": 1, "batch": 8},
    "dune": TRAINED | {"iterations": 1, "checkpoints": 2, "images": 3},
    "em": ON_A_SURROGATE | {"max_rounds": 1, "train_steps": 1},
    "entf": TRAINED | {"iterations": 2, "surrogate_steps": 1},
    "gue": {"surrogate": NET, "width": 2, "epochs": 1, "batch": 8, "answers": 1},
    "hypo": TRAINED | {"iterations": 2},
    "lsp": {},
    "ntga": {"block": 20},
    "ops": {},
    "pil": {"epochs": 5},
    "pue": ON_A_SURROGATE | {"max_rounds": 1, "train_steps": 1},
    "rem": ON_A_SURROGATE | {"train_steps": 2, "steps": 1, "adv_steps": 1},
    "sem": ON_A_SURROGATE | {"train_steps": 2, "steps": 1, "adv_steps": 1},
    "spots": {},
    "sep": TRAINED | {"iterations": 1, "checkpoints": 2, "inner": 1},
    "tap": TRAINED | {"iterations": 2},
    "tensorclog": TRAINED | {"iterations": 2, "rate": 1},
    "uc": {"surrogate": NET, "side": 16, "clusters": 3, "epochs": 1, "width": 2},
    "tue": {"passes": 1, "steps": 2},
}
each = pytest.mark.parametrize("name", QUICK)


@pytest.fixture
def ctx(ctx: Context, artifacts: Path) -> Context:
    """Most of them share a surrogate for each set."""
    return replace(ctx, artifacts=artifacts)


def odd(gray: bool = False) -> ImageSet:
    """Five classes of 13 x 9 pixels: one of a single image, one of none."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (29, 13, 9, 3), dtype=np.uint8)
    if gray:
        images[..., 1:] = images[..., :1]
    return image_set(images, [0] * 15 + [1] + [3] * 7 + [4] * 6, 5)


def protector(name: str) -> Protector:
    found = registry().create("protector", name, QUICK[name])
    assert isinstance(found, Protector)
    return found


def test_no_protector_is_left_out() -> None:
    names = registry().of_kind("protector")
    own = {e.name for e in names if e.target.startswith("ue_bench_baselines.")}
    assert own - {"none", "noise", "precomputed"} == set(QUICK)


@each
def test_odd_sides_and_classes(name: str, ctx: Context) -> None:
    data = odd()
    protected = protector(name).protect(data, ctx)
    assert protected.images.shape == data.images.shape
    assert protected.images.dtype == np.uint8
    assert np.array_equal(protected.labels, data.labels)
    moved = difference(protected, data)
    assert moved.any()
    if name != "cuda":  # which filters whole images
        assert np.square(moved).mean(axis=(1, 2, 3)).max() < 40**2  # random images in another order: 104 levels


@each
def test_gray_images(name: str, ctx: Context) -> None:
    protected = protector(name).protect(odd(gray=True), ctx)
    assert protected.images.shape == (29, 13, 9, 3)
    assert difference(protected, odd(gray=True)).any()
