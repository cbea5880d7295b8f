"""The convex refit of a last layer: golden values, one minimum, and nothing without an end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Diverged, UserError
from ue_bench_countermeasures.exploiters import DeepFeatureReweighting, initialise_anew, last_features
from ue_bench_victims.logistic import solve

from .test_exploiters import blobs, classifier, context, last_layer, loss_of, overlapping, untrained

ROWS = torch.tensor(
    [[1, -1, 0, 0, 2, 0, 0, 0], [0, 2, -1, 0, 0, 1, 0, 0], [0, 0, 1, 2, -1, 0, 1, 0], [1, 0, 0, -1, 0, 0, 0, 2]]
).double()


@pytest.fixture
def features() -> Tensor:
    i, j = torch.arange(200)[:, None], torch.arange(8)
    x = ((7 * i + 13 * j + 3 * i * j + i**2 * (j + 1)) % 17).double() / 16
    assert float(x.sum()) == 788.5625
    return x


def labels_of(kind: str, features: Tensor) -> Tensor:
    i = torch.arange(200)
    labels = (5 * i + i // 7) % 4 if kind == "A" else (features @ ROWS.T).argmax(1)
    if kind == "B":
        assert labels.bincount().tolist() == [24, 24, 93, 59]
    return labels


# Objective, length of the weights and accuracy: L-BFGS and Newton's method agreed to eight digits.
GOLDEN = [
    ("A", 1e-2, 1.34227121, 0.385977, 0.31),
    ("A", 1e-3, 1.34154267, 0.419759, 0.31),
    ("B", 1e-2, 0.16368787, 4.388222, 1.0),
    ("B", 1e-3, 0.03710118, 7.170190, 1.0),
]


@pytest.mark.parametrize(("kind", "penalty", "objective", "length", "accuracy"), GOLDEN)
def test_golden(kind: str, penalty: float, objective: float, length: float, accuracy: float, features: Tensor) -> None:
    labels = labels_of(kind, features)
    solution = solve(features, labels, 4, penalty)
    assert solution.objective == pytest.approx(objective, abs=1e-8)
    assert float(solution.weight.norm()) == pytest.approx(length, abs=2e-6)
    weight, bias = solution.folded()
    right = ((features @ weight.T + bias).argmax(1) == labels).double().mean()
    assert float(right) == pytest.approx(accuracy, abs=0.005)


def test_two_starts_end_in_one_place(features: Tensor) -> None:
    labels, generator = labels_of("A", features), torch.Generator().manual_seed(0)
    far = torch.randn(4, 8, generator=generator) * 3, torch.randn(4, generator=generator)
    first, second = solve(features, labels, 4, 1e-3), solve(features, labels, 4, 1e-3, start=far)
    torch.testing.assert_close(first.weight, second.weight, atol=1e-6, rtol=0)


def test_scales_of_features_do_not_matter_and_constant_ones_say_nothing(features: Tensor) -> None:
    labels = labels_of("B", features)
    scaled = torch.cat([features * torch.logspace(-3, 3, 8).double() + 5, torch.full((200, 1), 7.0).double()], dim=1)
    plain, other = solve(features, labels, 4, 1e-3), solve(scaled, labels, 4, 1e-3)
    assert other.objective == pytest.approx(plain.objective, abs=1e-8)
    assert other.weight[:, -1].abs().max() == 0
    logits = [x @ w.T + b for x, (w, b) in ((features, plain.folded()), (scaled, other.folded()))]
    torch.testing.assert_close(logits[0].softmax(1), logits[1].softmax(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_reported(value: float, features: Tensor) -> None:
    features[3, 2] = value
    with pytest.raises(Diverged, match="linear layer not finite"):
        solve(features, labels_of("A", features), 4, 1e-3)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_batches_without_a_line_search_fail_where_this_does_not(scale: float) -> None:
    """Large features that say little of the class."""
    generator = torch.Generator().manual_seed(0)
    features = scale * torch.randn(400, 60, generator=generator).exp()
    labels = torch.arange(400) % 10
    weight, bias = solve(features, labels, 10, 1e-3).folded()
    assert float(F.cross_entropy(features.double() @ weight.T + bias, labels)) < np.log(10)


class TestConvexReweighting:
    def test_is_the_minimum_of_all_clean_images(self) -> None:
        clean, model = blobs(300), untrained()
        DeepFeatureReweighting(clean=300, solver="convex").after_training(model, context(clean))
        _, features, labels = last_features(model, context(clean))
        expected, _ = solve(features, labels, 10, 1e-3).folded()
        torch.testing.assert_close(last_layer(model).weight.detach(), expected.float())
        assert loss_of(model, clean) < np.log(10) - 0.3

    def test_nothing_random_and_nothing_of_the_trained_layer_is_in_it(self) -> None:
        found = []
        for seed in (0, 1):
            model = classifier()
            with torch.no_grad():
                last_layer(model).weight.mul_(1 + 5 * seed)
            DeepFeatureReweighting(clean=90, solver="convex").after_training(model, context(overlapping(), seed))
            found.append(last_layer(model).weight.detach())
        assert torch.equal(*found)

    @pytest.mark.parametrize(
        ("given", "ignored"),
        [
            ({"solver": "convex", "rounds": 2}, "rounds would do nothing with solver=convex"),
            ({"solver": "convex", "learning_rate": 1}, "learning_rate would do nothing"),
            ({"penalty": 0.1}, "penalty would do nothing with solver=released"),
        ],
    )
    def test_nothing_is_ignored(self, given: dict[str, object], ignored: str) -> None:
        with pytest.raises(ValueError, match=ignored):
            DeepFeatureReweighting.model_validate(given)

    def test_a_layer_without_bias_is_refused(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3, bias=False))
        with pytest.raises(UserError, match="no bias"):
            DeepFeatureReweighting(clean=90, solver="convex").after_training(model, context(overlapping()))


class TestControl:
    def test_features_are_those_of_fresh_weights(self) -> None:
        """Whatever the training came to: two different trained networks, one control."""
        found = []
        for factor in (1.0, 2.0):
            model = classifier()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(factor)
            DeepFeatureReweighting(clean=90, solver="convex", control=True).after_training(
                model, context(overlapping())
            )
            found.append(model.state_dict())
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
        assert not torch.equal(found[0]["0.weight"], classifier().state_dict()["0.weight"])

    def test_global_randomness_is_left_alone(self) -> None:
        before = torch.random.get_rng_state()
        initialise_anew(classifier(), context(overlapping()))
        assert torch.equal(before, torch.random.get_rng_state())

    def test_weights_without_an_initialisation_are_refused(self) -> None:
        class Own(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(2))

        with pytest.raises(UserError, match="1 cannot be initialised anew"):
            initialise_anew(nn.Sequential(nn.Linear(2, 2), Own()), context(overlapping()))
