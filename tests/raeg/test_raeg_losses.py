"""The losses: what each measures, and that every sign is the repaired one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import torchvision_module

from ue_bench.api import EnvironmentProblem, UserError
from ue_bench_raeg import discriminator, targets
from ue_bench_raeg.attacks import quantise
from ue_bench_raeg.generator import Generator
from ue_bench_raeg.losses import Images, discriminator_loss, generator_losses, transform
from ue_bench_raeg.recipe import Recipe
from ue_bench_raeg.targets import Ensemble, Pooled, failure, success

from .helpers import generator, randomised, toy_classifier, unit_images

pytestmark = pytest.mark.usefixtures("one_block")

RECIPE = Recipe(width=4, perceptual="off", gan="off", attacks=("noise",))
LABELS = torch.tensor([0, 1, 2])


def photographs() -> Tensor:
    return quantise(unit_images(3, (16, 16)).float() * 0.6 + 0.2)


def images_of(x: Tensor, change: float) -> Images:
    """Protected ones ``change`` brighter, attacked ones twice as much, recovered ones a tenth."""
    return Images(x + change, x + change, x + 2 * change, x + change / 10)


def losses(images: Images, recipe: Recipe, **parts: Any) -> Any:
    given = {"targets": Ensemble([toy_classifier()]), "features": None, "discriminator": None, **parts}
    return generator_losses(images, photographs(), LABELS, recipe, **given)


def test_norms_are_means_and_the_sum_is_weighted() -> None:
    recipe = replace(RECIPE, beta=3.0, gamma=0.5, range_weight=2.0)
    found = losses(images_of(photographs(), 0.1), recipe)
    assert float(found.prt) == pytest.approx(0.1, rel=1e-5)
    assert float(found.rev) == pytest.approx(0.01, rel=1e-4)
    assert float(found.range) == 0
    assert float(found.total) == pytest.approx(0.1 + 3 * 0.01 + 0.5 * float(found.cls), rel=1e-4)


def test_values_out_of_range_are_penalised_on_both_sides() -> None:
    x = photographs()
    protected = x.clone()
    protected[0, 0, 0, 0], protected[0, 0, 0, 1] = -0.5, 1.25
    found = losses(Images(protected, x, x, x), replace(RECIPE, gamma=0.0, range_weight=2.0))
    assert float(found.range) == pytest.approx(0.75 / x.numel())
    assert float(found.total - found.prt) == pytest.approx(2 * 0.75 / x.numel(), rel=1e-4)


@pytest.mark.parametrize(("attacked", "shares"), [("mean", (0.5, 0.5)), ("off", (1, 0)), ("only", (0, 1))])
def test_classifiers_shall_be_right_on_recovered_and_wrong_on_protected_images(
    attacked: Any, shares: tuple[float, float]
) -> None:
    images, net = images_of(photographs(), 0.2), toy_classifier()
    found = losses(images, replace(RECIPE, cls_attacked=attacked, eps=3.0))
    protected, hit, back = (
        float(nn.functional.cross_entropy(net(x), LABELS))
        for x in (images.published, images.attacked, images.recovered)
    )
    assert float(found.cls) == pytest.approx(back - 3 * (shares[0] * protected + shares[1] * hit), rel=1e-4)


def test_an_ensemble_averages_losses_or_logits() -> None:
    x, nets = photographs(), [toy_classifier(seed=1), toy_classifier(seed=2)]
    one, two = (net(x) for net in nets)
    apart, mean = Ensemble(nets).logits(x), Ensemble(nets, "logits").logits(x)
    assert torch.equal(apart, torch.stack([one, two]))
    assert torch.allclose(mean, ((one + two) / 2)[None])
    expected = torch.stack([nn.functional.cross_entropy(z, LABELS, reduction="none") for z in (one, two)])
    assert torch.allclose(success(apart, LABELS), expected)
    hits = [float((z.argmax(1) == LABELS).float().mean()) for z in (one, two)]
    assert Ensemble(nets).accuracies(x, LABELS).tolist() == pytest.approx(hits)


def test_failure_is_bounded() -> None:
    logits = torch.tensor([[[0.0, 20.0, 0.0], [0.0, 1.0, 0.0]]], requires_grad=True)
    y = torch.tensor([0, 0])
    capped = failure(logits, y, "cap", 10.0)
    assert capped[0].tolist() == pytest.approx([10, math.log(2 + math.e)], rel=1e-5)
    [gradient] = torch.autograd.grad(capped.sum(), logits)
    assert not gradient[0, 0].any()
    assert gradient[0, 1].any()
    p = logits.detach().softmax(-1)[0, :, 0]
    assert failure(logits, y, "log", 10.0)[0].tolist() == pytest.approx(torch.log1p(-p).tolist(), abs=1e-6)
    certain = failure(torch.tensor([[[50.0, 0.0, 0.0]]]), y[:1], "log", 10.0)
    assert certain.item() == pytest.approx(math.log(2) - 50, rel=1e-5)  # where log(1 - p) itself has no digits left


def test_steps_down_the_loss_mislead_the_classifier() -> None:
    recipe = replace(RECIPE, gamma=0.5)
    x, net = photographs(), toy_classifier()
    y = net(x).argmax(1)
    network, ensemble = Generator(4), Ensemble([net])
    optimizer = torch.optim.Adam(network.parameters(), 5e-4)
    for step in range(6):
        found = generator_losses(transform(network, x, recipe, generator(step)), x, y, recipe, ensemble, None, None)
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
    with torch.no_grad():
        images = transform(network.eval(), x, recipe, generator())
    clean, protected, recovered = (
        float(success(ensemble.logits(z), y).mean()) for z in (x, images.published, images.recovered)
    )
    assert protected > clean + 0.02
    assert recovered < clean + 0.1 * (protected - clean)
    assert float((images.protected - x).abs().mean()) < 0.2


def test_recovery_begins_from_8_bits_or_from_what_an_attack_left() -> None:
    network, x = randomised(Generator(4), 0.002).eval(), photographs()
    with torch.no_grad():
        images = transform(network, x, RECIPE, generator())
        assert torch.equal(images.published, quantise(images.protected))
        assert torch.equal(images.recovered, network.inverse(images.published))
        hard = transform(network, x, replace(RECIPE, rev_attacked_prob=1.0), generator())
        assert torch.equal(hard.recovered, network.inverse(hard.attacked))
        assert not torch.equal(hard.attacked, hard.published)


def test_recovery_in_training_has_the_weights_of_protection() -> None:
    network, x = randomised(Generator(4), 0.01).train(), photographs()
    with torch.no_grad():
        images = transform(network, x, RECIPE, generator())
        network.eval()  # the spectral norms stay what they were
        assert torch.equal(images.protected, network(x))
        assert torch.equal(images.recovered, network.inverse(images.published))


def test_recovery_has_a_gradient() -> None:
    """In exact arithmetic it would be perfect, and its loss constant."""
    network, x = randomised(Generator(4), 0.002), photographs()
    images = transform(network, x, RECIPE, generator())
    (images.recovered - x).abs().mean().backward()
    assert max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None) > 1e-6


@pytest.mark.parametrize("form", ["bce", "lsgan"])
def test_the_discriminator_says_generated(form: Any) -> None:
    """Positive logits say so: only then do both losses of the paper go down where they should."""
    recipe, x = replace(RECIPE, gan=form, delta=1.0, gamma=0.0), photographs()
    critic = discriminator.build(8, seed=0)
    optimizer = torch.optim.Adam(critic.parameters(), 0.02)
    fake = x * 0.2 + 0.4
    first = discriminator_loss(critic, x, fake, recipe)
    for _ in range(30):
        loss = discriminator_loss(critic, x, fake, recipe)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.97 * float(first.detach())
    critic.eval().requires_grad_(False)
    assert float(critic(fake).mean()) > float(critic(x).mean())
    seen_through, convincing = (losses(Images(x, p, x, x), recipe, discriminator=critic).gan for p in (fake, x))
    assert float(convincing) < float(seen_through)


def test_the_discriminator_judges_patches() -> None:
    critic = discriminator.build(64, seed=0).eval().requires_grad_(False)
    assert critic(torch.zeros(1, 3, 64, 32)).shape == (1, 1, 4, 2)
    convolutions = [m for m in critic if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert all(torch.nn.utils.parametrize.is_parametrized(c, "weight") for c in convolutions)


def test_features_are_those_after_the_second_pooling() -> None:
    net = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 5, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(80, 2))
    x = photographs()
    features = Pooled(net)
    assert torch.equal(features(x), net[:3](x))
    assert not net[2]._forward_hooks
    images = images_of(x, 0.1)
    found = losses(images, replace(RECIPE, gamma=0.0, beta=0.0, alpha=2.0), features=features)
    expected = (features(images.published) - features(x)).abs().mean()
    assert float(found.per.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float((found.total - found.prt - 2 * found.per).detach()) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UserError, match="1 max-poolings has no perceptual features"):
        Pooled(net[:2])


def test_imagenet_features_are_those_of_torchvision(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models = torchvision_module("torchvision.models")
    assert models.VGG16_Weights.IMAGENET1K_V1.url == targets.IMAGENET
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    layers = models.vgg.make_layers(models.vgg.cfgs["D"][:6], batch_norm=False)
    file = tmp_path / "checkpoints" / "vgg16-397923af.pth"
    file.parent.mkdir()
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, file)
    found = targets.imagenet_features()
    x = photographs()
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.no_grad():
        assert torch.allclose(found(x), layers((x - mean) / deviation), atol=1e-6)
    assert found(x).shape == (3, 128, 4, 4)
    assert not any(p.requires_grad for p in found.parameters())


def test_imagenet_weights_that_cannot_be_had_are_one_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(EnvironmentProblem, match="VGG-16 cannot be had: no network") as caught:
        targets.imagenet_features()
    assert "perceptual=own" in str(caught.value.hint)
