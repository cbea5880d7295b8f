"""Registered tables, made with the settings a user gives."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from ue_bench.catalogue import tables
from ue_bench.catalogue.registry import Registry, registry
from ue_bench.contract.registration import Register
from ue_bench.contract.table import Line, Setting, Table
from ue_bench.errors import EnvironmentProblem, UserError

MODULE = "toy_tables"
STEPS = Setting("steps", "how many", "5")


def table_x(steps: str = "5") -> Table:
    return Table("x", "title", "source", ("row",), (Line((f"{steps} steps",)),), settings=(STEPS,))


def table_y() -> Table:
    raise KeyError("gone")


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables x to z of a distribution that is not installed."""
    module = ModuleType(MODULE)
    vars(module).update(table_x=table_x, table_y=table_y)
    monkeypatch.setitem(sys.modules, MODULE, module)
    found = Registry()
    register = Register(found, "toys 1.0")
    for name, target in (("x", "table_x"), ("y", "table_y"), ("z", "table_z"), ("w", "table_x")):
        register.table(name, f"{MODULE}:{target}", f"summary of {name}")
    monkeypatch.setattr(tables, "registry", lambda: found)


def test_settings_reach_the_function() -> None:
    assert tables.names() == ["x", "y", "z", "w"]
    assert tables.titles()["x"] == "summary of x"
    assert tables.table("x").lines[0].label == ("5 steps",)
    assert tables.table("x", {"steps": "7"}).lines[0].label == ("7 steps",)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("xx", {}, r"no table 'xx' \(did you mean x\?\)"),
        ("x", {"stepps": "7"}, r"x has no setting 'stepps' \(did you mean steps\?\)"),
    ],
)
def test_mistakes_have_a_hint(name: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tables.table(name, given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("y", "table 'y' of toys 1.0 cannot be made: KeyError: 'gone'"),
        ("z", "table 'z' of toys 1.0 cannot be made: AttributeError"),
        ("w", "does not return the table 'w'"),
    ],
)
def test_a_broken_table_is_its_distributions_problem(name: str, message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=message):
        tables.table(name)


def test_a_name_is_taken_once_and_selects_nothing() -> None:
    register = Register(Registry(), "toys 1.0")
    register.table("x", f"{MODULE}:table_x", "x")
    with pytest.raises(ValueError, match=r"already registered by toys 1\.0"):
        register.table("x", f"{MODULE}:table_x", "x")
    with pytest.raises(ValueError, match="cannot be the name of a table"):
        register.table("x*", f"{MODULE}:table_x", "x")


def test_every_registered_table_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "registry", registry)
    for name in tables.names():
        table = tables.table(name)
        assert table.printed
        assert table.asks
        for ask in table.asks:
            [_] = registry().resolve("protector", ask.protector)
            assert len(registry().resolve("countermeasure", ask.countermeasures)) == len(ask.countermeasures)
            if ask.victim:
                [_] = registry().resolve("victim", ask.victim)
