"""``ue-bench list``: list everything of one kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..catalogue.registry import registry
from ..contract.registration import KIND_NAMES, PluginRecord
from ..errors import UserError, did_you_mean
from .common import json_option, print_json, say

if TYPE_CHECKING:
    from ..contract.registration import DataRecord, TableRecord

DATA = ("boards", "protocols")
KINDS = [*(f"{k}s" for k in KIND_NAMES), *DATA, "tables"]


def _kind(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    plural = value if value.endswith("s") else f"{value}s"
    if plural not in KINDS:
        raise UserError(f"nothing called {value!r} to list", did_you_mean(plural, KINDS))
    return plural


@click.command("list")
@click.argument("kind", metavar="KIND", callback=_kind)
@json_option
def command(kind: str, as_json: bool) -> None:
    """List protectors, countermeasures, victims, datasets, boards, protocols or tables."""
    if kind in DATA:
        records: dict[str, DataRecord] = getattr(registry(), kind)
        rows = [_data(record) for _, record in sorted(records.items())]
    elif kind == "tables":
        rows = [_table(record, detailed=as_json) for record in registry().tables.values()]
    else:
        rows = [_plugin(r, detailed=as_json) for r in registry().of_kind(kind.removesuffix("s"))]
    if as_json:
        print_json(rows)
        return
    width = max((len(r["name"]) for r in rows), default=0)
    for row in rows:
        tags = "  [" + " ".join(row["tags"]) + "]" if row.get("tags") else ""
        text = row["summary"] if row.get("available", True) else f"cannot be used: {row['reason']}"
        print(f"{row['name']:<{width}}  {text}{tags}".rstrip())
    for named in registry().sets.values():
        if f"{named.kind}s" == kind:
            print(f"@{named.name}: {named.summary}: {' '.join(named.members)}")
    for problem in registry().problems:
        say(f"ue-bench: {problem.distribution} cannot be used: {problem.reason}")


def _plugin(record: PluginRecord, detailed: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": record.name, "summary": record.summary, "tags": list(record.tags)}
    if detailed:
        row |= {"parameters": {}, "distribution": record.distribution, "available": True, "reason": ""}
        try:
            row["parameters"] = record.plugin_class.model_json_schema().get("properties", {})
            if record.kind == "countermeasure" and record.complete:
                [countermeasure] = registry().resolve(record.kind, record.name)
                row["clean_images"] = getattr(countermeasure, "clean_images", 0)
            if record.kind == "protector" and record.complete:
                [protector] = registry().resolve(record.kind, record.name)
                row["answers_queries"] = getattr(protector, "answers_queries", False)
        except UserError as error:
            row |= {"available": False, "reason": error.message}
    return row


def _row(name: str, distribution: str) -> dict[str, Any]:
    """Return what every row has, for things that are no plugins."""
    row: dict[str, Any] = {"name": name, "summary": "", "tags": [], "parameters": {}}
    return row | {"distribution": distribution, "available": True, "reason": ""}


def _data(record: DataRecord) -> dict[str, Any]:
    """Return a row for a board or protocol; one that cannot be read says why."""
    row = _row(record.name, record.distribution)
    try:
        return row | _contents(record)
    except UserError as error:
        return row | {"available": False, "reason": error.message}


def _contents(record: DataRecord) -> dict[str, Any]:
    from ..catalogue import boards, protocols

    if record.kind == "board":
        board = boards.of_record(record)
        return {"summary": board.description, "dataset": board.dataset, "protocol": board.protocol}
    recipe = protocols.of_record(record)
    return {"summary": recipe.summary, "source": recipe.source, "version": recipe.version}


def _table(record: TableRecord, detailed: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": record.name, "summary": record.summary, "tags": []}
    if detailed:
        from ..catalogue import tables

        row |= {"parameters": {}, "distribution": record.distribution, "available": True, "reason": ""}
        try:
            row["parameters"] = tables.parameters(tables.table(record.name))
        except UserError as error:
            row |= {"available": False, "reason": error.message}
    return row
