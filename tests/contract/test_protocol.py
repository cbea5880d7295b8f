from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError as PydanticError

from ue_bench.catalogue import protocols
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.contract.combination import with_parameters
from ue_bench.contract.plugin import Countermeasure
from ue_bench.contract.protocol import Protocol
from ue_bench.errors import UserError, ValidationError
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
        "clip": None, "drop_last": False, "rate_changes": "epoch",
    },
    "em21-c100": {
        "epochs": 100, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-5, "schedule": "cosine",
        "clip": 5.0, "rotation": 20, "rate_changes": "epoch",
    },
    "bridge25": {
        "epochs": 120, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "multistep", "factor": 0.1, "drop_last": False, "rows": 40_000,
    },
    "avatar24": {
        "epochs": 120, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "multistep", "factor": 0.1, "clip": 5.0, "rows": None,
    },
    **{name: {
        "epochs": 80, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0,
        "schedule": "constant", "drop_last": False,
    } for name in ("dune26", "eclipse24", "coin24")},
    "lfu23": {
        "epochs": 60, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine",
        "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "drop_last": False, "shift": 0.0,
    },
    "ueraser23": {
        "epochs": 200, "batch": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "constant",
    },
    "apb23": {
        "epochs": 200, "batch": 256, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "multistep", "factor": 0.5,
    },
}  # fmt: skip


def countermeasure(selector: str) -> Countermeasure:
    plugin = registry().one("countermeasure", selector)
    assert isinstance(plugin, Countermeasure)
    return plugin


VERSIONS = {"micro": 2, "iss23": 2, "bait26": 2, "em21": 2, "apb23": 2, "avatar24": 2}  # all others are at their first


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
    recipe = Protocol(**BASE, epochs=60)
    total = recipe.length(390)
    assert total == 60 * 390
    assert recipe.rate(0, total) == 0.1
    assert recipe.rate(total // 4, total) == pytest.approx(0.1 * (1 + 2**-0.5) / 2)
    assert recipe.rate(total // 2, total) == pytest.approx(0.05)
    assert 0 < recipe.rate(total - 1, total) < 1e-6


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.1), (79, 0.1), (80, 0.01), (99, 0.01), (100, 0.001), (119, 0.001)])
@pytest.mark.parametrize("name", ["bridge25", "avatar24"])
def test_rates_fall_after_80_and_100_epochs(name: str, epoch: int, rate: float) -> None:
    recipe = protocol(name)
    for step in (313 * epoch, 313 * epoch + 312):
        assert recipe.rate(step, recipe.length(313), 313) == pytest.approx(rate)


def test_rates_that_change_once_an_epoch() -> None:
    """As a scheduler that is stepped after every epoch has them."""
    recipe = protocol("iss23")
    total = recipe.length(391)
    rates = [recipe.rate(step, total, 391) for step in (0, 390, 391, 59 * 391, total - 1)]
    expected = [0.1 * (1 + math.cos(math.pi * epoch / 60)) / 2 for epoch in (0, 0, 1, 59, 59)]
    assert rates == pytest.approx(expected)


def test_a_constant_rate() -> None:
    recipe = protocol("dune26")
    assert {recipe.rate(step, 800, 10) for step in (0, 399, 799)} == {0.1}


@pytest.mark.parametrize(
    ("fields", "images", "steps", "passes", "epochs"),
    [
        ({"epochs": 3}, 25, 2, 60 / 25, 3.0),
        ({"epochs": 3, "drop_last": False}, 25, 3, 3.0, 3.0),
        ({"steps": 4, "drop_last": False}, 25, 3, 35 / 25, 4 / 3),
        ({"steps": 5}, 25, 2, 2.0, 2.5),
        ({"epochs": 3, "rows": 20}, 40, 2, 1.5, 3.0),
        ({"epochs": 3, "rows": 20, "drop_last": False}, 7, 1, 3.0, 3.0),
    ],
)
def test_length_in_steps_passes_and_epochs(
    fields: dict[str, Any], images: int, steps: int, passes: float, epochs: float
) -> None:
    recipe = Protocol(**BASE, **fields)
    assert recipe.steps_per_epoch(recipe.images(images)) == steps
    assert recipe.passes(images) == pytest.approx(passes)
    assert recipe.total_epochs(images) == pytest.approx(epochs)


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


