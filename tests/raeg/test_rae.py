"""RAE and RIT: attacks, what they hide, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError as BadParameters

from ue_bench.api import Context, ImageSet, UserError
from ue_bench.store.perturbation import check
from ue_bench_raeg import rae, rae_attacks, rae_code, rdh, rit
from ue_bench_raeg.rae import RaeCw, RaeIgsm, Reversible, RitIgsm

from .helpers import smooth_images, thresholds_of, toy_classifier

Pixels = NDArray[np.uint8]


def gentle_set(count: int = 12, size: tuple[int, int] = (32, 36)) -> ImageSet:
    """Gradients with hardly any noise, which leaves room; every class has a colour."""
    images, labels = smooth_images(count, size, 3) * 0.4 + 60, np.arange(count) % 3
    images[np.arange(count), ..., labels] += 35
    noise = np.random.default_rng(0).integers(-1, 2, images.shape)
    return ImageSet((images + noise).astype(np.uint8), labels, ("red", "green", "blue"))


@pytest.fixture
def data() -> ImageSet:
    return gentle_set()


@pytest.fixture(scope="module")
def fitted() -> Any:
    """A frozen classifier that is right about the images."""
    net, images = toy_classifier(), gentle_set()
    x, y = unit(images.images), torch.tensor(images.labels)
    *_, last = net.children()
    assert isinstance(last, torch.nn.Linear)
    last.weight.requires_grad_()
    optimizer = torch.optim.Adam([last.weight], 0.05)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert wrong(net, images.images, images.labels) == 0
    return net.requires_grad_(False)


@pytest.fixture
def toy(fitted: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """That classifier in place of a trained surrogate."""
    monkeypatch.setattr(Context, "surrogate", lambda self, data, victim, **recipe: fitted)
    return fitted


def unit(images: Pixels) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


def wrong(net: Any, images: Pixels, labels: NDArray[np.int64]) -> int:
    return int((net(unit(images)).argmax(1) != torch.tensor(labels)).sum())


def adversarial(image: Pixels, eps: int, seed: int = 0) -> Pixels:
    signs = np.random.default_rng(seed).integers(0, 2, image.shape) * 2 - 1
    return np.clip(image.astype(int) + eps * signs, 0, 255).astype(np.uint8)


def distance(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(1e-12, np.square(a.astype(float) - b).mean())))


class TestAttacks:
    def test_igsm_stays_in_its_ball_and_misleads(self, toy: Any, data: ImageSet) -> None:
        x, y = unit(data.images), torch.tensor(data.labels)
        found = rae_attacks.igsm(toy, x, y, 8 / 255, 1 / 255, 10)
        assert float((found - x).abs().max()) <= 8 / 255 + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
        before = torch.nn.functional.cross_entropy(toy(x), y)
        assert float(torch.nn.functional.cross_entropy(toy(found), y)) > float(before) + 0.5

    @pytest.mark.parametrize(
        ("eps", "steps"), [("8/255", 10), ("2/255", 2), ("16/255", 20), ("1/255", 1), ("32/255", 36)]
    )
    def test_igsm_takes_as_many_steps_as_kurakin_says(self, eps: str, steps: int) -> None:
        assert RaeIgsm(eps=eps).steps == steps
        assert RaeIgsm(eps=eps, iterations=3).steps == 3

    def test_cw_succeeds_after_rounding_and_is_nearer(self, toy: Any, data: ImageSet) -> None:
        x, y = unit(data.images), torch.tensor(data.labels)
        found = rae_attacks.cw(toy, x, y, 0.0, 0.01, 50, 3, 0.1)
        assert torch.equal((found * 255).round() / 255, found)
        assert wrong(toy, (found * 255).round().byte().permute(0, 2, 3, 1).numpy(), data.labels) == 12
        signed = rae_attacks.igsm(toy, x, y, 16 / 255, 1 / 255, 20)
        assert wrong(toy, (signed * 255).round().byte().permute(0, 2, 3, 1).numpy(), data.labels) > 0
        assert float((found - x).norm()) < float((signed - x).norm())

    def test_cw_searches_for_a_smaller_weight(self, toy: Any, data: ImageSet) -> None:
        x, y = unit(data.images), torch.tensor(data.labels)
        once = rae_attacks.cw(toy, x, y, 0.0, 0.01, 40, 1, 10.0)
        often = rae_attacks.cw(toy, x, y, 0.0, 0.01, 40, 3, 10.0)
        assert float((often - x).norm()) < float((once - x).norm())

    def test_cw_keeps_the_nearest_success(self, toy: Any, data: ImageSet) -> None:
        """At a rate at which it overshoots, more iterations of the same search never lose what was found."""
        x, y = unit(data.images), torch.tensor(data.labels)
        found = [rae_attacks.cw(toy, x, y, 0.0, 0.3, n, 1, 100.0) for n in range(5, 41, 5)]
        away = torch.stack([(f - x).square().flatten(1).sum(1) for f in found])
        assert (away.diff(dim=0) <= 0).all()

    def test_cw_wins_by_kappa(self, toy: Any, data: ImageSet) -> None:
        x, y = unit(data.images), torch.tensor(data.labels)
        logits = toy(rae_attacks.cw(toy, x, y, 0.5, 0.01, 50, 3, 1.0))
        own = torch.nn.functional.one_hot(y, 3).bool()
        assert float((logits.masked_fill(own, -torch.inf).amax(1) - logits[own]).min()) >= 0.5

    @pytest.mark.parametrize("attack", [RaeIgsm(), RaeCw(preset="micro", iterations=10)])
    def test_an_image_does_not_depend_on_its_batch(self, attack: Reversible, toy: Any, data: ImageSet) -> None:
        x, y = unit(data.images), torch.tensor(data.labels)
        together = attack.attack(toy, x, y)
        alone = attack.attack(toy, x[4:5], y[4:5])
        # Sums of another batch may round otherwise, and turn the sign of a gradient that is hardly there.
        assert float(((together[4:5] - alone).abs() > 1e-6).float().mean()) < 0.01


class TestWhatRaeHides:
    @pytest.mark.parametrize("scale", rae_code.SCALES)
    @pytest.mark.parametrize("size", [(24, 28), (17, 5)])
    def test_is_the_mean_of_blocks(self, scale: int, size: tuple[int, int]) -> None:
        difference = np.random.default_rng(0).integers(-8, 9, (*size, 3)).astype(np.int16)
        means = rae_code.pooled(difference, scale)
        by_hand = [
            [np.rint(difference[r : r + scale, c : c + scale].mean(axis=(0, 1))) for c in range(0, size[1], scale)]
            for r in range(0, size[0], scale)
        ]
        assert np.array_equal(means, np.array(by_hand))
        large = rae_code.enlarged(means, scale, size)
        assert large.shape == difference.shape
        assert (large[:scale, :scale] == means[0, 0]).all()
        assert np.array_equal(large[-1, -1], means[-1, -1])

    @pytest.mark.parametrize("scale", rae_code.SCALES)
    def test_comes_back_within_the_error_of_the_means(self, scale: int) -> None:
        clean = smooth_images(1, (24, 28))[0]
        moved = adversarial(clean, 8)
        difference = moved.astype(np.int16) - clean
        size, symbols = rae_code.pack(difference, scale)
        hidden = rae_code.packed(symbols, scale)
        assert abs(len(hidden) - size) < 40
        found = rae_code.restored(moved, hidden)
        error = np.abs(found.astype(int) - clean)
        bound = np.abs(difference - rae_code.enlarged(rae_code.pooled(difference, scale), scale, (24, 28)))
        assert (error <= bound).all()
        assert bool(error.any()) == (scale > 1)

    def test_other_messages_are_refused(self) -> None:
        image = smooth_images(1)[0]
        for hidden in (b"", b"A", b"something else", rit.camouflage(image, adversarial(image, 8), rit.Settings())[1]):
            with pytest.raises(UserError, match="something else is hidden"):
                rae_code.restored(image, hidden)
        for hidden in (b"", b"T", rae_code.packed(np.arange(300), 4), bytes(60)):
            with pytest.raises(UserError, match="something else is hidden"):
                rit.restored(image, hidden)


class TestRae:
    def photo(self) -> Pixels:
        """A gradient with a little noise, which leaves room."""
        noise = np.random.default_rng(0).integers(-2, 3, (64, 64, 3))
        found: Pixels = np.clip(smooth_images(1, (64, 64))[0] * 0.6 + 40 + noise, 0, 255).astype(np.uint8)
        return found

    def test_restores_exactly_without_blocks(self) -> None:
        clean = self.photo()
        protector = RaeIgsm(eps="1/255", passes=2, scale=1)
        marked = protector.hidden(clean, adversarial(clean, 1))
        assert 25 < distance(marked, clean) < 45
        assert np.array_equal(protector.undone(*rdh.extract(marked)), clean)

    def test_takes_the_smallest_blocks_that_fit(self) -> None:
        clean = self.photo()
        scales = []
        for eps, passes in ((1, 2), (1, 1), (8, 1)):
            marked = RaeIgsm(passes=passes).hidden(clean, adversarial(clean, eps))
            image, hidden = rdh.extract(marked)
            assert np.array_equal(image, adversarial(clean, eps))
            scales.append(rae_code.HEAD.unpack_from(hidden)[1])
        assert scales[0] == 1
        assert scales[1] == 2
        assert scales[2] >= 2
        with pytest.raises(rdh.NoRoom):
            RaeIgsm(scale=1).hidden(clean, adversarial(clean, 8))

    def test_larger_blocks_distort_less_and_restore_less(self) -> None:
        clean = self.photo()
        moved = adversarial(clean, 8)
        marked = [RaeIgsm(scale=s).hidden(clean, moved) for s in (2, 4, 8)]
        assert distance(marked[0], moved) < distance(marked[1], moved) < distance(marked[2], moved)

    def test_a_limit_of_the_threshold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clean = self.photo()
        moved = adversarial(clean, 8)
        few, many = (RaeIgsm(max_threshold=t).hidden(clean, moved) for t in (4, 64))
        assert distance(few, moved) > distance(many, moved)
        assert max(thresholds_of(few)) <= 4 < max(thresholds_of(many))
        monkeypatch.setattr(rdh, "room", lambda *_: 10**6)  # it is a guess; what is hidden keeps to the limit
        with pytest.raises(rdh.NoRoom):
            RaeIgsm(scale=2, max_threshold=1).hidden(clean, moved)


class TestRit:
    @pytest.mark.parametrize("size", [(24, 28), (27, 21), (64, 64)])
    @pytest.mark.parametrize("block", [1, 2, 4, 8])
    def test_camouflage_is_undone_exactly(self, size: tuple[int, int], block: int) -> None:
        rng = np.random.default_rng(block)
        clean = np.clip(smooth_images(1, size)[0] + rng.integers(-20, 21, (*size, 3)), 0, 255).astype(np.uint8)
        moved = adversarial(clean, 8)
        found, hidden = rit.camouflage(clean, moved, rit.Settings(block))
        assert np.array_equal(rit.restored(found, hidden), clean)
        if block < 8:  # six large blocks, each a class of its own, stay where they are
            assert not np.array_equal(found, clean)

    @pytest.mark.parametrize("level", [0, 255, 100])
    def test_flat_images(self, level: int) -> None:
        clean = np.full((16, 16, 3), level, np.uint8)
        found, hidden = rit.camouflage(clean, adversarial(clean, 8), rit.Settings())
        assert np.array_equal(rit.restored(found, hidden), clean)

    def test_every_block_has_one_place(self) -> None:
        rng = np.random.default_rng(0)
        tags = rng.integers(0, 6, 200)
        places = rng.permutation(tags)
        source = rit._source(tags, places)
        assert sorted(source.tolist()) == list(range(200))
        assert np.array_equal(tags[source], places)
        for label in range(6):  # in raster order within a class
            assert (np.diff(source[places == label]) > 0).all()

    def test_classes_do_not_depend_on_shifts_and_turns(self) -> None:
        blocks = rit.blocks_of(np.random.default_rng(0).integers(0, 100, (32, 32, 3), dtype=np.uint8), 4)
        turns = np.random.default_rng(1).integers(0, 4, (64, 3))
        assert np.array_equal(rit.spread(rit.turned(blocks, turns) + 77), rit.spread(blocks))
        assert np.array_equal(rit.turned(rit.turned(blocks, turns), -turns % 4), blocks)
        assert np.array_equal(rit.turned(blocks, np.full((64, 3), 1)), np.rot90(blocks, 1, axes=(1, 2)))

    def test_small_perturbations_with_blocks_of_one_pixel_are_lost(self) -> None:
        """Specification, 7.6: under half the quantum every shift is zero."""
        clean = np.random.default_rng(0).integers(8, 248, (16, 16, 3), dtype=np.uint8)
        one_class = rit.Settings(block=1, classes=1)
        assert np.array_equal(rit.camouflage(clean, adversarial(clean, 3), one_class)[0], clean)
        assert not np.array_equal(rit.camouflage(clean, adversarial(clean, 8), one_class)[0], clean)

    def test_numbers_of_the_specification(self, photos: Pixels) -> None:
        """Section 7.6, on other photographs of a fourth of the size: 0.33 bits a value and 23 to 25 dB for b = 4."""
        rates, distances = {}, {}
        for block in (2, 4):
            made = [rit.camouflage(p, adversarial(p, 8), rit.Settings(block)) for p in photos[:10]]
            rates[block] = np.mean([8 * len(hidden) / photos[0].size for _, hidden in made])
            distances[block] = np.mean([distance(image, p) for (image, _), p in zip(made, photos, strict=False)])
        assert 0.25 < rates[4] < 0.55
        assert 1.1 < rates[2] < 1.8
        assert 18 < distances[4] < distances[2] < 30

    def test_shifts_never_overflow(self) -> None:
        clean = np.random.default_rng(0).integers(0, 2, (16, 16, 3), dtype=np.uint8) * 255
        target = 255 - clean
        found, hidden = rit.camouflage(clean, target, rit.Settings(block=2, quantum=1))
        assert np.array_equal(rit.restored(found, hidden), clean)

    def test_smaller_than_a_block(self) -> None:
        with pytest.raises(rdh.NoRoom):
            RitIgsm(block=32).hidden(smooth_images(1, (24, 28))[0], smooth_images(1, (24, 28))[0])


@pytest.mark.parametrize(
    "protector",
    [
        RaeIgsm(preset="micro"),
        RaeIgsm(preset="micro", eps="1/255", passes=3),
        RaeCw(preset="micro", first_weight=1.0, iterations=15, searches=2),
        RitIgsm(preset="micro"),
    ],
    ids=lambda p: p.selector,
)
class TestProtectors:
    def test_protect_and_recover(self, protector: Reversible, toy: Any, data: ImageSet, ctx: Context) -> None:
        protected = protector.protect(data, ctx)
        check(protector, data, protected)
        assert not np.array_equal(protected.images, data.images)
        recovered = protector.recover(protected.images, ctx)
        near = [distance(a, b) for a, b in zip(recovered, data.images, strict=True)]
        before = [distance(a, b) for a, b in zip(protected.images, data.images, strict=True)]
        assert np.mean(near) > np.mean(before) + 3
        if isinstance(protector, RitIgsm) or getattr(protector, "passes", 1) == 3:
            assert np.array_equal(recovered, data.images)
        assert np.array_equal(protector.recover(protected.images[3:4], ctx), recovered[3:4])
        with pytest.raises(UserError, match="nothing is hidden"):
            protector.recover(data.images, ctx)

    def test_a_killed_run_continues(
        self, protector: Reversible, toy: Any, data: ImageSet, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rae, "CPU_BATCH", 5)
        whole = protector.protect(data, ctx).fingerprint
        attack, seen = type(protector).attack, []

        def counted(self: Any, network: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            if len(seen) == 3:
                raise KeyboardInterrupt
            return attack(self, network, x, y)

        monkeypatch.setattr(type(protector), "attack", counted)
        with pytest.raises(KeyboardInterrupt):
            protector.protect(data, ctx)
        assert protector.protect(data, ctx).fingerprint == whole
        assert seen == [5, 5, 2, 2]
        assert not list((ctx.artifacts / "unfinished").iterdir())


def test_where_it_does_not_fit_the_example_alone_is_left(toy: Any, data: ImageSet, ctx: Context) -> None:
    protector = RaeIgsm(preset="micro", scale=1)
    protected = protector.protect(data, ctx)
    x, y = unit(data.images), torch.tensor(data.labels)
    assert np.array_equal(protected.images, (protector.attack(toy, x, y) * 255).round().permute(0, 2, 3, 1).numpy())
    with pytest.raises(UserError, match="nothing is hidden"):
        protector.recover(protected.images, ctx)


def test_a_trained_surrogate_is_misled(ctx: Context, one_thread: None) -> None:
    """The real way: a small net trained by the harness, which then errs on the protected images."""
    data = gentle_set(192, (16, 16))
    protector = RaeIgsm(preset="micro", surrogate_epochs=20)
    protected = protector.protect(data, ctx)
    net = ctx.surrogate(data, protector.setting("surrogate"), **protector.recipe())
    assert wrong(net, data.images, data.labels) < 10
    assert wrong(net, protected.images, data.labels) > 40


def test_none_of_no_images(ctx: Context) -> None:
    assert RaeIgsm().recover(np.zeros((0, 8, 8, 3), np.uint8), ctx).shape == (0, 8, 8, 3)


def test_cost_is_told() -> None:
    cost = RaeCw(preset="micro").cost(1000)
    assert cost.victim == "resnet9[blocks=1]"
    assert cost.passes == pytest.approx(8 + 3 * 40 * (2 / 3 + 1 / 15))
    assert RaeIgsm().cost(1000).passes == pytest.approx(60 + 10 * 2 / 3)
    assert RitIgsm(surrogate_epochs=5, iterations=3).cost(1000).passes == 7
    assert RaeIgsm().one_size
    assert RaeIgsm.recovers()


@pytest.mark.parametrize("parameters", [{"eps": 0}, {"passes": 5}, {"scale": 3}, {"max_threshold": 65}, {"block": 4}])
def test_wrong_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(BadParameters):
        RaeIgsm(**parameters)
