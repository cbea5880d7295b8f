"""Open papers' tables by name, made with the settings a user gives."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ..contract.table import Setting, Table
from ..errors import EnvironmentProblem, UserError, did_you_mean, one_line
from .registry import registry


def names() -> list[str]:
    """Return the registered tables, in the order of registration."""
    return list(registry().tables)


def titles() -> dict[str, str]:
    """Return what ``list`` says of every table, by name; nothing is imported."""
    return {name: entry.summary for name, entry in registry().tables.items()}


def table(name: str, given: Mapping[str, str] | None = None) -> Table:
    """Return the table of that name, made with the settings ``given``.

    Raises UserError with the nearest names when there is no such table, when it has no such setting or the setting no
    such value, and EnvironmentProblem in one line when the plugin that registers it cannot make it.
    """
    if name not in names():
        raise UserError(f"no table {name!r}", did_you_mean(name, names()))
    if given:
        check(name, table(name).settings, given)
    entry = registry().tables[name]
    module, _, attribute = entry.target.partition(":")
    try:
        paper_table = getattr(importlib.import_module(module), attribute)(**(given or {}))
    except UserError:
        raise
    except Exception as error:  # a third-party plugin may raise anything
        raise EnvironmentProblem(
            f"table {name!r} of {entry.distribution} cannot be made: {one_line(error)}",
            "reinstall or remove that distribution",
        ) from error
    if not isinstance(paper_table, Table) or paper_table.name != name:
        raise EnvironmentProblem(
            f"{entry.target} of {entry.distribution} does not return the table {name!r}",
            "return a Table of the name that is registered",
        )
    return paper_table


def parameters(table: Table) -> dict[str, dict[str, Any]]:
    """Return the settings of a table in the form of a JSON schema, as for the parameters of a plugin."""
    return {
        setting.name: {"type": "string", "description": setting.description}
        | ({} if setting.default is None else {"default": setting.default})
        | ({"enum": list(setting.choices)} if setting.choices else {})
        for setting in table.settings
    }


def check(name: str, settings: tuple[Setting, ...], given: Mapping[str, str]) -> None:
    """Raise UserError with the nearest names when a setting or a value is ``given`` that the table ``name`` lacks."""
    known = {setting.name: setting.choices for setting in settings}
    for setting, value in given.items():
        if setting not in known:
            hint = did_you_mean(setting, list(known)) if known else f"{name} has no settings"
            raise UserError(f"{name} has no setting {setting!r}", hint)
        if known[setting] and value not in known[setting]:
            raise UserError(f"{setting} of {name} cannot be {value!r}", did_you_mean(value, list(known[setting])))
