"""EntF on nets that train in a second, and its losses against hand-made embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor, nn

from ue_bench.api import Context, ImageSet, UserError
from ue_bench.catalogue.registry import registry
from ue_bench.grid.surrogates import Surrogates
from ue_bench_baselines import entf, pgd
from ue_bench_baselines.embedding import centroids, embedding
from ue_bench_baselines.entf import EntF
from ue_bench_baselines.pgd import to_unit

from .helpers import difference, image_set, random_set

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {
    "preset": "micro", "surrogate": NET, "surrogate_epochs": 2, "surrogate_steps": 2, "iterations": 12,
    "step": "1.6/255",
}  # fmt: skip


class Toy(nn.Module):
    """A linear embedding h = W x of two numbers and a classifier on it."""

    def __init__(self, inputs: int, dimensions: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(dimensions, inputs, generator=generator))
        self.head = nn.Linear(dimensions, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x.flatten(1) @ self.w.T)
        return found


class TestLosses:
    # Means of three classes; the fourth has no images.
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [torch.inf, torch.inf]])

    def losses(self, variant: str, embedded: list[list[float]], labels: list[int]) -> list[float]:
        found = EntF(variant=variant).losses(torch.tensor(embedded), self.means, torch.tensor(labels))
        return [round(loss, 5) for loss in found.tolist()]

    def test_push_is_away_from_the_own_class(self) -> None:
        assert self.losses("push", [[1, 1], [1, 1], [0, 3]], [0, 1, 2]) == [-1, -0.5, 0]

    def test_pull_is_to_the_nearest_other_class(self) -> None:
        assert self.losses("pull", [[0, 0.1], [0.9, 0], [0, 3]], [0, 1, 2]) == [0.505, 0.405, 4.5]

    def test_the_own_class_is_no_target_however_far_the_others_are(self) -> None:
        """The release's distance of 1 would make it one here."""
        assert self.losses("pull", [[0.0, 40.0]], [2]) == [800]

    def test_a_class_without_images_is_no_target(self) -> None:
        assert np.isfinite(self.losses("pull", [[9e9, 9e9]], [1])).all()

    def test_the_target_is_chosen_anew(self) -> None:
        """The same image, moved, has another target."""
        assert self.losses("pull", [[0.8, 0], [0, 2.9]], [0, 0]) == [0.02, 0.005]

    def test_push_has_the_gradient_of_a_linear_embedding(self) -> None:
        """-2 / D * W^T (h - mu)."""
        net = Toy(3 * 4 * 5).requires_grad_(False)
        x = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        labels = torch.tensor([0, 1, 2, 0, 1, 2])
        h = x.flatten(1) @ net.w.T
        [found] = torch.autograd.grad(EntF().losses(h, self.means, labels).sum(), x)
        expected = -2 / 2 * (h - self.means[labels]) @ net.w
        assert torch.allclose(found, expected.view_as(x), atol=1e-5)

    def test_pull_has_that_gradient_turned_round(self) -> None:
        h = torch.tensor([[0.7, 0.2]]).requires_grad_()
        [found] = torch.autograd.grad(EntF(variant="pull").losses(h, self.means, torch.tensor([0])).sum(), h)
        assert torch.allclose(found, (h - self.means[1]).detach(), atol=1e-6)


class TestEmbedding:
    def test_it_is_what_the_last_linear_layer_is_given(self, ctx: Context) -> None:
        data = corners(6)
        net = ctx.network(data, NET).eval()
        x = to_unit(data.images, "cpu")
        embedded = embedding(net, NET, ctx)(x)
        assert embedded.shape == (6, 16)
        assert embedded.min() >= 0  # behind the last ReLU
        *_, last = net.children()
        assert torch.allclose(last(embedded), net(x), atol=1e-6)

    def test_a_network_without_one_is_refused(self, ctx: Context) -> None:
        with pytest.raises(UserError, match="nets has no linear layer"):
            embedding(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "nets", ctx)

    def test_means_are_those_of_a_class(self, ctx: Context) -> None:
        data = random_set(20, (8, 9), 4)  # its last class has no images
        net = Toy(3 * 8 * 9)
        means = centroids(embedding(net, "toy", ctx), data, ctx, 7)
        h = to_unit(data.images, "cpu").flatten(1) @ net.w.T
        for label in range(4):
            own = h[data.labels == label]
            expected = own.mean(0) if len(own) else torch.full((2,), torch.inf)
            assert torch.allclose(means[label], expected, atol=1e-4)
        assert torch.isinf(means).any()
        assert not means.requires_grad


