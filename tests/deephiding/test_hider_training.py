"""Training: it learns, it can be killed, and it says when it cannot work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ue_bench.api import Context, Diverged, EnvironmentProblem, UserError, ValidationError, best_validation
from ue_bench_deephiding import banks, extractor, retrain
from ue_bench_deephiding.curves import read_curve
from ue_bench_deephiding.extractor import train_extractor
from ue_bench_deephiding.hinet import HidingNetwork
from ue_bench_deephiding.protector import DeepHiding
from ue_bench_deephiding.recipe import Recipe
from ue_bench_deephiding.training import Covers, hiding_losses, learning_rate, train_hider
from ue_bench_deephiding.writing import write_hider

from .helpers import TINY, change, generator, smooth_set, unit_images

BANK = banks.procedural(3, 2, (8, 8), 0)


class Killed(BaseException):
    """What a kill looks like from inside."""


def silent(done: float, total: float, text: str) -> None: ...


def test_two_blocks_learn_to_reveal_one_pair() -> None:
    cover, hidden = unit_images(1, (16, 16)) * 0.5, unit_images(1, (16, 16), 1)
    labels = torch.zeros(1, dtype=torch.int64)
    network, recipe = HidingNetwork(blocks=2, growth=8), Recipe()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    revealed = []
    for step in range(200):
        found = hiding_losses(network, cover, hidden, labels, recipe, generator(step), None, 1)
        optimizer.zero_grad()
        found.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        revealed.append(float(found.reveal.detach()))
    assert np.mean(revealed[-10:]) < 0.5 * revealed[0]


def test_a_killed_training_continues_to_the_same_weights(tmp_path: Path) -> None:
    data = smooth_set(24, (12, 10))
    whole, record = retrain.fit(data, BANK, TINY, "cpu", False, tmp_path / "whole", silent)

    def killed(done: float, total: float, text: str) -> None:
        if text.startswith("train hiding") and done == 6:  # after the state of step 4 was saved
            raise Killed

    with pytest.raises(Killed):
        retrain.fit(data, BANK, TINY, "cpu", False, tmp_path / "killed", killed)
    steps = []
    resumed, resumed_record = retrain.fit(
        data, BANK, TINY, "cpu", False, tmp_path / "killed", lambda done, total, text: steps.append((text[:12], done))
    )
    assert steps[0] == ("train hiding", 5)  # neither the extractor nor the first steps again
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert resumed_record["curve"] == record["curve"]
    assert resumed_record["extractor"] == record["extractor"]
    assert [point["step"] for point in record["curve"]] == [4, 8, 12]


def test_record_says_what_was_achieved(tmp_path: Path) -> None:
    data = smooth_set(24, (12, 10))
    _, record = retrain.fit(data, BANK, replace(TINY, steps=4), "cpu", False, tmp_path, silent)
    assert record["data"]["fingerprint"] == data.fingerprint
    assert record["recipe"]["learning_rate"] == TINY.learning_rate
    assert record["precision"] == "fp32"
    assert record["environment"]["torch"] == torch.__version__
    best = best_validation(record["curve"])
    assert record["achieved"]["psnr"] == best["psnr"]
    assert record["achieved"]["mse_over_eps_squared"] == pytest.approx(best["mse"] / (8 / 255) ** 2)
    assert json.loads(json.dumps(record)) is not None


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    data = smooth_set(24, (12, 10))
    retrain.fit(data, BANK, replace(TINY, steps=1), "cpu", False, tmp_path, silent)
    with pytest.raises(UserError, match="unfinished training with other settings"):
        retrain.fit(data, BANK, replace(TINY, steps=2), "cpu", False, tmp_path, silent)


def test_steps_that_are_not_finite_end_the_training() -> None:
    network = HidingNetwork(blocks=1, growth=4)
    with torch.no_grad():
        network.get_parameter("blocks.0.phi.convs.4.bias").fill_(float("nan"))
    data = smooth_set(6, (8, 8))
    with pytest.raises(Diverged, match=r"12 of 12 training steps of the hiding network were not finite"):
        train_hider(network, Covers(data.images, data.labels, 8), BANK, replace(TINY, steps=40, validate_every=40))
    with pytest.raises(Diverged, match=r"at step 4: weight blocks\.0\.phi\.convs\.4\.bias of the hiding network"):
        train_hider(network, Covers(data.images, data.labels, 8), BANK, replace(TINY, steps=40))


def test_a_network_that_ruins_its_covers_is_refused() -> None:
    data = smooth_set(6, (8, 8))
    recipe = replace(TINY, learning_rate=0.3, steps=4)
    with pytest.raises(ValidationError, match="under 20 dB"):
        train_hider(HidingNetwork(2, 4), Covers(data.images, data.labels, 8), BANK, recipe)


def test_cosine_warms_up_and_falls_to_a_tenth() -> None:
    recipe = Recipe(steps=1000, learning_rate=1.0, schedule="cosine")
    assert learning_rate(recipe, 0) == pytest.approx(1 / 50, rel=1e-3)
    assert learning_rate(recipe, 500) == pytest.approx(0.55)
    assert learning_rate(recipe, 999) == pytest.approx(0.1, rel=1e-3)
    assert learning_rate(Recipe(), 4000) == 10**-4.5


def test_covers_are_crops_of_the_images() -> None:
    images = np.arange(2 * 9 * 12, dtype=np.uint8).reshape(2, 9, 12, 1).repeat(3, axis=3)
    covers = Covers(images, np.array([4, 7]), 9)  # as large as they get, so nothing is resized
    x, y, labels = covers.draw(20, np.random.default_rng(0))
    assert x.shape == (20, 3, 9, 9)
    assert set(labels) == {4, 7}
    assert y.tolist() == labels.tolist()
    values = (x[:, 0] * 255).round().int()
    for label, first in [(4, 0), (7, 108)]:
        of_label = values[torch.from_numpy(labels == label)]
        assert of_label.min() >= first
        assert of_label.max() < first + 108
    # Every crop is the image or one of its three mirror images.
    slopes = {(int(v[0, 1] - v[0, 0]), int(v[1, 0] - v[0, 0])) for v in values}
    assert slopes == {(1, 12), (-1, 12), (1, -12), (-1, -12)}


def test_a_torchvision_that_cannot_be_imported_is_one_line(broken_torchvision: None, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="needs torchvision, which cannot be imported: operator") as caught:
        retrain.fit(smooth_set(), BANK, TINY, "cpu", False, tmp_path, silent)
    assert "\n" not in str(caught.value)


def test_extractor_is_frozen_and_is_known_by_its_checksum() -> None:
    data = smooth_set(24, (12, 10))
    covers = Covers(data.images, data.labels, 8)
    one, same = (extractor.train_extractor(covers, 3, 1, seed=0) for _ in range(2))
    assert not one.training
    assert not any(p.requires_grad for p in one.parameters())
    assert one(torch.zeros(2, 3, 32, 32)).shape == (2, 512, 1, 1)
    assert extractor.checksum(one) == extractor.checksum(same)
    assert extractor.checksum(one) != extractor.checksum(extractor.untrained_extractor())


def test_retraining_protects_and_is_kept(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = smooth_set(12, (8, 8))
    monkeypatch.setattr(retrain, "TRAINING_BANK", 2)
    class_wise, sample_wise = (
        DeepHiding(retrain=True, train_steps=2),
        DeepHiding(mode="sample", bank_size=2, retrain=True, train_steps=2),
    )
    class_wise.protect(data, ctx)
    [made] = (ctx.artifacts / "plugin").iterdir()
    record = json.loads((made / "hider.json").read_text(encoding="utf-8"))
    assert record["recipe"]["steps"] == 2
    assert record["data"]["fingerprint"] == data.fingerprint
    assert not any((ctx.artifacts / "unfinished").iterdir())
    sample_wise.protect(data, ctx)  # the same network
    assert list((ctx.artifacts / "plugin").iterdir()) == [made]


def test_retraining_may_begin_from_the_shipped_network(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = smooth_set(12, (8, 8))
    monkeypatch.setattr(retrain, "TRAINING_BANK", 2)
    further, fresh = (DeepHiding(retrain=True, train_steps=1, **more) for more in ({"start": "shipped"}, {}))
    assert further.identity()["weights"] == DeepHiding().identity()["weights"]
    assert "weights" not in fresh.identity()
    begun = further.network(data, ctx).state_dict()
    origin = DeepHiding().network(data, ctx).state_dict()
    other = fresh.network(data, ctx).state_dict()
    moved, apart = (
        max(float((found[name] - value).abs().max()) for name, value in origin.items()) for found in (begun, other)
    )
    assert 0 < moved < 1e-3 < apart  # one step of Adam at 10^-4.5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_retraining_moves_the_images(ctx: Context) -> None:
    # The first steps overshoot: after 20 of them stego images are under 20 dB, which is refused.
    data = smooth_set(60, (16, 16))
    with pytest.raises(ValidationError, match="train for more steps"):
        DeepHiding(retrain=True, train_steps=20).protect(data, ctx)
    protected = DeepHiding(retrain=True, train_steps=100).protect(data, ctx)
    assert 2 < np.sqrt(np.square(change(protected, data)).mean()) < 26


def test_pk_sampler_draws_four_covers_of_each_class() -> None:
    labels = np.repeat(np.arange(20), 5)[np.random.default_rng(0).permutation(100)]
    labels[labels == 7] = 8  # a class that is named but has no image
    covers = Covers(np.zeros((100, 8, 8, 3), np.uint8), labels, 8)
    for seed in range(5):
        drawn = covers.draw(24, np.random.default_rng(seed), "pk")[2]
        assert np.unique(drawn, return_counts=True)[1].tolist() == [4] * 6
    assert len(covers.draw(10, np.random.default_rng(0), "pk")[2]) == 10
    few = Covers(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 0, 1, 1]), 8)
    assert len(few.draw(24, np.random.default_rng(0), "pk")[2]) == 24
    uniform = covers.draw(24, np.random.default_rng(0))[2]
    assert np.unique(uniform, return_counts=True)[1].tolist() != [4] * 6


def test_without_the_concentration_term_no_extractor_is_trained(tmp_path: Path) -> None:
    recipe = replace(TINY, steps=1, omega_conc=0)
    texts: list[str] = []
    _, record = retrain.fit(
        smooth_set(), BANK, recipe, "cpu", False, tmp_path, lambda done, total, text: texts.append(text)
    )
    assert record["extractor"] is None
    assert not any("extractor" in text for text in texts)
    assert [point["conc"] for point in record["curve"]] == [0]


def test_a_validation_without_a_number_is_null_in_the_record(tmp_path: Path) -> None:
    record = {"curve": [{"step": 4, "total": float("nan"), "psnr": 30.0, "psnr_reveal": 20.0},
                        {"step": 8, "total": 0.5, "psnr": 31.0, "psnr_reveal": 21.0}]}  # fmt: skip
    network = HidingNetwork(blocks=1, growth=4)
    write_hider(tmp_path / "hider.safetensors", network.state_dict(), replace(TINY, blocks=1), record)
    assert "NaN" not in (tmp_path / "hider.json").read_text(encoding="utf-8")
    curve = read_curve(tmp_path / "hider.json")
    np.testing.assert_array_equal(curve["total"], [np.nan, 0.5])


def test_an_extractor_that_diverges_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, rate: adam(parameters, 1e30))
    data = smooth_set(6, (32, 32))
    with pytest.raises(Diverged, match=r"at step \d of 3: .* of the feature extractor not finite"):
        train_extractor(Covers(data.images, data.labels, 32), 3, 3, 0, False, "cpu")
