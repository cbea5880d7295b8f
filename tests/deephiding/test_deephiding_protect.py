"""The protector, with the shipped network unless a test says otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError as PydanticError

from ue_bench.api import Context, ImageSet, UserError, digest_path
from ue_bench.store import perturbation
from ue_bench_deephiding import protector as module
from ue_bench_deephiding import shapes
from ue_bench_deephiding.hinet import HidingNetwork, to_pixels, to_unit
from ue_bench_deephiding.networks import load_network
from ue_bench_deephiding.protector import DeepHiding
from ue_bench_deephiding.recipe import Recipe
from ue_bench_deephiding.writing import write_network

from .helpers import change, randomised, smooth_set


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return smooth_set(20)


def test_protecting_twice_gives_the_same(data: ImageSet, ctx: Context) -> None:
    method = DeepHiding(mode="sample", bank_size=3)
    one, two = method.protect(data, ctx), method.protect(data, ctx)
    assert one.images.dtype == np.uint8
    assert np.array_equal(one.images, two.images)
    assert np.array_equal(one.labels, data.labels)
    assert change(one, data).any(axis=(1, 2, 3)).all()


def test_the_seed_chooses_the_hidden_images(data: ImageSet, ctx: Context) -> None:
    assert not np.array_equal(
        DeepHiding().protect(data, ctx).images, DeepHiding().protect(data, replace(ctx, seed=1)).images
    )


def test_an_image_does_not_depend_on_its_batch(data: ImageSet, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = DeepHiding().protect(data, ctx)
    monkeypatch.setattr(module, "BATCH", 7)
    in_parts = DeepHiding().protect(data, ctx)
    apart = np.abs(change(at_once, in_parts))
    # Convolutions may add in another order for another batch; that can tip a value over a rounding boundary.
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= 5


def test_class_wise_images_of_a_class_share_their_hidden_image(ctx: Context) -> None:
    data = smooth_set(6, classes=3)
    same = np.repeat(data.images[:1], 6, axis=0)  # one cover, so that only the hidden image makes a difference
    images = DeepHiding().protect(data.with_images(same), ctx).images
    assert np.array_equal(images[:3], images[3:])
    assert len({image.tobytes() for image in images}) == 3


def test_sample_wise_images_of_a_class_differ_and_repeat_evenly(ctx: Context) -> None:
    data = smooth_set(12, classes=2)
    same = np.repeat(data.images[:1], 12, axis=0)
    images = DeepHiding(mode="sample", bank_size=3).protect(data.with_images(same), ctx).images
    for label in range(2):
        of_class = [image.tobytes() for image in images[data.labels == label]]
        assert sorted(of_class.count(one) for one in set(of_class)) == [2, 2, 2]


@pytest.mark.parametrize(("eps", "levels"), [(8 / 255, 8), (3.5 / 255, 3)])
def test_linf_projection_holds_after_rounding(data: ImageSet, ctx: Context, eps: float, levels: int) -> None:
    assert np.abs(change(DeepHiding().protect(data, ctx), data)).max() > 8  # or the test shows nothing
    projected = DeepHiding(projection="linf", eps=eps).protect(data, ctx)
    assert np.abs(change(projected, data)).max() == levels


def test_the_harness_measures_what_the_paper_leaves_open(data: ImageSet, ctx: Context) -> None:
    method = DeepHiding()
    measured = perturbation.measure(data, method.protect(data, ctx), method.budget)
    assert method.budget == "mse (8/255)^2"
    assert DeepHiding(projection="linf").budget == "linf 8/255"
    assert measured.linf_max > 8
    assert 4 < measured.rms < 16  # levels; the network was trained towards 8
    assert 0 < measured.over_8 < 1


@pytest.mark.parametrize("size", [(33, 32), (32, 31), (29, 45)])
def test_odd_and_oblong_sizes_are_protected(size: tuple[int, int], ctx: Context) -> None:
    data = smooth_set(3, size)
    for hidden in ("procedural", "next_class"):
        protected = DeepHiding(hidden=hidden).protect(data, ctx)
        assert protected.images.shape == data.images.shape
        assert np.abs(change(protected, data)).max(axis=(1, 2, 3)).min() > 0
        # The mirrored border is cut off again on the right side: nothing is shifted.
        assert np.sqrt(np.square(change(protected, data)).mean()) < 30


def test_natural_photographs_can_be_hidden(data: ImageSet, ctx: Context, photos: Path) -> None:
    protected = DeepHiding(hidden="natural", hidden_images=photos).protect(data, ctx)
    assert 2 < np.sqrt(np.square(change(protected, data)).mean()) < 20


def test_hidden_images_can_come_from_a_folder(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    from PIL import Image

    for label, name in enumerate(data.class_names):
        (tmp_path / "own" / name).mkdir(parents=True)
        Image.fromarray(data.images[label]).save(tmp_path / "own" / name / "a.png")
    method = DeepHiding(hidden="folder", hidden_images=tmp_path / "own")
    bank = method.bank(data, (32, 32), ctx)
    assert np.array_equal(bank[:, 0], data.images[:3])
    assert change(method.protect(data, ctx), data).any()
    # As many as there are, though a hiding network would rather be trained on a hundred.
    assert method.training_bank(data, 100, (16, 16), ctx).shape == (3, 1, 16, 16, 3)


def test_hidden_images_that_say_nothing_about_the_class(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(4):
        Image.fromarray(data.images[number]).save(tmp_path / f"{number}.png")
    shared = DeepHiding(mode="sample", hidden="random_natural", hidden_images=tmp_path, bank_size=4)
    assert change(shared.protect(data, ctx), data).any()
    assert shared.training_bank(data, 100, (16, 16), ctx).shape == (3, 4, 16, 16, 3)
    marked = DeepHiding(hidden="logo", hidden_images=tmp_path / "0.png")
    assert (marked.bank(data, (32, 32), ctx) == data.images[0]).all()
    assert change(marked.protect(data, ctx), data).any()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"bank_size": 5}, "bank_size needs mode=sample"),
        ({"eps": 0.1}, "eps needs projection=linf"),
        ({"train_steps": 5}, "train_steps needs retrain=true"),
        ({"hidden": "natural"}, "hidden_images=PATH goes with"),
        ({"hidden_images": "somewhere"}, "hidden_images=PATH goes with"),
        ({"hidden": "random_natural", "hidden_images": "x"}, "needs mode=sample"),
        ({"hidden": "logo", "hidden_images": "x", "mode": "sample"}, "one image for all"),
        ({"hidden": "logo", "hidden_images": "x", "retrain": True}, "one image for all"),
        ({"hidden": "next_class", "tpc": False}, "tpc needs hidden=procedural"),
        ({"weights": "x", "retrain": True}, "give them or retrain=true"),
        ({"lfc": False}, "lfc needs retrain=true"),
        ({"start": "shipped"}, "start needs retrain=true"),
        ({"retrain": True, "hider": "isgan", "start": "shipped"}, "losses of its own"),
        ({"omega1": 0.1}, "omega1 needs retrain=true"),
        ({"hider": "isgan"}, "hider needs retrain=true"),
        ({"retrain": True, "lfc": False, "omega3": 1e-3}, "omega3 needs lfc=true"),
        ({"retrain": True, "hide_only": True, "omega2": 1}, "leaves no weight"),
        ({"retrain": True, "hider": "isgan", "per_image": True}, "losses of its own"),
    ],
)
def test_parameters_that_would_be_ignored_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(PydanticError, match=message):
        DeepHiding(**parameters)


def test_ablations_reach_the_recipe() -> None:
    """Each switch of the paper, and what it stands for in the losses."""
    plain = DeepHiding(retrain=True).recipe(32, 5)
    assert plain == Recipe(size=32, seed=5)
    weights = "omega_freq", "omega_reveal", "omega_conc"
    cases: list[tuple[dict[str, Any], tuple[float, float, float]]] = [
        ({"omega1": 0.1, "omega2": 10, "omega3": 1e-2}, (0.1, 10, 1e-2)),
        ({"lfc": False}, (1, 1, 0)),
        ({"hide_only": True}, (0, 0, 0)),
    ]
    for switches, expected in cases:
        found = DeepHiding(retrain=True, **switches).recipe(32, 5)
        assert tuple(getattr(found, name) for name in weights) == expected
        assert replace(found, **{name: getattr(plain, name) for name in weights}) == plain
    assert DeepHiding(retrain=True, per_image=True).recipe(32, 5) == replace(plain, per_image=True)
    assert DeepHiding(retrain=True, hider="isgan").recipe(32, 5) == replace(plain, hider="isgan")


def test_scenes_drawn_at_random_share_silhouettes(ctx: Context) -> None:
    """``tpc=false``: ten classes draw their pairs out of ten silhouettes, with repetition."""
    data = smooth_set(20, classes=10)
    with_tpc, without = (DeepHiding(tpc=tpc).bank(data, (32, 32), ctx) for tpc in (True, False))
    assert not np.array_equal(with_tpc, without)
    assert np.array_equal(without, DeepHiding(tpc=False).bank(data, (32, 32), ctx))
    seen = []

    def silhouette(x: Any, y: Any, which: int) -> Any:
        seen.append(which)
        return np.hypot(x, y)

    drawn = [partial(silhouette, which=which) for which in range(10)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "SILHOUETTES", drawn)
        for distinct in (True, False):
            seen.clear()
            for label in range(100):
                shapes.semantic_image(label, 0, 8, 0, distinct)
            pairs = set(zip(seen[::2], seen[1::2], strict=True))
            assert (len(pairs) == 100) is distinct


def test_budgets_are_those_of_the_training() -> None:
    assert DeepHiding().budget == DeepHiding(retrain=True).budget == "mse (8/255)^2"
    assert DeepHiding(projection="linf", retrain=True, hider="isgan").budget == "linf 8/255"
    assert DeepHiding(retrain=True, hider="isgan").budget == DeepHiding(weights=Path("mine")).budget == "none"


def test_your_weights_are_used(ctx: Context, tmp_path: Path) -> None:
    data = smooth_set(20)
    network = randomised(HidingNetwork(2, 4), 0.05)
    path = tmp_path / "mine.safetensors"
    write_network(path, network.state_dict(), {"blocks": 2, "growth": 4})
    mine = DeepHiding(weights=path)
    assert mine.selector == f"deephiding[weights=mine.safetensors#{digest_path(path)[:8]}]"
    assert mine.identity() != DeepHiding().identity()
    assert "weights" not in mine.identity()  # the shipped ones have no part in it
    protected = mine.protect(data, ctx)
    assert not np.array_equal(protected.images, DeepHiding().protect(data, ctx).images)
    with torch.inference_mode():
        bank = mine.bank(data, data.size, ctx)
        half = load_network(path)
        expected = to_pixels(half.hide(to_unit(data.images, "cpu"), to_unit(bank[data.labels, 0], "cpu")))
    assert np.array_equal(protected.images, expected)


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    for path in (tmp_path / "bad.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(UserError, match="is not a hiding network") as caught:
            load_network(path)
        assert "\n" not in str(caught.value)
