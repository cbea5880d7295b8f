"""SimCLR: its views against torchvision, its loss against plain loops, and that it learns something worth having."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ue_bench.api import Context, Diverged, NetworkCost, UserError
from ue_bench.contract.imageset import ImageSet
from ue_bench.grid.surrogates import surrogate
from ue_bench.seeds import derive
from ue_bench_victims import contrastive, views
from ue_bench_victims.contrastive import nt_xent, rate, train_encoder
from ue_bench_victims.heads import without_classifier
from ue_bench_victims.layers import resnet9

from .helpers import victim


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestLoss:
    def reference(self, first: Tensor, second: Tensor, temperature: float) -> float:
        """Equation 1 and algorithm 1 of the paper, number by number."""
        rows = [[float(v) for v in row] for row in (*first, *second)]
        n = len(first)

        def similarity(a: list[float], b: list[float]) -> float:
            inner = sum(p * q for p, q in zip(a, b, strict=True))
            return inner / math.sqrt(sum(p * p for p in a)) / math.sqrt(sum(q * q for q in b))

        total = 0.0
        for i in range(2 * n):
            j = (i + n) % (2 * n)
            others = sum(math.exp(similarity(rows[i], rows[k]) / temperature) for k in range(2 * n) if k != i)
            total -= math.log(math.exp(similarity(rows[i], rows[j]) / temperature) / others)
        return total / (2 * n)

    @pytest.mark.parametrize(("n", "width", "temperature"), [(1, 3, 0.5), (2, 2, 0.5), (7, 5, 0.5), (6, 9, 0.1)])
    def test_is_that_of_plain_loops(self, n: int, width: int, temperature: float) -> None:
        first, second = (torch.randn(n, width, generator=generator(seed), dtype=torch.float64) for seed in (0, 1))
        expected = self.reference(first, second, temperature)
        assert nt_xent(first, second, temperature).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)

    def test_views_that_agree_and_nothing_else_does_are_best(self) -> None:
        apart = torch.eye(4)
        assert nt_xent(apart, apart, 0.05) < 1e-6 < nt_xent(apart, apart.roll(1, 0), 0.05)

    def test_bfloat16_is_compared_in_float32(self) -> None:
        first, second = torch.randn(2, 6, 8, generator=generator()).bfloat16()
        assert nt_xent(first, second, 0.5) == nt_xent(first.float(), second.float(), 0.5)


class TestViews:
    x = torch.rand(8, 3, 12, 12, generator=generator())

    @pytest.mark.parametrize(
        ("operation", "name", "amount"),
        [
            (views.brightness, "adjust_brightness", 1 + 0.4 * torch.linspace(-1, 1, 8)),
            (views.contrast, "adjust_contrast", 1 + 0.4 * torch.linspace(-1, 1, 8)),
            (views.saturation, "adjust_saturation", 1 + 0.4 * torch.linspace(-1, 1, 8)),
            (views.hue, "adjust_hue", torch.linspace(-0.5, 0.5, 8)),
        ],
        ids=["brightness", "contrast", "saturation", "hue"],
    )
    def test_colours_are_those_of_torchvision(
        self, operation: Callable[[Tensor, Tensor], Tensor], name: str, amount: Tensor, torchvision: Any
    ) -> None:
        from torchvision.transforms.v2 import functional

        x = self.x.clone()
        x[0], x[1], x[2], x[3, 1] = 0.5, 0.0, 1.0, x[3, 0]  # without colour, black, white, two channels alike
        expected = [getattr(functional, name)(image, float(a)) for image, a in zip(x, amount, strict=True)]
        # torchvision's weights of luma for tensors add up to 0.9999
        assert torch.allclose(operation(x, amount), torch.stack(expected), atol=2e-4)

    def test_gray_is_luma(self) -> None:
        from PIL import Image

        bytes_ = (self.x * 255).round().to(torch.uint8)
        luma = np.stack([np.asarray(Image.fromarray(i.permute(1, 2, 0).numpy()).convert("L")) for i in bytes_])
        ours = (views.gray(bytes_.float() / 255) * 255).numpy()
        assert np.abs(ours - luma[:, None]).max() < 0.51
        assert (ours[:, 0] == ours[:, 1]).all()

    def test_a_window_of_everything_is_the_image_or_its_mirror(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "exp", lambda v: torch.ones_like(v))  # aspect 1
        seen = views.window(self.x, 1.0, generator())
        kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, self.x, strict=True)]
        turned = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(seen, self.x, strict=True)]
        assert all(a != b for a, b in zip(kept, turned, strict=True))
        assert 0 < sum(turned) < 8

    @pytest.mark.parametrize("least", [0.2, 0.6])
    def test_windows_have_the_areas_and_aspects_asked_for(self, least: float) -> None:
        """Read off ramps: the differences within a window tell how much of the image it shows."""
        rows, columns = (torch.linspace(0, 1, 64).view(shape).expand(64, 64) for shape in ((64, 1), (1, 64)))
        x = torch.stack([rows, columns, torch.zeros(64, 64)])[None].repeat(300, 1, 1, 1)
        seen = views.window(x, least, generator())
        high = (seen[:, 0, 40, 32] - seen[:, 0, 24, 32]) * 63 / 16
        wide = (seen[:, 1, 32, 40] - seen[:, 1, 32, 24]).abs() * 63 / 16
        area, uncut = high * wide, (high < 0.99) & (wide < 0.99)
        assert least - 0.03 < area.min() < least + 0.05
        assert area.max() > 0.95
        assert (wide / high)[uncut].min() > 0.74
        assert (wide / high)[uncut].max() < 1.35
        assert 0.4 < (seen[:, 1, 32, 40] < seen[:, 1, 32, 24]).float().mean() < 0.6  # mirrored

    def test_most_are_jittered_in_some_order(self) -> None:
        x = self.x[:1].repeat(400, 1, 1, 1)
        seen = views.jitter(x, generator())
        same = (seen == x).all((1, 2, 3)) if seen.dim() == 4 else torch.zeros(400)
        assert 0.14 < same.float().mean() < 0.26
        assert seen.min() >= 0
        assert seen.max() <= 1

    def test_operations_come_in_every_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def mark(number: int, x: Tensor, amount: Tensor) -> Tensor:
            return 10 * x + number

        for number, name in enumerate(("brightness", "contrast", "saturation", "hue"), start=1):
            monkeypatch.setattr(views, name, partial(mark, number))
        orders = views.jitter(torch.zeros(600, 1, 1, 1), generator())[:, 0, 0, 0].int().tolist()
        assert len(set(orders) - {0}) == 24
        assert all(sorted(str(order)) == list("1234") for order in orders if order)

    def test_a_fifth_loses_its_colour(self) -> None:
        x = torch.rand(1, 3, 8, 8, generator=generator()).repeat(500, 1, 1, 1)
        seen = views.view(x, 0.2, generator())
        assert seen.shape == x.shape
        colourless = (seen[:, 0] - seen[:, 1]).abs().amax((1, 2)) < 1e-6
        assert 0.15 < colourless.float().mean() < 0.25

    def test_views_follow_the_generator(self) -> None:
        first, same, other = (views.view(self.x, 0.2, generator(seed)) for seed in (0, 0, 1))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)


def test_rate_falls_by_half_a_cosine_to_a_thousandth() -> None:
    assert rate(0, 100, 0.5) == 0.5
    assert rate(50, 100, 0.5) == pytest.approx(0.5 * 1.001 / 2)
    assert rate(100, 100, 0.5) == pytest.approx(0.0005)


def noise(count: int = 24, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 2, ("a", "b"))


def context(folder: Path, seed: int = 1, **given: Any) -> Context:
    return Context("cpu", seed, folder, folder, folder, **given)


def tiny() -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()), 36


def bits(state: dict[str, Tensor]) -> list[bytes]:
    return [v.numpy().tobytes() for v in state.values()]


class TestTraining:
    settings: dict[str, Any] = {"batch": 8, "learning_rate": 0.1, "temperature": 0.5, "area": 0.2}  # noqa: RUF012

    def test_labels_play_no_part(self, tmp_path: Path) -> None:
        data = noise()
        other = ImageSet(data.images, 1 - data.labels, data.class_names)
        first, second = (
            train_encoder(tiny, found, 2, **self.settings, ctx=context(tmp_path)) for found in (data, other)
        )
        assert bits(first.state_dict()) == bits(second.state_dict())

    def test_belongs_to_the_seed_and_leaves_the_global_generator_alone(self, tmp_path: Path) -> None:
        torch.manual_seed(5)
        before = torch.get_rng_state()
        first = train_encoder(tiny, noise(), 1, **self.settings, ctx=context(tmp_path))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(6)
        same = train_encoder(tiny, noise(), 1, **self.settings, ctx=context(tmp_path))
        other = train_encoder(tiny, noise(), 1, **self.settings, ctx=context(tmp_path, seed=2))
        assert bits(first.state_dict()) == bits(same.state_dict()) != bits(other.state_dict())

    def test_every_epoch_takes_every_image_once_in_a_new_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = np.arange(24, dtype=np.uint8).repeat(192).reshape(24, 8, 8, 3)
        taken: list[int] = []

        def look(x: Tensor, area: float, generator: torch.Generator) -> Tensor:
            assert area == 0.2
            taken.extend((x[:, 0, 0, 0] * 255).round().int().tolist())
            return x + torch.rand(x.shape, generator=generator)

        monkeypatch.setattr(contrastive, "view", look)
        train_encoder(
            tiny, ImageSet(images, np.zeros(24, dtype=np.int64), ("a",)), 2, **self.settings, ctx=context(tmp_path)
        )
        batches = [taken[i : i + 8] for i in range(0, len(taken), 8)]
        assert batches[::2] == batches[1::2]  # two views of the same images
        epochs = sum(batches[0:6:2], []), sum(batches[6::2], [])  # noqa: RUF017
        assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
        assert epochs[0] != epochs[1]

    def test_views_of_the_same_image_come_closer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        losses: list[float] = []

        def watch(first: Tensor, second: Tensor, temperature: float) -> Tensor:
            assert first.shape == second.shape == (24, 128)
            found = nt_xent(first, second, temperature)
            losses.append(found.item())
            return found

        monkeypatch.setattr(contrastive, "nt_xent", watch)
        train_encoder(tiny, noise(), 60, **(self.settings | {"batch": 24}), ctx=context(tmp_path))
        assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.2


class TestVictim:
    """With one epoch of noise: what is kept, and what belongs to its key."""

    selector = "simclr[preset=micro,epochs=2,batch=8]"

    def test_its_features_are_those_that_were_learnt(self, tmp_path: Path) -> None:
        found = victim(self.selector)
        network: Any = found.build(2, (8, 8))
        learnt = found.pretrain(noise(), context(tmp_path))
        assert network.load_state_dict(learnt, strict=False).unexpected_keys == []
        assert {name.partition(".")[0] for name in learnt} == {"features"}
        assert learnt.keys() == {k for k in network.state_dict() if k.startswith("features.")}
        assert not (tmp_path / "unfinished").exists() or not any((tmp_path / "unfinished").iterdir())

    def test_is_trained_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = victim(self.selector).pretrain(noise(), context(tmp_path))
        monkeypatch.setattr(contrastive, "train_encoder", None)
        again = victim(self.selector).pretrain(noise(), context(tmp_path))
        assert bits(first) == bits(again)

    @pytest.mark.parametrize(
        ("selector", "data", "given"),
        [
            ("simclr[preset=micro,epochs=3,batch=8]", noise(), {}),
            ("simclr[preset=micro,epochs=2,batch=12]", noise(), {}),
            ("simclr[preset=micro,epochs=2,batch=8,temperature=0.9]", noise(), {}),
            ("simclr[preset=micro,epochs=2,batch=8,area=0.9]", noise(), {}),
            ("simclr[preset=micro,epochs=2,batch=8,learning_rate=0.9]", noise(), {}),
            (selector, noise(seed=1), {}),
            (selector, noise(), {"seed": 2}),
            (selector, noise(), {"precision": "bf16"}),
        ],
    )
    def test_anything_else_is_another_training(
        self, selector: str, data: ImageSet, given: dict[str, Any], tmp_path: Path
    ) -> None:
        first = victim(self.selector).pretrain(noise(), context(tmp_path))
        assert bits(victim(selector).pretrain(data, context(tmp_path, **given))) != bits(first)

    def test_a_killed_training_continues_and_ends_with_the_same_features(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = victim(self.selector).pretrain(noise(), context(tmp_path / "whole"))
        steps: list[int] = []
        real = contrastive.nt_xent

        def dies(first: Tensor, second: Tensor, temperature: float) -> Tensor:
            steps.append(1)
            if len(steps) == 5:  # three steps an epoch
                raise KeyboardInterrupt
            return real(first, second, temperature)

        monkeypatch.setattr(contrastive, "nt_xent", dies)
        with pytest.raises(KeyboardInterrupt):
            victim(self.selector).pretrain(noise(), context(tmp_path / "killed"))
        steps.append(1)
        continued = victim(self.selector).pretrain(noise(), context(tmp_path / "killed"))
        assert len(steps) == 6 + 3
        assert bits(continued) == bits(whole)

    def test_reports_how_far_it_is(self, tmp_path: Path) -> None:
        reports: list[tuple[float, float, str]] = []
        victim(self.selector).pretrain(noise(), context(tmp_path, report=lambda *r: reports.append(r)))
        assert reports[-1] == (6, 6, "train without labels")

    def test_presets_give_what_is_not_given(self) -> None:
        assert victim("simclr").cost(0) == NetworkCost("resnet18", 1000)
        assert victim("simclr[preset=micro]").cost(0) == NetworkCost("resnet9", 80)
        assert victim("simclr[preset=micro,network=resnet18,epochs=3]").cost(0) == NetworkCost("resnet18", 6)

    def test_a_surrogate_refuses_it_in_one_line(self, tmp_path: Path) -> None:
        from ue_bench.catalogue.protocols import protocol

        with pytest.raises(UserError, match="simclr learns something of its own first"):
            surrogate(context(tmp_path), noise(), "simclr", protocol("smoke"), "vanilla")


def accuracy_of_a_probe(encoder: nn.Module, train: ImageSet, test: ImageSet) -> float:
    """Of logistic regression on standardised features, fitted until it moves no more."""

    def features(data: ImageSet) -> Tensor:
        with torch.no_grad():
            parts = [
                encoder.eval()(torch.tensor(data.images[i : i + 500]).permute(0, 3, 1, 2) / 255)
                for i in range(0, len(data), 500)
            ]
        return torch.cat(parts)

    from sklearn.linear_model import LogisticRegression

    x, other = features(train).numpy(), features(test).numpy()
    mean, std = x.mean(0), x.std(0) + 1e-6
    fitted = LogisticRegression(max_iter=300).fit((x - mean) / std, train.labels)
    return 100 * float(fitted.score((other - mean) / std, test.labels))


def test_shapes_are_learnt_without_labels(tmp_path: Path) -> None:
    """On the demo set, where nothing but the shape tells the class, features beat those of the untrained network."""
    from ue_bench.api import open_dataset

    _, train = open_dataset("demo", cache_dir=tmp_path, data_dir=tmp_path)
    _, test = open_dataset("demo", "test", cache_dir=tmp_path, data_dir=tmp_path)

    def encoder() -> tuple[nn.Module, int]:
        return without_classifier(resnet9(10, 8, 1))

    ctx = context(tmp_path)
    torch.manual_seed(derive(ctx.seed, "initial weights"))
    control = accuracy_of_a_probe(encoder()[0], train, test)
    # Of preset=micro, on a smaller network. Six epochs were too few on some processors, whose rounding differs.
    learnt = train_encoder(encoder, train, 10, 64, 0.1, 0.2, 0.5, ctx)
    assert accuracy_of_a_probe(learnt, train, test) > control + 8


def test_an_encoder_that_diverges_is_not_kept(tmp_path: Path) -> None:
    saved: list[dict[str, Any]] = []
    settings = TestTraining.settings | {"learning_rate": 1e30}
    with pytest.raises(Diverged, match=r"at step \d of 6: .* of SimCLR not finite"):
        train_encoder(tiny, noise(), 2, **settings, ctx=context(tmp_path), save=saved.append)
    assert saved == []
