from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ue_bench.api import Context, Diverged, ImageSet
from ue_bench_countermeasures import dvae_network, dvae_training
from ue_bench_countermeasures.dvae import DVAE
from ue_bench_countermeasures.dvae_network import Disentangler, Parts, loss
from ue_bench_countermeasures.dvae_training import Purifier

from .helpers import Images

QUICK = DVAE(epochs=2, batch=9, width=3, latent=2)  # 8 steps a stage on 40 images
pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Smooth images in levels, N x H x W x 3: two waves of random direction and colour each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.zeros((count, *size, 3))
    for _ in range(2):
        u, v = rng.uniform(-0.5, 0.5, (2, count, 1, 1, 1))
        phase, height = rng.uniform(0, 6.3, (count, 1, 1, 3)), rng.uniform(10, 35, (count, 1, 1, 3))
        waves += height * np.sin(u * x[..., None] + v * y[..., None] + phase)
    return 128 + waves


def patterns(size: tuple[int, int], classes: int = 2, level: float = 20) -> NDArray[np.float64]:
    """A pattern of +-``level`` for each class, classes x H x W x 3, in squares of two pixels."""
    rng = np.random.default_rng(7)
    signs = rng.choice([-level, level], (classes, -(-size[0] // 2), -(-size[1] // 2), 3))
    return signs.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


def labelled(images: NDArray[np.float64], classes: int = 2) -> ImageSet:
    labels = np.arange(len(images)) % classes
    names = tuple(f"class{k}" for k in range(classes))
    return ImageSet(np.clip(np.rint(images), 0, 255).astype(np.uint8), labels, names)


def protected(count: int = 40, size: tuple[int, int] = (8, 10)) -> ImageSet:
    return labelled(pictures(count, size) + patterns(size)[np.arange(count) % 2])


def noise(network: Disentangler, count: int, seed: int = 0) -> torch.Tensor:
    shape = (count, network.latent, *network.small)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(classes: int = 2, size: tuple[int, int] = (8, 10), width: int = 4, latent: int = 3) -> Disentangler:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Disentangler(classes, size, width, latent)


def levels(x: torch.Tensor) -> Images:
    """N x 3 x H x W in [0, 1] as stored images."""
    return np.asarray(np.rint(255 * x.permute(0, 2, 3, 1).numpy()), np.uint8)


class TestNetwork:
    @pytest.mark.parametrize("size", [(8, 10), (7, 9), (2, 3), (1, 1)], ids=str)
    def test_shapes_and_range(self, size: tuple[int, int]) -> None:
        net = network(size=size).eval()
        x = torch.rand(5, 3, *size)
        parts = net(x, torch.tensor([0, 1, 0, 1, 1]), noise(net, 5))
        assert parts.reconstruction.shape == parts.perturbation.shape == x.shape
        assert parts.mean.shape == parts.log_variance.shape == (5, 3, *net.small)
        assert 0 < parts.reconstruction.min() <= parts.reconstruction.max() < 1

    def test_the_paper_s_size(self) -> None:
        """The encoder has a first layer of 3x3, layer1 and layer2.0 of torchvision's ResNet-18."""
        net = Disentangler(10, (32, 32), 64, 256)
        assert sum(p.numel() for p in net.encoder.parameters()) == 3 * 3 * 3 * 64 + 2 * 64 + 147_968 + 230_144
        assert net.embedding.weight.shape == (10, 128 * 16 * 16)
        assert net.mean.weight.shape == net.log_variance.weight.shape == (256, 128, 1, 1)
        layers = [(128, 64, 4), (64, 64, 3), (64, 32, 3), (32, 3, 3)]
        for decoder in (net.reconstruct, net.perturb):
            assert sum(p.numel() for p in decoder.parameters()) == sum(a * b * k * k + b for a, b, k in layers)

    def test_labels_move_the_perturbation_alone(self) -> None:
        net = network().eval()
        x, drawn = torch.rand(3, 3, 8, 10), noise(net, 3)
        one, other = (net(x, torch.full((3,), label), drawn) for label in (0, 1))
        assert torch.equal(one.reconstruction, other.reconstruction)
        assert torch.equal(one.mean, other.mean)
        assert (one.perturbation - other.perturbation).abs().mean() > 0.01

    def test_perturbations_depend_on_the_image_too(self) -> None:
        net = network().eval()
        x = torch.rand(2, 3, 8, 10)
        found = net(x, torch.zeros(2, dtype=torch.long), noise(net, 1).expand(2, -1, -1, -1)).perturbation
        assert (found[0] - found[1]).abs().mean() > 1e-3

    def test_without_variance_noise_does_nothing(self) -> None:
        net = network().eval()
        with torch.no_grad():
            net.log_variance.weight.zero_()
            assert net.log_variance.bias is not None
            net.log_variance.bias.fill_(-200)
        x, labels = torch.rand(2, 3, 8, 10), torch.tensor([0, 1])
        one, other = (net(x, labels, noise(net, 2, seed)) for seed in (0, 1))
        assert torch.equal(one.reconstruction, other.reconstruction)
        assert torch.equal(one.perturbation, other.perturbation)


class TestLoss:
    def parts(self, mean: float = 0.0, log_variance: float = 0.0) -> Parts:
        latents = torch.full((2, 3, 4, 5), mean), torch.full((2, 3, 4, 5), log_variance)
        return Parts(torch.full((2, 3, 8, 10), 0.25), torch.full((2, 3, 8, 10), 0.5), *latents)

    def test_rate_of_standard_latents_is_zero(self) -> None:
        assert self.parts().rate() == 0

    def test_rate_is_the_divergence_summed_over_latents(self) -> None:
        g = torch.Generator().manual_seed(0)
        mean, log_variance = torch.randn(2, 2, 3, 4, 5, generator=g)
        given = torch.distributions.Normal(mean, (log_variance / 2).exp())
        divergence = torch.distributions.kl_divergence(given, torch.distributions.Normal(0, 1))
        rate = Parts(mean, mean, mean, log_variance).rate()
        torch.testing.assert_close(rate, divergence.sum(dim=1).mean())

    def test_terms(self) -> None:
        x = torch.full((2, 3, 8, 10), 0.5)
        parts = self.parts(mean=2.0)  # 3 latents of 2 nats each
        errors = 0.25**2 + 0.25**2  # 0.25 and 0.75 against 0.5
        assert loss(parts, x, 0.01, 1.0, None).item() == pytest.approx(errors + 0.06)
        assert loss(parts, x, 0.01, 7.0, None).item() == pytest.approx(errors + 0.07)
        assert loss(parts, x, 0.01, 1.0, 0.002).item() == pytest.approx(errors + 0.06 + 0.25)
        assert loss(parts, x, 0.01, 1.0, 0.3).item() == pytest.approx(errors + 0.06 + 0.3)

    def test_sums_are_cut_to_the_range_of_pixels(self) -> None:
        parts = self.parts()._replace(perturbation=torch.full((2, 3, 8, 10), 7.0))
        assert loss(parts, torch.ones(2, 3, 8, 10), 0.01, 0.0, None).item() == pytest.approx(0.75**2)

    @pytest.mark.parametrize(("rate", "free"), [(5.9, False), (6.1, True)])
    def test_what_is_free_has_no_gradient(self, rate: float, free: bool) -> None:
        parts = self.parts(mean=2.0)
        parts.mean.requires_grad_()
        loss(parts, torch.zeros(2, 3, 8, 10), 0.01, rate, None).backward()
        assert parts.mean.grad is not None
        assert (parts.mean.grad.abs().max() == 0) == free


class TestPurify:
    def test_order_labels_and_input_stay(self, ctx: Context) -> None:
        data = protected()
        before = data.images.copy()
        after = QUICK.purify(data, ctx)
        assert after.labels is data.labels
        assert after.images.shape == data.images.shape
        np.testing.assert_array_equal(data.images, before)

    def test_two_stages(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second stage starts from what the first one leaves, and gives its reconstruction of what it leaves."""
        trained: list[tuple[str, ImageSet, float]] = []

        def untrained(self: Purifier, stage: str, data: ImageSet, rate: float) -> Disentangler:
            trained.append((stage, data, rate))
            return self.network(stage, data).eval()

        monkeypatch.setattr(Purifier, "trained", untrained)
        purifiers: list[Purifier] = []
        run = Purifier.run

        def watched(self: Purifier, data: ImageSet, first_rate: float, rate: float) -> ImageSet:
            purifiers.append(self)
            return run(self, data, first_rate, rate)

        monkeypatch.setattr(Purifier, "run", watched)
        data = protected()
        after = DVAE(first_rate=1.5, rate=2.5, width=3, latent=2).purify(data, ctx)
        [purifier], [_, (_, half, _)] = purifiers, trained
        assert [(stage, rate) for stage, _, rate in trained] == [("first", 1.5), ("second", 2.5)]
        assert trained[0][1] is data
        nets, where = [purifier.network(stage, data).eval() for stage in ("first", "second")], slice(0, 40)
        assert not torch.equal(nets[0].embedding.weight, nets[1].embedding.weight)
        with torch.no_grad():
            x = purifier.images(data.images)
            p = purifier.seen(nets[0], "first", data, x, where).perturbation
            np.testing.assert_array_equal(half.images, levels((x - p).clamp(0, 1)))
            x = purifier.images(half.images)
            rest = (x - purifier.seen(nets[1], "second", half, x, where).perturbation).clamp(0, 1)
            parts = purifier.seen(nets[1], "reconstruct", half, rest, where)
        np.testing.assert_array_equal(after.images, levels(parts.reconstruction))

    @pytest.mark.parametrize(("rate", "weight"), [(0.5, 0.5), (0.99, 0.5), (1.0, 0.01)])
    def test_a_low_limit_is_held_more_strictly(
        self, rate: float, weight: float, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weights: list[float] = []
        original = dvae_network.loss

        def watched(parts: Parts, x: Tensor, weight: float, rate: float, largest: float | None) -> Tensor:
            weights.append(weight)
            return original(parts, x, weight, rate, largest)

        monkeypatch.setattr(dvae_training, "loss", watched)
        DVAE(**{**QUICK.model_dump(), "first_rate": rate, "rate": rate}).purify(protected(), ctx)
        assert set(weights) == {weight}

    def test_samples_are_an_image_s_own(self, ctx: Context) -> None:
        data = protected()
        same = ImageSet(np.repeat(data.images[:1], 4, axis=0), np.zeros(4, np.int64), data.class_names)
        after = QUICK.purify(same, ctx).images
        assert len({image.tobytes() for image in after}) == 4

    def test_seed_decides(self, ctx: Context) -> None:
        data, state = protected(), torch.get_rng_state()
        first = QUICK.purify(data, ctx).images
        np.testing.assert_array_equal(QUICK.purify(data, ctx).images, first)
        assert (QUICK.purify(data, replace(ctx, seed=1)).images != first).any()
        assert torch.equal(torch.get_rng_state(), state)

    def test_nothing_is_left_behind(self, ctx: Context) -> None:
        QUICK.purify(protected(), ctx)
        assert not list((ctx.artifacts / "unfinished").iterdir())

    def test_labels_count_unless_they_are_left_out(self, ctx: Context) -> None:
        data = protected()
        shuffled = ImageSet(data.images, data.labels[np.random.default_rng(0).permutation(40)], data.class_names)
        blind = DVAE(epochs=1, batch=20, width=3, latent=2, labels=False)
        np.testing.assert_array_equal(blind.purify(shuffled, ctx).images, blind.purify(data, ctx).images)
        sighted = DVAE(epochs=1, batch=20, width=3, latent=2)
        assert (sighted.purify(shuffled, ctx).images != sighted.purify(data, ctx).images).any()

    def test_how_many_are_purified_at_once_moves_no_number(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        data = protected()
        found = QUICK.purify(data, ctx).images.astype(int)
        monkeypatch.setattr("ue_bench_countermeasures.dvae.CPU_BATCH", 7)
        other = QUICK.purify(data, ctx).images
        # layers may add in another order: values next to a half may fall to the other side, and are trained on
        assert (other != found).mean() < 0.02
        assert np.abs(other - found).max() <= 2

    @pytest.mark.parametrize(("deadly", "left"), [(2, 16), (5, 13), (14, 5)])
    def test_killed_work_continues(self, deadly: int, left: int, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """8 steps a stage, saved after 3, 6 and 8."""
        data = protected()
        monkeypatch.setattr(dvae_training, "SAVE_EVERY", 3)
        whole = QUICK.purify(data, replace(ctx, artifacts=ctx.artifacts / "whole")).images
        steps: list[int] = []
        step = Purifier.step

        def dying(self: Purifier, *arguments: Any) -> torch.Tensor:
            steps.append(1)
            if len(steps) == deadly:
                raise KeyboardInterrupt
            return step(self, *arguments)

        monkeypatch.setattr(Purifier, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            QUICK.purify(data, ctx)
        np.testing.assert_array_equal(QUICK.purify(data, ctx).images, whole)
        assert len(steps) == deadly + left

    def test_progress(self, ctx: Context) -> None:
        reports: list[tuple[float, str]] = []
        QUICK.purify(protected(), replace(ctx, report=lambda done, total, text: reports.append((done / total, text))))
        texts = [text.split(", loss")[0] for _, text in reports]
        assert list(dict.fromkeys(texts)) == [
            f"d-vae, {stage} {work}" for stage in ("first", "second") for work in ("training", "pass")
        ]
        assert all(0 <= done <= 1 for done, _ in reports)

    def test_fewer_images_than_a_batch(self, ctx: Context) -> None:
        data = protected(3)
        assert DVAE(epochs=1, width=4, latent=3).purify(data, ctx).images.shape == data.images.shape


def test_patterns_of_classes_are_told_from_images(ctx: Context) -> None:
    """What the first stage takes is like the pattern; what the second gives has lost it, and stays near the image."""
    size, count = (16, 16), 240
    clean = pictures(count, size)
    data = labelled(clean + patterns(size)[np.arange(count) % 2])
    purifier = Purifier(
        ctx, ctx.scratch, epochs=6, batch=16, width=6, latent=6, learning_rate=0.01, labels=True, wide=80
    )
    first = purifier.trained("first", data, 1.0)
    half = purifier.changed("first", data, lambda x, where: purifier.without(first, "first", data, x, where))
    pattern = patterns(size)[0] - patterns(size)[1]
    taken = between_classes(data.images.astype(int) - half.images, data)
    assert (taken * pattern).sum() / np.sqrt(np.square(taken).sum() * np.square(pattern).sum()) > 0.5

    after = purifier.run(data, 1.0, 3.0)
    left = [
        (between_classes(images, data) * pattern).sum() / np.square(pattern).sum()
        for images in (data.images, after.images)
    ]
    assert left[0] > 0.95
    assert left[1] < 0.3
    flat, own = after.images.reshape(count, -1).astype(float), clean.reshape(count, -1)
    errors = np.square(flat[:, None] - own).mean(axis=2)
    assert np.sqrt(errors.diagonal().mean()) < 25
    assert np.median((errors < errors.diagonal()[:, None]).mean(axis=1)) < 0.15  # most others are farther away


def between_classes(images: NDArray[Any], data: ImageSet) -> NDArray[np.float64]:
    """Difference of the two classes' mean images, in levels."""
    return np.asarray(images[data.labels == 0].mean(axis=0) - images[data.labels == 1].mean(axis=0))


def test_a_training_that_diverges_purifies_nothing(ctx: Context) -> None:
    with pytest.raises(Diverged, match=r"at step \d of 8: .* of the first stage of d-vae not finite"):
        QUICK.model_copy(update={"learning_rate": 1e30}).purify(protected(), ctx)
