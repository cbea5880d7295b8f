"""Bridges: schedule and sampler against numbers of the release's rules, pairs, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ue_bench.api import Context, Countermeasure, ImageSet, UserError
from ue_bench.catalogue.registry import registry
from ue_bench.contract import clean_data
from ue_bench.testing import check_countermeasure, failures, pictures
from ue_bench_countermeasures.bridge.schedule import LEAST, TOP, levels, on_bridge, passes, sample, scalings, told
from ue_bench_countermeasures.bridgepure import BridgePure, BridgePureLite, Dilution, check_pairs, chosen
from ue_bench_countermeasures.diffusion.process import streams

pytest.importorskip("diffusers", exc_type=ImportError)
pytestmark = pytest.mark.usefixtures("one_thread")

from ue_bench_countermeasures.bridge import training  # noqa: E402  after the check for diffusers
from ue_bench_countermeasures.bridge.training import Bridge, BridgeRecipe, fit  # noqa: E402  after the check for diffusers

# Level: factors on the image kept, on output and input, and weight, computed with the release's formulas.
GOLDEN = [
    (1.0, (0.200006, 0.447221, 0.894511, 4.99984)),
    (40.0, (1.5623e-4, 0.499971, 0.0288656, 4.00047)),
    (0.002, (0.999984, 0.00199998, 1.99998, 250004.0)),
]


@pytest.mark.parametrize(("s", "expected"), GOLDEN)
def test_scalings(s: float, expected: tuple[float, ...]) -> None:
    found = scalings(torch.tensor(s, dtype=torch.float64))
    assert [float(value) for value in found] == pytest.approx(expected, rel=1e-4)


def test_levels() -> None:
    found = levels(40)
    assert len(found) == 41
    assert [found[i] for i in (0, 1, 10, 20, 30)] == pytest.approx(
        [79.9999, 69.4509, 16.7799, 2.24044, 0.131197], rel=1e-5
    )
    assert found[39] == pytest.approx(LEAST)
    assert found[40] == 0


def test_the_bridge_ends_at_both_images_with_noise_between() -> None:
    clean, protected = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    at = [on_bridge(clean, protected, torch.full((2, 1, 1, 1), s), noise) for s in (TOP, 1e-9)]
    assert torch.equal(at[0], protected)
    torch.testing.assert_close(at[1], clean, atol=1e-6, rtol=0)
    deviation = (on_bridge(clean, clean, torch.full((2, 1, 1, 1), 40.0), noise) / noise).mean()
    assert float(deviation) == pytest.approx(34.641, rel=1e-4)
    assert float(told(torch.tensor(40.0))) == pytest.approx(922.22, abs=0.01)


class Oracle:
    """Knows the clean images, and counts how often it is asked."""

    def __init__(self, clean: Tensor) -> None:
        self.clean, self.asked = clean, 0

    def __call__(self, x: Tensor, s: float) -> Tensor:
        self.asked += 1
        return self.clean


@pytest.mark.parametrize("count", [4, 8, 40])
@pytest.mark.parametrize("churn", [0.0, 0.33, 0.8])
def test_an_oracle_leads_to_the_clean_image(count: int, churn: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, protected = (torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    oracle = Oracle(clean)
    found = sample(oracle, protected, count, churn, 0.5, streams(0, slice(0, 2)))
    assert float((found - clean).abs().max()) <= 1e-8
    assert oracle.asked == passes(count, churn)


@pytest.mark.parametrize(
    ("count", "churn", "expected"), [(8, 0, 15), (40, 0, 79), (4, 0.3, 11), (8, 1, 23), (40, 0.33, 119)]
)
def test_passes(count: int, churn: float, expected: int) -> None:
    assert passes(count, churn) == expected


def test_the_networks_have_their_published_size() -> None:
    with torch.device("meta"):
        of_paper = Bridge(BridgePure().recipe(32, 0))
        small = Bridge(BridgePureLite().recipe(32, 0))
    assert sum(p.numel() for p in of_paper.parameters()) == 279_629_379
    assert "279,629,379" in (BridgePure.__doc__ or "")
    assert f"{sum(p.numel() for p in small.parameters()):,}" in (BridgePureLite.__doc__ or "")


def wave(count: int, size: int = 8, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    grid = np.arange(size)
    phase = rng.uniform(0, 6, (count, 1, 1, 3))
    images = 127 + 90 * np.sin(grid[:, None, None] * 0.5 + phase) * np.cos(grid[None, :, None] * 0.4)
    return ImageSet(images.astype(np.uint8), np.arange(count) % 3, ("a", "b", "c"))


def protected(data: ImageSet, strength: int = 12) -> ImageSet:
    """A pattern a class."""
    patterns = np.random.default_rng(5).choice([-strength, strength], (3, *data.size, 3))
    images = (data.images.astype(int) + patterns[data.labels]).clip(0, 255).astype(np.uint8)
    return data.with_images(images)


def with_pairs(ctx: Context, clean: ImageSet, count: int, shift: int = 0) -> Context:
    rows = clean_data.draw(clean.labels, count, 3)
    moved = (rows + shift) % len(clean)
    return replace(ctx, clean=ImageSet(clean.images[rows], clean.labels[rows], clean.class_names), rows=moved)


class TestPairs:
    def test_are_clean_and_protected_versions_of_the_same(self, ctx: Context) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        second = chosen(protected(clean), given.clean_rows, given)
        check_pairs(given.clean_data, second)
        assert np.array_equal(protected(given.clean_data).images, second.images)

    def test_rows_of_other_classes_are_refused(self, ctx: Context) -> None:
        clean = wave(30)
        with pytest.raises(UserError, match="labels differ") as caught:
            BridgePureLite(clean=10).purify(protected(clean), with_pairs(ctx, clean, 10, shift=1))
        assert "\n" not in str(caught.value)

    def test_rows_of_other_images_are_refused(self, ctx: Context) -> None:
        clean = wave(30)
        with pytest.raises(UserError, match="they differ by"):
            BridgePureLite(clean=10).purify(protected(clean), with_pairs(ctx, clean, 10, shift=3))

    def test_two_who_go_by_rows_are_not_combined(self) -> None:
        with pytest.raises(UserError, match="both go by rows"):
            registry().resolve("countermeasure", "dilution+bridgepure-lite")
        [chain] = registry().resolve("countermeasure", "gray+bridgepure-lite[clean=7]")
        assert getattr(chain, "needs_pairs", False)

    def test_rows_are_for_those_who_say_so(self, ctx: Context) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        fewer = clean_data.with_clean_data(given, Dilution(clean=4))
        assert fewer.clean_rows.tolist() == given.clean_rows[:4].tolist()
        assert len(fewer.clean_data) == 4
        [stopping] = registry().resolve("countermeasure", "early-stopping[clean=10]")
        other: Any = clean_data.with_clean_data(given, stopping)  # type: ignore[arg-type]  # a Countermeasure, which resolve() gives as a Plugin
        with pytest.raises(RuntimeError, match="needs_pairs"):
            _ = other.clean_rows


class TestQueries:
    """The adversary has images of its own protected: what it learns from is not in the set."""

    METHOD = BridgePureLite(clean=10, steps=1, pairs="queried")

    def test_it_learns_from_the_answers(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        answers = protected(given.clean_data, strength=9)
        learned: list[ImageSet] = []
        known = training.fitted

        def watched(before: ImageSet, after: ImageSet, *rest: Any) -> Bridge:
            learned.extend((before, after))
            return known(before, after, *rest)

        monkeypatch.setattr(training, "fitted", watched)
        purified = self.METHOD.purify(protected(clean), replace(given, queried=answers))
        assert np.array_equal(learned[0].images, given.clean_data.images)
        assert np.array_equal(learned[1].images, answers.images)
        rest = np.setdiff1d(np.arange(30), given.clean_rows)
        assert purified.labels.tolist() == clean.labels[rest].tolist()

    def test_noise_is_drawn_anew_for_the_answers(self, ctx: Context) -> None:
        noisy = BridgePure(clean=4, beta=0.02)
        clean = wave(4)
        one, other = noisy.noisy(clean, ctx), noisy.noisy(clean, ctx, "queried")
        assert not np.array_equal(one.images, other.images)

    def test_answers_of_others_are_refused(self, ctx: Context) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        other = protected(wave(10, seed=4))
        answers = ImageSet(other.images, given.clean_data.labels, clean.class_names)
        with pytest.raises(UserError, match="they differ by"):
            self.METHOD.purify(protected(clean), replace(given, queried=answers))

    def test_who_has_not_asked_has_none(self, ctx: Context) -> None:
        with pytest.raises(RuntimeError, match="with queries that it asks"):
            _ = with_pairs(ctx, wave(30), 10).queried_data

    @pytest.mark.parametrize("leaked", ["purify", "clean"])
    def test_such_images_are_not_in_the_set(self, leaked: str) -> None:
        with pytest.raises(UserError, match="leaked=drop goes with them"):
            registry().resolve("countermeasure", f"bridgepure-lite[pairs=queried,leaked={leaked}]")

    def test_parts_have_what_they_ask_for(self, ctx: Context) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        given = replace(given, queried=protected(given.clean_data))
        assert len(clean_data.with_clean_data(given, BridgePureLite(clean=4, pairs="queried")).queried_data) == 4
        assert clean_data.with_clean_data(given, BridgePureLite(clean=4)).queried is None
        [chain] = registry().resolve("countermeasure", "cutout+bridgepure-lite[pairs=queried]")
        assert getattr(chain, "queries", False)

    def test_the_set_is_not_changed_before(self) -> None:
        """What it is answered would be of other images."""
        with pytest.raises(UserError, match="gray changes the set"):
            registry().resolve("countermeasure", "gray+bridgepure-lite[pairs=queried]")
        assert registry().resolve("countermeasure", "cutout+bridgepure-lite[pairs=queried]+gray")


class TestLeakedRows:
    def test_are_left_out_by_default(self, ctx: Context) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        purified = BridgePureLite(clean=10, steps=1).purify(protected(clean), given)
        rest = np.setdiff1d(np.arange(30), given.clean_rows)
        assert len(purified) == 20
        assert purified.labels.tolist() == clean.labels[rest].tolist()
        assert not set(rest) & set(given.clean_rows)

    def test_may_be_purified_or_clean(self, ctx: Context) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        out = {
            leaked: BridgePureLite(clean=10, steps=1, leaked=leaked).purify(protected(clean), given)
            for leaked in ("purify", "clean")
        }
        assert [len(data) for data in out.values()] == [30, 30]
        rows = given.clean_rows
        assert np.array_equal(out["clean"].images[rows], clean.images[rows])
        assert not np.array_equal(out["purify"].images[rows], clean.images[rows])
        assert all(np.array_equal(data.labels, clean.labels) for data in out.values())

    def test_dilution_changes_them_alone(self, ctx: Context) -> None:
        clean = wave(30)
        given = with_pairs(ctx, clean, 10)
        diluted = Dilution(clean=10).purify(protected(clean), given)
        rows = given.clean_rows
        rest = np.setdiff1d(np.arange(30), rows)
        assert np.array_equal(diluted.images[rows], clean.images[rows])
        assert np.array_equal(diluted.images[rest], protected(clean).images[rest])


def test_what_is_learned_takes_out_the_pattern(ctx: Context) -> None:
    """In part, after so short a training, and on images that it was not fitted to."""
    clean = wave(120, 16)
    data = protected(clean)
    given = with_pairs(ctx, clean, 60)
    purified = BridgePureLite(clean=60, steps=100, batch=16).purify(data, given)
    rest = np.setdiff1d(np.arange(120), given.clean_rows)
    x, worse, better = (s.astype(float) for s in (clean.images[rest], data.images[rest], purified.images))
    change = worse - x
    remaining = ((better - x) * change).sum() / (change**2).sum()
    assert remaining < 0.9
    assert ((better - x) ** 2).mean() < 0.95 * (change**2).mean()


RECIPE = BridgeRecipe(8, (32, 64), 1, (), dropout=0.1, steps=4, batch=4, learning_rate=1e-3, ema=0.5)


class TestTraining:
    def test_goes_on_after_a_kill(self, ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clean = wave(10)
        monkeypatch.setattr(training, "SAVE_EVERY", 2)
        whole = fit(clean, protected(clean), RECIPE, ctx, tmp_path / "a")
        step, taken = training.step, []

        def killed(*given: Any) -> Tensor:
            taken.append(given[-1])
            if len(taken) == 4:
                raise KeyboardInterrupt
            return step(*given)

        monkeypatch.setattr(training, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(clean, protected(clean), RECIPE, ctx, tmp_path / "b")
        resumed = fit(clean, protected(clean), RECIPE, ctx, tmp_path / "b")
        assert taken == [0, 1, 2, 3, 2, 3]
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    def test_levels_are_uniform_and_errors_weighted(self) -> None:
        """A network that says nothing has the loss of the image kept alone."""
        bridge = Bridge(RECIPE)
        for parameter in bridge.network.conv_out.parameters():
            torch.nn.init.zeros_(parameter)
        clean = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
        found = training.loss(bridge, clean, clean, torch.Generator().manual_seed(1))
        random = torch.Generator().manual_seed(1)
        s = LEAST + (TOP - LEAST) * torch.rand(64, 1, 1, 1, generator=random)
        assert 0.3 < float((s < TOP / 2).float().mean()) < 0.7
        noisy = on_bridge(clean, clean, s, torch.randn(clean.shape, generator=random))
        keep, _, _, weight = scalings(s)
        torch.testing.assert_close(found, (weight * (keep * noisy - clean).square()).mean())

    def test_no_pairs_are_refused(self, ctx: Context, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="are no pairs"):
            fit(wave(4), wave(5), RECIPE, ctx, tmp_path / "a")


class TestBridgePure:
    def test_a_small_one_runs_whole(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[float] = []
        known = Bridge.denoise

        def watched(self: Bridge, worse: Tensor, x: Tensor, s: float) -> Tensor:
            asked.append(s)
            return known(self, worse, x, s)

        monkeypatch.setattr(Bridge, "denoise", watched)
        clean = wave(12)
        method = BridgePure(clean=6, channels=32, steps=2, batch=2, levels=3, churn=0.5, beta=0.02)
        given = with_pairs(ctx, clean, 6)
        purified = method.purify(protected(clean), given)
        assert len(purified) == 6
        assert len(asked) == passes(3, 0.5)
        assert max(asked) == levels(3)[0]
        again = method.purify(protected(clean), given)
        assert np.array_equal(purified.images, again.images)

    def test_noise_on_protected_images_is_drawn_once(self, ctx: Context) -> None:
        data = ImageSet(np.full((40, 8, 8, 3), 128, np.uint8), np.zeros(40, dtype=np.int64), ("a",))
        noisy = BridgePure(beta=0.02).noisy(data, ctx)
        assert float(np.std(noisy.images.astype(float))) == pytest.approx(18.0, abs=0.5)
        assert np.array_equal(noisy.images, BridgePure(beta=0.02).noisy(data, ctx).images)
        assert BridgePure().noisy(data, ctx) is data

    def test_sides_that_do_not_suit_are_enlarged(self, ctx: Context) -> None:
        clean = wave(12, 9)
        purified = BridgePureLite(clean=6, steps=1, batch=2).purify(protected(clean), with_pairs(ctx, clean, 6))
        assert purified.size == (9, 9)


@pytest.mark.parametrize("method", [BridgePureLite(clean=6, steps=2), Dilution(clean=6)], ids=lambda m: m.name)
def test_rules_are_kept(method: Countermeasure, ctx: Context) -> None:
    """Those of ``ue-bench check``, which takes the images of pairs from those it purifies."""
    findings = check_countermeasure(method, pictures(24, (12, 17)), ctx)
    assert failures(findings) == []
    [declared] = [f for f in findings if f.check == "methods"]
    assert "needs 6 clean images, and which images of the set they are" in declared.text
