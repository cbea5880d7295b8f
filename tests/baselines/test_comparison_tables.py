"""Printed comparisons of other papers: their numbers, and what is asked for beside them."""

from __future__ import annotations

import pytest

from ue_bench.catalogue import tables
from ue_bench.catalogue.registry import registry
from ue_bench.contract.table import Line
from ue_bench.errors import UserError

NAMES = ("apbench-cifar10", "iss-cifar10", "eclipse-cifar10")


def lines(name: str, **settings: str) -> dict[str, Line]:
    return {line.name: line for line in tables.table(name, settings).lines}


def test_printed_numbers() -> None:
    apbench = lines("apbench-cifar10")
    assert len(apbench) == 9
    assert all(len(line.printed) == 11 for line in apbench.values())
    assert apbench["OPS"].printed["cutmix"] == 64.72
    iss = lines("iss-cifar10")
    assert len(iss) == 13
    assert dict(iss["SEP"].printed) == {"vanilla": 3.85, "gray": 3.57, "jpeg[quality=10]": 84.37}
    eclipse = lines("eclipse-cifar10")
    assert len(eclipse) == 9
    assert eclipse["AR"].printed["orthogonal-projection"] == 33.6
    assert set(eclipse["clean"].printed) == {"vanilla", "at", "jpeg[quality=10]", "eclipse"}


def test_methods_that_train_networks_take_the_preset() -> None:
    asked = {ask.protector for name in NAMES for ask in tables.table(name, {"preset": "micro"}).asks}
    assert {"em[preset=micro]", "ntga", "deepconfuse", "ar", "noise[mode=class]"} <= asked
    assert {ask.protector for ask in tables.table("apbench-cifar10").asks} >= {"em", "tap"}
    with pytest.raises(UserError, match="preset of iss-cifar10 cannot be 'tiny'"):
        tables.table("iss-cifar10", {"preset": "tiny"})


def test_bounds_and_surrogates_are_those_that_were_printed() -> None:
    for name in ("apbench-cifar10", "iss-cifar10"):
        assert lines(name)["HYPO"].protectors == ("hypo[norm=linf]",)
        assert lines(name, preset="micro")["HYPO"].protectors == ("hypo[preset=micro,norm=linf]",)
    assert lines("iss-cifar10", preset="micro")["TensorClog"].protectors == ("tensorclog[preset=micro,eps=8/255]",)
    assert lines("apbench-cifar10")["NTGA"].protectors == ("ntga[surrogate=cnn]",)
    assert lines("iss-cifar10")["NTGA"].protectors == ("ntga",)
    for name in NAMES:
        for ask in (*tables.table(name).asks, *tables.table(name, {"preset": "micro"}).asks):
            assert registry().one("protector", ask.protector).selector == ask.protector


def test_what_is_not_built_is_not_asked_for() -> None:
    assert lines("iss-cifar10")["ShortcutGen"].asks == {}
