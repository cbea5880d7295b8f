"""Training: it learns, it can be killed, and it says when it cannot work."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import noting

from ue_bench.api import Context, Diverged, ImageSet, UserError, ValidationError, best_validation, claim_checkpoint
from ue_bench_raeg import fit as fitting
from ue_bench_raeg.apply import to_pixels
from ue_bench_raeg.encoder_decoder import EncoderDecoder
from ue_bench_raeg.generator import Generator
from ue_bench_raeg.protector import Raeg
from ue_bench_raeg.recipe import Recipe
from ue_bench_raeg.targets import Ensemble
from ue_bench_raeg.training import Batches, fraction, generator_log, train

from .helpers import patterned_set, toy_classifier

pytestmark = pytest.mark.usefixtures("one_block")

# A run of seconds: a linear classifier and 16 x 16 pixels.
TINY: dict[str, Any] = {
    "preset": "micro", "targets": "linear", "targets_epochs": 1, "width": 2, "gan_width": 2, "learning_rate": 5e-4,
    "steps": 4, "validate_every": 2, "validation": 8, "batch": 4,
}  # fmt: skip


class Killed(BaseException):
    """What a kill looks like from inside."""


def reporting(ctx: Context, report: Any) -> Context:
    return replace(ctx, report=report)


def test_a_killed_training_continues_to_the_same_weights(ctx: Context, tmp_path: Path, one_thread: None) -> None:
    data, protector = patterned_set(), Raeg(**TINY)
    whole, _, record = fitting.fit(protector, data, ctx, tmp_path / "whole")

    def killed(done: float, total: float, text: str) -> None:
        if text.startswith("train generator") and done == 3:  # after the state of step 2 was saved
            raise Killed

    with pytest.raises(Killed):
        fitting.fit(protector, data, reporting(ctx, killed), tmp_path / "killed")
    steps: list[tuple[str, float]] = []
    again = reporting(ctx, lambda done, total, text: steps.append((text.partition(",")[0], done)))
    resumed, _, resumed_record = fitting.fit(protector, data, again, tmp_path / "killed")
    assert steps == [("train generator", 3), ("train generator", 4)]  # no classifier again, no first steps
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert resumed_record["curve"] == record["curve"]
    assert resumed_record["checksum"] == record["checksum"] == fitting.weights_checksum(whole)
    assert [point["step"] for point in record["curve"]] == [2, 4]


def test_record_has_every_choice_and_what_was_achieved(ctx: Context, tmp_path: Path) -> None:
    data = patterned_set()
    _, recipe, record = fitting.fit(Raeg(**TINY, noise_sigma=0.02, gan="lsgan"), data, ctx, tmp_path / "run")
    assert set(record["recipe"]) == {f.name for f in fields(Recipe)}
    assert record["recipe"]["noise_sigma"] == 0.02
    assert record["recipe"]["gan"] == recipe.gan == "lsgan"
    assert record["recipe"]["attacks"] == ["noise", "blur", "jpeg"]
    assert record["data"]["fingerprint"] == data.fingerprint
    assert record["targets"] == ["linear"]
    assert len(record["target_checksums"]) == 1
    assert record["achieved"] == best_validation(record["curve"])
    assert {"psnr_protected", "psnr_recovered", "clipped", "accuracy_jpeg"} <= set(record["achieved"])
    assert json.loads(json.dumps(record)) == record


def test_features_may_be_those_of_a_network_trained_on_the_images(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fitting.OWN_FEATURES == "vgg16"
    monkeypatch.setattr(fitting, "OWN_FEATURES", "resnet9[width=4,blocks=1]")
    _, _, record = fitting.fit(Raeg(**TINY, perceptual="own"), patterned_set(), ctx, tmp_path / "run")
    assert record["achieved"]["per"] > 0


def test_an_encoder_and_a_decoder_train_and_protect(ctx: Context) -> None:
    data = patterned_set(count=60)
    quick = TINY | {"learning_rate": 0.05, "gamma": 1.0, "schedule": "constant"}
    method = Raeg(**quick, generator="enc-dec")
    protected = method.protect(data, ctx)
    network = method.network(data, ctx)
    assert isinstance(network, EncoderDecoder)
    assert network.settings == {"kind": "enc-dec", "width": 2}
    assert not np.array_equal(protected.images, data.images)
    keyed = replace(ctx, recovery_key=method.recovery_key(data, ctx))
    back = method.recover(protected.images, keyed)
    expected = to_pixels(network.double().inverse(torch.tensor(protected.images).permute(0, 3, 1, 2).double() / 255))
    assert np.array_equal(back, expected)
    with pytest.raises(ValueError, match="clamp needs generator=invertible"):
        Raeg(**TINY, generator="enc-dec", clamp=0.5)


def test_a_state_of_other_settings_is_refused(ctx: Context, tmp_path: Path) -> None:
    claim_checkpoint(tmp_path / "run", {"gamma": 1})
    with pytest.raises(UserError, match="unfinished training with other settings"):
        fitting.fit(Raeg(**TINY), patterned_set(), ctx, tmp_path / "run")


def test_images_too_small_for_the_discriminator_are_refused(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="8 x 8 are too small"):
        fitting.fit(Raeg(**TINY), patterned_set(size=(8, 8)), ctx, tmp_path / "run")


def run(
    data: ImageSet, recipe: Recipe, net: nn.Module, amp: bool = False
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    batches = Batches(data, recipe.batch, recipe.validation, recipe.flip, recipe.seed)
    return train(Generator(recipe.width, seed=0), batches, Ensemble([net]), None, recipe, amp=amp)


def test_it_learns_and_keeps_the_best(one_thread: None) -> None:
    data = patterned_set(size=(16, 12))  # sides that need padding
    net = toy_classifier()
    with torch.no_grad():
        labels = net(torch.from_numpy(data.images.copy()).permute(0, 3, 1, 2) / 255).argmax(1).numpy()
    data = ImageSet(data.images, labels, data.class_names)
    recipe = Recipe(
        width=4, gamma=0.1, gan="off", perceptual="off", attacks=("noise",), steps=24, batch=8, learning_rate=1e-3,
        validation=16, validate_every=6, flip=False,
    )  # fmt: skip
    weights, curve = run(data, recipe, net)
    totals = [point["total"] for point in curve]
    assert totals[-1] == min(totals) < totals[0] < 0
    end = curve[-1]
    assert end["accuracy_clean"] == end["accuracy_recovered"] == 1
    assert end["accuracy_protected"] < 0.75
    assert end["psnr_protected"] > 25
    assert end["psnr_recovered"] > 45
    network = Generator(4, spectral=False)
    network.load_state_dict(weights)  # they are complete


def test_layers_may_run_in_half_precision(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(width=2, gan="off", perceptual="off", attacks=("noise",), steps=1, batch=4, validation=2)
    full, half = (run(patterned_set(12, (8, 8)), recipe, toy_classifier(), amp)[0] for amp in (False, True))
    assert any(not torch.equal(full[name], half[name]) for name in full)
    asked: list[bool] = []
    monkeypatch.setattr(fitting, "train", noting(asked, lambda *given: ({}, [{"total": 0.0}]), 6))
    for precision in ("bf16", "fp32"):
        fitting.fit(Raeg(**TINY), patterned_set(), replace(ctx, precision=precision), tmp_path / precision)
    assert asked == [True, False]


def test_steps_that_are_not_finite_end_the_training() -> None:
    net = toy_classifier()
    with torch.no_grad():
        net.get_parameter("4.bias").fill_(float("nan"))
    recipe = Recipe(
        width=2, gan="off", perceptual="off", attacks=("noise",), steps=40, batch=2, validation=2, validate_every=50
    )
    with pytest.raises(ValidationError, match="were not finite"):
        run(patterned_set(8, (8, 8)), recipe, net)


def test_weak_images_are_refused_and_the_best_is_the_first_lowest() -> None:
    network = Generator(2)
    bias = network.get_parameter("steps.1.phi1.last.bias")
    log = generator_log(network)
    log.add(0, {"total": 2.0, "psnr_protected": 30.0})
    with torch.no_grad():
        bias.fill_(1)
    log.add(1, {"total": 1.0, "psnr_protected": 19.9})
    with torch.no_grad():
        bias.fill_(2)
    log.add(2, {"total": 1.5, "psnr_protected": 40.0})
    log.add(3, {"total": float("nan"), "psnr_protected": 50.0})
    assert log.best["steps.1.phi1.last.bias"].tolist() == [1] * 6
    assert best_validation(log.curve)["step"] == 2
    with pytest.raises(ValidationError, match=r"at 19\.9 dB, under 20 dB"):
        log.result()


def test_batches_are_passes_over_what_is_not_held_out() -> None:
    data = patterned_set(23, (8, 8))
    batches = Batches(data, 4, 5, False, 0)
    assert batches.per_pass == 4
    seen = [batches.draw(step)[0] for step in range(8)]
    rows = {x.numpy().tobytes(): i for i, x in enumerate(batches.take(np.arange(23))[0])}
    first, second = ([rows[x.numpy().tobytes()] for b in part for x in b] for part in (seen[:4], seen[4:]))
    assert len(set(first)) == len(set(second)) == 16
    assert first != second
    assert not set(first + second) & set(batches.held)
    assert torch.equal(batches.draw(5)[0], seen[5])


def test_half_of_the_images_are_mirrored() -> None:
    data = patterned_set(200, (8, 8))
    plain, mirrored = (Batches(data, 100, 2, flip, 0).draw(0) for flip in (False, True))
    same = (plain[0] == mirrored[0]).flatten(1).all(1)
    other = (plain[0].flip(-1) == mirrored[0]).flatten(1).all(1)
    assert (same | other).all()
    assert 30 < int(other.sum()) < 70
    assert torch.equal(plain[1], mirrored[1])


def test_one_image_cannot_train() -> None:
    with pytest.raises(UserError, match="on one image"):
        Batches(patterned_set(1), 4, 5, False, 0)


def test_cosine_warms_up_and_falls_to_a_tenth() -> None:
    recipe = Recipe(steps=1000, schedule="cosine")
    assert fraction(recipe, 0) == pytest.approx(1 / 50, rel=1e-3)
    assert fraction(recipe, 500) == pytest.approx(0.55)
    assert fraction(recipe, 999) == pytest.approx(0.1, rel=1e-3)
    assert fraction(Recipe(steps=1000), 0) == 1


def test_padding_is_not_shown_to_the_classifiers(one_thread: None) -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape[-2:]))
            return x.mean((2, 3))

    recipe = Recipe(width=2, gan="off", perceptual="off", steps=1, batch=2, validation=2)
    run(patterned_set(8, (10, 7)), recipe, Watching())
    assert set(seen) == {(10, 7)}


def test_the_checksum_is_of_all_weights_as_they_are_stored() -> None:
    weights = {"a": torch.ones(3), "b": torch.ones(2)}
    known = fitting.weights_checksum(weights)
    assert fitting.weights_checksum({"b": torch.ones(2), "a": torch.ones(3).half()}) == known
    for name in weights:
        assert fitting.weights_checksum(weights | {name: weights[name] * 2}) != known


def test_a_generator_with_a_weight_that_is_not_finite_is_never_kept() -> None:
    network = Generator(2)
    log = generator_log(network)
    log.add(0, {"total": 1.0})
    with torch.no_grad():
        next(network.parameters()).fill_(torch.inf)
    with pytest.raises(Diverged, match=r"at step 2: weight .* of the generator not finite"):
        log.add(1, {"total": 0.5})
    assert log.best_total == 1.0


def test_numbers_that_are_not_finite_are_no_pixels() -> None:
    with pytest.raises(Diverged, match="image of the generator not finite"):
        to_pixels(torch.full((1, 3, 2, 2), torch.nan))