class TestReference:
    def test_it_is_trained_against_a_ball_half_as_wide(self) -> None:
        [at] = registry().resolve("countermeasure", EntF().training())
        [expected] = registry().resolve("countermeasure", "at[eps=4/255,step_size=2/255,steps=10]")
        assert at == expected
        assert at.identity() == expected.identity()
        [micro] = registry().resolve("countermeasure", EntF(preset="micro", surrogate_eps="2/255").training())
        assert micro.selector == "at[eps=2/255,step_size=1/255,steps=5]"

    def test_recipe_of_the_release(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: dict[str, Any] = {}

        def surrogate(*given: Any, **recipe: Any) -> Any:
            asked.update(recipe, victim=given[2])
            raise KeyboardInterrupt

        monkeypatch.setattr(Context, "surrogate", surrogate)
        with pytest.raises(KeyboardInterrupt):
            EntF().protect(corners(), ctx)
        assert asked == {
            "victim": "resnet18", "batch": 128, "epochs": 100, "learning_rate": 0.1, "schedule": "multistep",
            "milestones": (0.75, 0.9),
        }  # fmt: skip

    def test_push_and_pull_share_it(self, ctx: Context) -> None:
        data = corners(12)
        for variant in ("push", "pull"):
            EntF(**QUICK, variant=variant).protect(data, ctx)
        assert len(list((ctx.artifacts / "plugin").iterdir())) == 1


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Artifacts that outlive a test: the reference model is trained once."""
    folder = tmp_path_factory.mktemp("entf")
    return Context(device="cpu", seed=0, scratch=folder, artifacts=folder, data_dir=folder, networks=Surrogates())


class TestEntanglement:
    """How the reference model sees what was made with it."""

    data = corners(60)
    strong = EntF(**QUICK | {"surrogate_epochs": 40, "eps": "32/255", "step": "2/255", "augment": False})

    def seen(self, images: ImageSet, ctx: Context) -> tuple[float, float, float]:
        """Mean squared distances to the own class's mean and to the nearest other one, and accuracy."""
        net = ctx.surrogate(self.data, NET, self.strong.training(), **self.strong.recipe())
        labels = torch.tensor(self.data.labels)[:, None]
        embed = embedding(net, NET, ctx)
        x = to_unit(images.images, "cpu")
        with torch.no_grad():
            distances = torch.cdist(embed(x), centroids(embed, self.data, ctx, 60)).square()
            right = (net(x).argmax(1) == labels[:, 0]).float().mean()
        nearest = distances.scatter(1, labels, torch.inf).amin(1)
        return distances.gather(1, labels).mean().item(), nearest.mean().item(), right.item()

    def protected(self, ctx: Context, **settings: Any) -> ImageSet:
        return self.strong.model_copy(update=settings).protect(self.data, ctx)

    def test_pushed_images_are_farther_from_their_class(self, shared: Context) -> None:
        clean, *found = [self.seen(self.data, shared)] + [
            self.seen(self.protected(shared, iterations=n), shared) for n in (2, 8, 32)
        ]
        own = [distance for distance, _, _ in found]
        assert own[0] < own[1] < own[2]
        assert own[2] > 2 * clean[0]

    def test_pulled_images_come_to_another_class(self, shared: Context) -> None:
        clean, *found = [self.seen(self.data, shared)] + [
            self.seen(self.protected(shared, variant="pull", iterations=n), shared) for n in (2, 8, 32)
        ]
        nearest = [distance for _, distance, _ in (clean, *found)]
        assert nearest[0] > nearest[1] > nearest[2] > nearest[3]
        assert clean[2] > 0.9
        assert found[2][2] < 0.5

    def test_it_works_through_shifts_and_mirrors(self, shared: Context) -> None:
        clean = self.seen(self.data, shared)
        moved = self.seen(self.protected(shared, variant="pull", iterations=32, augment=True), shared)
        still = self.seen(self.protected(shared, variant="pull", iterations=32), shared)
        assert still[1] < moved[1] < clean[1]
        assert moved[2] < clean[2]


PROTECTORS = [EntF(**QUICK), EntF(**QUICK, variant="pull")]
each = pytest.mark.parametrize("protector", PROTECTORS, ids=lambda p: p.variant)


@each
def test_images_stay_within_the_budget_and_in_order(protector: EntF, ctx: Context) -> None:
    data = corners()
    protected = protector.protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert protected.images.shape == data.images.shape
    assert protected.images.dtype == np.uint8
    assert np.abs(difference(protected, data)).max(axis=(1, 2, 3)).tolist() == [8] * len(data)
    again = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, protected.images)
    other = protector.protect(data, replace(ctx, seed=1))
    assert not np.array_equal(other.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


@each
def test_layers_may_run_in_half_precision(protector: EntF, ctx: Context) -> None:
    data = corners()
    protected = protector.protect(data, replace(ctx, precision="bf16"))
    assert np.abs(difference(protected, data)).max(axis=(1, 2, 3)).tolist() == [8] * len(data)


@each
def test_the_width_of_batches_moves_nothing(protector: EntF, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners()
    whole = protector.protect(data, ctx)
    monkeypatch.setattr(entf, "CPU_BATCH", 7)
    parts = protector.protect(data, ctx)
    # Sums in another order can turn the sign of a gradient that is all but zero.
    assert (whole.images != parts.images).mean() < 0.002


@each
def test_a_killed_generation_continues(protector: EntF, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners()
    monkeypatch.setattr(entf, "CPU_BATCH", 9)  # five batches
    whole = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    calls: list[int] = []
    descend = pgd.descend

    def dying(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return descend(*given)

    monkeypatch.setattr(pgd, "descend", dying)
    with pytest.raises(KeyboardInterrupt):
        protector.protect(data, ctx)
    continued = protector.protect(data, ctx)
    assert np.array_equal(continued.images, whole.images)
    assert len(calls) == 3 + 3


@pytest.mark.parametrize("labels", [[0], [1, 1, 1], [2, 0, 0, 0, 1]], ids=str)
@each
def test_few_images_and_classes_without_any(protector: EntF, labels: list[int], ctx: Context) -> None:
    data = image_set(np.full((len(labels), 9, 16, 3), 100, np.uint8), labels, classes=3)
    if protector.variant == "pull" and len(set(labels)) == 1:
        with pytest.raises(UserError, match="needs images of two classes"):
            protector.protect(data, ctx)
    else:
        assert np.abs(difference(protector.protect(data, ctx), data)).max(axis=(1, 2, 3)).tolist() == [8] * len(labels)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, 100 * (1 + 10 * 2 / 3) + 1 / 3 + 300 * 2 / 3),
        ({"surrogate_steps": 0, "iterations": 3}, 100 + 1 / 3 + 2),
        ({"preset": "micro"}, 4 * (1 + 5 * 2 / 3) + 1 / 3 + 100 * 2 / 3),
    ],
)
def test_cost_counts_the_adversarial_surrogate(settings: dict[str, Any], passes: float) -> None:
    assert EntF(**settings).cost(10_000).passes == pytest.approx(passes)


def test_presets_hold_every_parameter_that_is_left_to_them() -> None:
    plugin: Any = registry().find("protector", "entf").plugin_class
    open_fields = {f for f, info in plugin.model_fields.items() if info.default is None} - {"step", "surrogate_epochs"}
    for preset in ("paper", "micro"):
        assert open_fields | {"recipe"} == set(plugin.PRESETS[preset])
    assert plugin().budget == "linf 8/255"
    assert plugin(preset="micro").uses_networks
