"""UC on a small net with random weights: clusters without labels, one noise for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ue_bench.api import Context, Diverged, EnvironmentProblem, ImageSet, UserError, Victim, digest_path
from ue_bench.catalogue.registry import registry
from ue_bench_baselines.embedding import embedding
from ue_bench_baselines.uc import UC
from ue_bench_baselines.uc_clusters import ClusterNoise, cluster_centres, cropped, enlarged, middle, nearest
from ue_bench_baselines.uc_generator import Generator

from .helpers import difference, image_set

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {
    "surrogate": NET,
    "side": 16,
    "clusters": 3,
    "epochs": 2,
    "batch": 12,
    "width": 2,
    "rate": 0.01,
}


def coloured(count: int = 30, size: tuple[int, int] = (12, 10), labels: Any = None) -> ImageSet:
    """Images of three colours, whose labels say nothing of them."""
    rng = np.random.default_rng(0)
    images = rng.integers(20, 90, (count, *size, 3), dtype=np.uint8)
    images[np.arange(count), :, :, np.arange(count) % 3] += 140
    return image_set(images, np.zeros(count, int) if labels is None else labels, 4)


def test_clusters_share_one_noise_and_labels_are_never_read(ctx: Context) -> None:
    data = coloured()
    protected = UC(**QUICK).protect(data, ctx)
    moved = difference(protected, data)  # no pixel is near black or white
    patterns = [np.unique(moved[colour::3], axis=0) for colour in range(3)]
    assert [len(of_colour) for of_colour in patterns] == [1, 1, 1]
    assert len(np.unique(moved, axis=0)) == 3
    assert 8 < np.abs(moved).max() <= 16
    other = coloured(labels=np.arange(30) % 4)
    # The seed of a run does not depend on labels, and the key of what was learnt only through the set.
    assert np.array_equal(UC(**QUICK).protect(other, ctx).images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_the_same_seed_gives_the_same_images(ctx: Context) -> None:
    data = coloured()
    first = UC(**QUICK).protect(data, ctx)
    again = UC(**QUICK).protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, first.images)
    assert not np.array_equal(UC(**QUICK).protect(data, replace(ctx, seed=1)).images, first.images)


def test_noise_leads_to_the_wanted_centre(ctx: Context) -> None:
    """The loss on images with it falls far, on others it would not."""
    data = coloured()
    protector = UC(**QUICK, eps=0.3)
    embed = protector.embedding(data, ctx)
    with torch.no_grad():
        wanted = 5 * embed(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)))[0]
    cluster = ClusterNoise(data, ctx, embed, wanted, 0, 16, 4, 0.3)
    before = cluster.loss(data.images, 0).item()
    noise = cluster.learn(ctx.scratch / "state.pt", 30, 12, 0.01)
    assert noise.abs().max() <= 0.3
    cluster.epoch = 0
    assert cluster.loss(data.images, 0).item() < 0.9 * before


def test_a_killed_training_continues(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = coloured()
    whole = UC(**QUICK).protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    calls: list[int] = []
    loss = ClusterNoise.loss

    def dying(self: ClusterNoise, images: Any, place: int) -> Tensor:
        calls.append(self.number)
        if len(calls) == 11:  # in the second epoch of the second cluster
            raise KeyboardInterrupt
        return loss(self, images, place)

    monkeypatch.setattr(ClusterNoise, "loss", dying)
    with pytest.raises(KeyboardInterrupt):
        UC(**QUICK).protect(data, ctx)
    assert np.array_equal(UC(**QUICK).protect(data, ctx).images, whole.images)
    assert len(calls) == 11 + 9


def test_test_images_have_the_noise_of_training_images(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    train = coloured()
    moved = difference(UC(**QUICK).protect(train, ctx), train)
    monkeypatch.setattr(ClusterNoise, "learn", None)
    test = train.with_images(train.images[::-1].copy())
    found = difference(UC(**QUICK).protect(test, replace(ctx, learn_from=train)), test)
    assert np.array_equal(found, moved[::-1])


class TestImages:
    def test_the_shorter_side_is_eight_sevenths(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
        assert enlarged(images, 224, "cpu").shape == (2, 3, 256, 341)
        assert middle(enlarged(images, 224, "cpu"), 224).shape == (2, 3, 224, 224)

    def test_crops_are_windows_or_their_mirrors(self) -> None:
        x = torch.arange(60.0).view(1, 1, 6, 10).expand(200, 3, 6, 10)
        seen = cropped(x, 5, torch.Generator().manual_seed(0))
        windows = {}
        for row in range(2):
            for column in range(6):
                window = x[0, 0, row : row + 5, column : column + 5]
                windows[tuple(window.flatten().tolist())] = windows[tuple(window.flip(1).flatten().tolist())] = 0
        for one in seen[:, 0]:
            windows[tuple(one.flatten().tolist())] += 1  # no other key is there
        assert min(windows.values()) > 0

    def test_the_generator_keeps_the_size(self) -> None:
        made = Generator(2)(torch.rand(1, 3, 20, 24))
        assert made.shape == (1, 3, 20, 24)
        assert 0.05 < made.abs().max() <= 1
        convolutions = [m for m in Generator(64).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert len(convolutions) == 3 + 12 + 2 + 1
        assert convolutions[5].in_channels == 256


class TestClusters:
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32) + np.repeat(
        [[0, 0], [30, 0], [0, 30]], 20, 0
    )

    def test_centres_are_those_of_the_groups(self) -> None:
        centres = cluster_centres(self.points.astype(np.float32), 3, 0)
        assert sorted(np.round(centres).tolist()) == [[0, 0], [0, 30], [30, 0]] or np.allclose(
            np.sort(centres, 0), np.sort(np.array([[0, 0], [0, 30], [30, 0]]), 0), atol=1
        )
        assert np.bincount(nearest(self.points.astype(np.float32), centres)).tolist() == [20, 20, 20]

    def test_few_points_are_few_clusters(self) -> None:
        assert len(cluster_centres(np.ones((5, 3), np.float32), 10, 0)) == 1


def test_what_cannot_be_had_is_said(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*given: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(ctx.scratch))
    with pytest.raises(EnvironmentProblem, match="ImageNet weights of resnet50 cannot be downloaded"):
        UC(side=32).protect(coloured(), ctx)
    with pytest.raises(UserError, match="resnet99"):
        UC(surrogate="resnet99").protect(coloured(), ctx)


def test_features_are_those_of_a_file_of_weights(ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Random ones, as a network that learned from other images would bring them."""
    victim = registry().create("victim", "resnet18", {"stem": "imagenet"})
    assert isinstance(victim, Victim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = victim.build(7, (32, 32)).eval()
    torch.save(network.state_dict(), tmp_path / "elsewhere.pth")
    monkeypatch.chdir(tmp_path)
    selector = f"resnet18[weights=elsewhere.pth#{digest_path(tmp_path / 'elsewhere.pth')[:8]}]"
    data = coloured(4, (32, 32))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = UC(surrogate=selector).embedding(data, ctx)(x)
        seen = embedding(network, "resnet18", ctx)(normalised(x))
    assert found.shape == (2, 512)
    assert torch.allclose(found, seen, atol=1e-5)


def normalised(x: Tensor) -> Tensor:
    """Images as torchvision's networks see them."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / deviation[:, None, None]


def test_a_generator_that_diverges_protects_nothing(ctx: Context) -> None:
    with pytest.raises(Diverged, match="of the noise of cluster 0 not finite"):
        UC(**QUICK | {"rate": 1e30, "epochs": 4}).protect(coloured(), ctx)


def test_defaults() -> None:
    assert UC().budget == "linf 16/255"
    assert (UC().clusters, UC().epochs, UC().batch, UC().side, UC().classes_needed) == (10, 50, 256, 224, 1)
    cost = UC().cost(10)
    assert cost.victim == "resnet50[pretrained=true]"
    assert cost.passes == pytest.approx(500 * 2 / 3 + 1 / 3)
    assert cost.size == (224, 224)
    assert UC(side=56).cost(10).size == (56, 56)