def test_the_recipe_of_a_victim_goes_before_what_its_architecture_asks_for() -> None:
    asked = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05}
    under = protocol("bridge25").under([], asked, "vit")
    assert (under.optimizer, under.learning_rate, under.weight_decay) == ("adam", 5e-4, 0.0)
    under = protocol("iss23").under(["at"], asked, "vit")
    assert (under.optimizer, under.learning_rate, under.epochs, under.momentum) == ("sgd", 0.1, 200, 0.9)
    assert protocol("iss23").under([], {}, "resnet18").epochs == 60


def test_an_architecture_with_colors_of_its_own_gets_no_mean_and_deviation() -> None:
    under = protocol("lfu23").under([], {"learning_rate": 0.01, "shift": 0.0})
    assert (under.mean, under.std, under.shift) == (None, None, 0.0)


def test_a_protocol_replaces_defaults_of_a_countermeasure() -> None:
    overrides = protocol("iss23").overrides
    assert with_parameters(countermeasure("at"), overrides).selector == ("at[eps=0.031,step_size=0.007,start=gauss]")
    assert with_parameters(countermeasure("at[eps=16/255]"), overrides).selector == (
        "at[eps=16/255,step_size=0.007,start=gauss]"
    )
    combined = with_parameters(countermeasure("gray+at"), overrides)
    assert combined.selector == "gray+at[eps=0.031,step_size=0.007,start=gauss]"
    for selector in ("gray", "at[eps=16/255,start=gauss,step_size=0.3]", "gray+cutout"):
        plugin = countermeasure(selector)
        assert with_parameters(plugin, overrides) is plugin


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


def test_new_fields_add_nothing_to_a_key_at_their_defaults() -> None:
    new = {"drop_last", "rows", "rate_changes", "rotation", "mean", "std"}
    assert not new & protocol_identity(protocol("micro")).keys()
    assert new - {"rows", "rotation"} <= protocol_identity(protocol("lfu23")).keys()


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
        ({"epochs": 1, "nesterov": True, "momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"epochs": 1, "schedule": "step"}, "'multistep', 'cosine', 'onecycle' or 'constant'"),
        ({"epochs": 1, "mean": (0.5, 0.5, 0.5)}, "give both mean and std, or neither"),
        ({"epochs": 1, "mean": (0, 0, 0), "std": (1, 1, 0)}, "std must be above 0"),
        ({"epochs": 1, "mean": (0, 0, 0), "std": (1, 1, 1), "shift": 0.5}, "give either shift or mean and std"),
        ({"epochs": 1, "rotation": 181}, "less than or equal to 180"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(PydanticError, match=reason):
        Protocol(**{**BASE, **fields})


def test_an_unknown_protocol_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no protocol 'papper' \(did you mean paper"):
        protocol("papper")


FILE = 'batch = 4\nepochs = 1\nlearning_rate = 0.1\nschedule = "constant"\n'


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            "[overrides.at]\nparameters = { epz = 1 }",
            r"overrides.at.parameters: countermeasure 'at' has no parameter 'epz'",
        ),
        ("[overrides.at]\nparameters = { eps = 3 }", r"overrides.at.parameters: at\[eps=3\]"),
        ("[overrides.vit]\nparameters = { width = 3 }", "overrides.vit.parameters: no countermeasure 'vit'"),
        ("[overrides.vitt]\nepochs = 3", "overrides.vitt: no countermeasure or victim 'vitt'"),
    ],
)
def test_parameters_that_cannot_be_are_refused(tmp_path: Path, more: str, reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FILE + more, encoding="utf-8")
    with pytest.raises(ValidationError, match=reason):
        protocol(str(path))


def test_a_file_may_set_parameters_and_name_victims(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FILE + "[overrides.at]\nparameters = { steps = 7 }\n[overrides.vit]\nepochs = 3", encoding="utf-8")
    recipe = protocol(str(path))
    assert with_parameters(countermeasure("at"), recipe.overrides).selector == "at[steps=7]"
    assert recipe.under([], {}, "vit").epochs == 3
