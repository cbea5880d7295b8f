"""Losses of the hiding network, against their definitions in the paper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ue_bench_deephiding.hinet import HidingNetwork
from ue_bench_deephiding.recipe import EPS, Recipe
from ue_bench_deephiding.training import Losses, concentration, extractor_input, hiding_losses

from .helpers import generator, is_last_convolution, randomised, unit_images


def losses(network: HidingNetwork, recipe: Recipe, repeat: int = 1, extractor: nn.Module | None = None) -> Losses:
    cover, hidden = (unit_images(3, (16, 16), seed).repeat(repeat, 1, 1, 1) for seed in (0, 1))
    labels = torch.tensor([0, 0, 1]).repeat(repeat)
    return hiding_losses(network, cover, hidden, labels, recipe, generator(), extractor, 2)


def double_loop(features: Tensor, labels: Tensor) -> Tensor:
    """Equation 7 as printed."""
    total = features.new_zeros(())
    for i in range(len(features)):
        for j in range(len(features)):
            if i != j and labels[i] == labels[j]:
                total = total + 1 - torch.cosine_similarity(features[i], features[j], dim=0)
    return total


def test_hide_loss_alone_is_flat_at_eps_squared_and_moves_nothing() -> None:
    # The appendix reports a loss that stays where it is and learns nothing.
    network = HidingNetwork(blocks=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recipe = Recipe(omega_freq=0, omega_reveal=0, omega_conc=0)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate, recipe.betas, recipe.adam_eps)
    found = losses(network, recipe)
    found.total.backward()
    optimizer.step()
    assert found.total.item() == pytest.approx(EPS**2, rel=1e-6)
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_at_the_start_revealing_reaches_only_the_last_convolutions_of_eta_and_rho() -> None:
    network = HidingNetwork(blocks=3)
    losses(network, Recipe()).reveal.backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    last = {name for name, _ in network.named_parameters() if is_last_convolution(name)}
    expected = {name for name in last if ".eta." in name or ".rho." in name}
    assert len(expected) == 3 * 2 * 2
    assert reached == expected


def test_hide_loss_grows_beyond_eps() -> None:
    found = losses(randomised(HidingNetwork(blocks=4), 0.05), Recipe())
    assert found.mse > EPS**2
    assert found.hide == found.mse


@pytest.mark.parametrize("zero_row", [False, True])
def test_concentration_equals_the_double_loop(zero_row: bool) -> None:
    features = torch.randn(24, 40, generator=generator(), dtype=torch.float64)
    if zero_row:
        features[5] = 0
    labels = torch.randint(5, (24,), generator=generator(1))
    assert concentration(features, labels, 5).item() == pytest.approx(double_loop(features, labels).item(), abs=1e-12)


def test_concentration_of_a_zero_row_has_a_finite_gradient() -> None:
    features = torch.randn(6, 8, generator=generator())
    features[0] = 0
    features.requires_grad_()
    concentration(features, torch.zeros(6, dtype=torch.int64), 1).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_concentration_does_not_depend_on_order() -> None:
    features = torch.randn(24, 40, generator=generator(), dtype=torch.float64)
    labels = torch.randint(5, (24,), generator=generator(1))
    order = torch.randperm(24, generator=generator(2))
    assert concentration(features[order], labels[order], 5).item() == pytest.approx(
        concentration(features, labels, 5).item(), abs=1e-12
    )


def test_concentration_is_zero_for_one_direction_and_counts_opposite_pairs_twice() -> None:
    along = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert concentration(along[:2], torch.tensor([0, 0]), 1).item() == pytest.approx(0)
    # Two pairs of opposite directions, each counted in both orders, each worth 2.
    assert concentration(along, torch.tensor([0, 0, 0]), 1).item() == pytest.approx(8)


def test_repeating_the_batch_leaves_the_losses_where_they_are() -> None:
    network = randomised(HidingNetwork(blocks=2), 0.03)
    one, three = losses(network, Recipe()), losses(network, Recipe(), repeat=3)
    for term in ("hide", "freq"):
        assert getattr(three, term).item() == pytest.approx(getattr(one, term).item(), rel=1e-5)
    # The lost residual is drawn anew for every image, so that revealing is equal in the mean only.
    assert three.reveal.item() == pytest.approx(one.reveal.item(), rel=0.05)


def test_concentration_waits_until_there_is_a_perturbation() -> None:
    extractor = nn.Conv2d(3, 8, 3, bias=False).requires_grad_(False)
    assert losses(HidingNetwork(blocks=1), Recipe(), extractor=extractor).conc == 0
    assert losses(randomised(HidingNetwork(blocks=1), 0.05), Recipe(), extractor=extractor).conc > 0


def test_the_floor_holds_for_the_batch_or_for_every_image() -> None:
    class Shifting(HidingNetwork):
        """Moves the first image of a batch by 3 eps everywhere, and no other."""

        def forward(self, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            moved = c.clone()
            moved[0, :3] += 2 * 3 * EPS  # twice the shift of the pixels, in the low band
            return moved, h

    network = Shifting(blocks=1)
    batch, image = losses(network, Recipe()), losses(network, Recipe(per_image=True))
    assert batch.mse.item() == pytest.approx(9 / 3 * EPS**2, rel=1e-4)
    assert image.mse.item() == batch.mse.item()
    assert batch.hide.item() == pytest.approx(9 / 3 * EPS**2, rel=1e-4)
    assert image.hide.item() == pytest.approx((9 + 1 + 1) / 3 * EPS**2, rel=1e-4)


def test_what_the_extractor_sees() -> None:
    ends = torch.tensor([-EPS, 0, EPS]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    assert torch.equal(extractor_input(ends, "raw"), ends)
    assert torch.allclose(extractor_input(ends, "scaled")[:, 0, 0, 0], torch.tensor([0, 0.5, 1]))
    normalised = extractor_input(ends, "imagenet")
    assert torch.allclose(
        normalised[1, :, 0, 0], torch.tensor([0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225]), atol=1e-5
    )


def test_input_and_pairs_of_the_concentration_term_matter() -> None:
    extractor = nn.Conv2d(3, 8, 3, bias=True).requires_grad_(False)
    network = randomised(HidingNetwork(blocks=1), 0.05)
    ordered = losses(network, Recipe(), extractor=extractor)
    once = losses(network, Recipe(lfc_pairs="unordered"), extractor=extractor)
    assert once.conc.item() == pytest.approx(ordered.conc.item() / 2)
    values = {
        losses(network, Recipe(lfc_input=k), extractor=extractor).conc.item() for k in ("raw", "scaled", "imagenet")
    }
    assert len(values) == 3


def test_recomputation_keeps_every_gradient_and_less_memory() -> None:
    kept: dict[bool, int] = {}
    gradients = []
    for recompute in (False, True):
        network = randomised(HidingNetwork(blocks=4), 0.03)
        network.recompute = recompute
        sizes: dict[int, int] = {}

        def note(x: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            found = losses(network, Recipe())
        kept[recompute] = sum(sizes.values())
        found.total.backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[True] < kept[False] / 2
