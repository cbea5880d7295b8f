from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError as PydanticError

from ue_bench.catalogue import protocols
from ue_bench.catalogue.protocols import protocol
from ue_bench.contract.protocol import Protocol
from ue_bench.errors import UserError
from ue_bench.grid.cell import protocol_identity

BASE: dict[str, Any] = {
    "name": "x",
    "version": 1,
    "summary": "",
    "source": "",
    "batch": 10,
    "learning_rate": 0.1,
    "schedule": "cosine",
}

# From the papers and their released code; the source is named in each file.
PUBLISHED: dict[str, dict[str, Any]] = {
    "paper": {
        "steps": 40_000, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "multistep", "factor": 0.1, "crop": "pad", "pad": 4, "flip": True, "shift": 0.5, "nesterov": False,
    },
    "paper-imagenet": {
        "steps": 8_000, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "multistep", "factor": 0.1, "crop": "resized", "flip": True,
    },
    "em21": {
        "epochs": 60, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine",
        "clip": 5.0,
    },
    "iss23": {
        "epochs": 60, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine",
        "clip": None,
    },
    "apb23": {
        "epochs": 200, "batch": 256, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "multistep", "factor": 0.5,
    },
}  # fmt: skip


VERSIONS = {"micro": 2}  # all others are at their first


@pytest.mark.parametrize("name", protocols.names())
def test_shipped_protocols_are_valid_and_name_their_source(name: str) -> None:
    found = protocol(name)
    assert (found.name, found.version) == (name, VERSIONS.get(name, 1))
    assert found.summary
    assert found.source


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_protocols_hold_the_published_numbers(name: str) -> None:
    assert {field: getattr(protocol(name), field) for field in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "step", "rate"),
    [
        ("paper", 0, 0.1),
        ("paper", 15_999, 0.1),
        ("paper", 16_000, 0.01),
        ("paper", 31_999, 0.01),
        ("paper", 32_000, 0.001),
        ("paper", 39_999, 0.001),
        ("paper-imagenet", 3_199, 0.1),
        ("paper-imagenet", 3_200, 0.01),
        ("paper-imagenet", 6_400, 0.001),
        ("apb23", 100 * 195 - 1, 0.1),
        ("apb23", 100 * 195, 0.05),
    ],
)
def test_multistep_rates(name: str, step: int, rate: float) -> None:
    recipe = protocol(name)
    assert recipe.rate(step, recipe.length(steps_per_epoch=195)) == pytest.approx(rate)


def test_cosine_rates() -> None:
    recipe = protocol("iss23")
    total = recipe.length(390)
    assert total == 60 * 390
    assert recipe.rate(0, total) == 0.1
    assert recipe.rate(total // 4, total) == pytest.approx(0.1 * (1 + 2**-0.5) / 2)
    assert recipe.rate(total // 2, total) == pytest.approx(0.05)
    assert 0 < recipe.rate(total - 1, total) < 1e-6


@pytest.mark.parametrize("name", ["fast", "micro", "smoke"])
def test_one_cycle_rises_to_its_peak_and_falls_to_nearly_nothing(name: str) -> None:
    recipe, total = protocol(name), 1000
    rates = [recipe.rate(step, total) for step in range(total)]
    peak = rates.index(max(rates))
    assert peak == recipe.warmup * total
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) == pytest.approx(recipe.learning_rate, rel=0.01)
    assert 0 < rates[0] < 0.01 * max(rates)
    assert 0 < rates[-1] < 0.01 * max(rates)


def test_one_cycle_without_warmup_starts_at_its_peak() -> None:
    recipe = Protocol(**{**BASE, "schedule": "onecycle", "epochs": 1, "warmup": 0})
    assert recipe.rate(0, 100) == 0.1


def test_adversarial_training_takes_longer_where_its_source_says_so() -> None:
    assert protocol("iss23").under(["at"], {}).epochs == 100
    assert protocol("iss23").under(["at"], {}).schedule == "cosine"
    under = protocol("em21").under(["gray", "at"], {})
    assert (under.epochs, under.schedule, under.milestones, under.factor) == (100, "multistep", (0.75, 0.9), 0.1)
    assert protocol("iss23").under(["gray"], {}) == protocol("iss23")
    assert protocol("paper").under(["at"], {}) == protocol("paper")


def test_an_architecture_changes_its_fields_and_a_countermeasure_has_the_last_word() -> None:
    recipe = Protocol(**BASE, epochs=3, overrides={"at": {"learning_rate": 0.3}, "long": {"steps": 7}})
    assert recipe.under([], {"learning_rate": 0.01}).learning_rate == 0.01
    assert recipe.under(["at"], {"learning_rate": 0.01, "momentum": 0.5}).learning_rate == 0.3
    assert recipe.under(["at"], {"learning_rate": 0.01, "momentum": 0.5}).momentum == 0.5
    assert (recipe.under(["long"], {}).steps, recipe.under(["long"], {}).epochs) == (7, None)


ADAMW = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05}


def test_another_optimizer_brings_its_own_rates() -> None:
    at = {"learning_rate": 0.3, "weight_decay": 0.1, "epochs": 5}
    recipe = Protocol(**BASE, epochs=3, momentum=0.5, nesterov=True, overrides={"at": at})
    under = recipe.under(["at"], ADAMW)
    assert (under.optimizer, under.learning_rate, under.weight_decay) == ("adamw", 1e-3, 0.05)
    assert (under.momentum, under.nesterov) == (0.9, False)  # those of the recipe are SGD's
    assert under.epochs == 5
    assert recipe.under([], ADAMW | {"momentum": 0.8}).momentum == 0.8
    assert recipe.under(["at"], {"optimizer": "sgd", "learning_rate": 0.01}).learning_rate == 0.3  # the recipe's own


def test_a_countermeasure_may_change_the_optimizer() -> None:
    recipe = Protocol(**BASE, epochs=3, nesterov=True, overrides={"at": ADAMW})
    under = recipe.under(["at"], {"learning_rate": 0.01})
    assert (under.optimizer, under.learning_rate, under.nesterov) == ("adamw", 1e-3, False)


def test_sgd_is_the_default_and_adds_nothing_to_a_key() -> None:
    recipe = Protocol(**BASE, epochs=3)
    assert recipe.optimizer == "sgd"
    assert "optimizer" not in protocol_identity(recipe)
    assert protocol_identity(recipe.under([], ADAMW)).items() >= ADAMW.items()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "give either steps or epochs"),
        ({"steps": 1, "epochs": 1}, "give either steps or epochs"),
        ({"epochs": 1, "lr": 0.1}, "Extra inputs are not permitted"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"epochs": 1, "optimizer": "rmsprop"}, "'sgd', 'adam' or 'adamw'"),
        ({"epochs": 1, "optimizer": "adam", "nesterov": True}, "nesterov belongs to sgd, not to adam"),
        ({"epochs": 1, "schedule": "step"}, "'multistep', 'cosine' or 'onecycle'"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(PydanticError, match=reason):
        Protocol(**{**BASE, **fields})


def test_an_unknown_protocol_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no protocol 'papper' \(did you mean paper"):
        protocol("papper")
