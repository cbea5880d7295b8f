"""``ue-bench show``: print everything about one plugin, board, protocol, table or set."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalogue import boards, data_files, protocols, tables
from ..catalogue.describe import describe_property
from ..catalogue.facts import ANSWERS, facts
from ..catalogue.registry import registry
from ..contract.registration import KIND_NAMES, PluginRecord
from ..errors import EnvironmentProblem, UserError, did_you_mean
from .common import json_option, print_json

if TYPE_CHECKING:
    from ..contract.plugin import Plugin

IMAGES, CLASSES, SIZE = 50_000, 10, (32, 32)  # of CIFAR-10: what costs are given for


@click.command("show")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show one plugin, board, protocol, table or set: what it does, where it comes from, its parameters or members.

    NAME may be the TOML file of a board or protocol.
    """
    descriptions = _find(name)
    if as_json:
        print_json(descriptions, default=str)
        return
    for thing in descriptions:
        print(f"{thing.pop('name')} ({thing.pop('kind')})")
        text = thing.pop("text", "")
        parameters = thing.pop("parameters", {})
        for field, value in thing.items():
            if field == "clean_images":
                print(f"  needs clean data: {value:,} images")
            elif value not in ("", None, [], ()):
                shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
                print(f"  {field}: {shown}")
        if text:
            print("\n" + "\n".join(f"  {line}".rstrip() for line in text.splitlines()))
        if parameters:
            print("\n  parameters:")
            for parameter, spec in parameters.items():
                print(f"    {parameter}: {describe_property(spec)}. {spec.get('description', '')}".rstrip())
        print()


def _find(name: str) -> list[dict[str, Any]]:
    names = registry()
    bare = name.partition("[")[0]
    if protocols.is_file(name) and not any((kind, bare) in names.entries for kind in KIND_NAMES):
        return [_file(name)]
    descriptions = [_plugin(names.entries[kind, bare], name) for kind in KIND_NAMES if (kind, bare) in names.entries]
    descriptions += [
        {"name": name, "kind": f"set of {named.kind}s", "summary": named.summary, "members": named.members}
        for named in names.sets.values()
        if f"@{named.name}" == name
    ]
    if name in names.boards:
        descriptions.append(_board(name, names.boards[name].distribution))
    if name in names.protocols:
        descriptions.append(_protocol(name, names.protocols[name].distribution))
    if name in names.tables:
        descriptions.append(_table(name, names.tables[name].distribution))
    if not descriptions:
        known = {n for _, n in names.entries} | {f"@{n}" for _, n in names.sets}
        known |= {*names.boards, *names.protocols, *names.tables}
        raise UserError(f"nothing is called {name!r}", did_you_mean(bare, sorted(known)))
    return descriptions


def _file(argument: str) -> dict[str, Any]:
    """Return the board or protocol in a file, whichever its keys speak of."""
    from ..contract.board import Board

    path = protocols.path_of(argument)
    fields = data_files.read_path(Path(path)).fields
    board_keys = {field.name for field in dataclasses.fields(Board)} - {"protocol", "name"}
    is_board = argument == path and any(key in board_keys for key in fields)
    return _board(argument, "") if is_board else _protocol(argument, "")


def _board(argument: str, distribution: str) -> dict[str, Any]:
    shown = asdict(boards.board(argument))
    shown.pop("argument")
    return {"kind": "board", "distribution": distribution, **shown}


def _protocol(argument: str, distribution: str) -> dict[str, Any]:
    return {"kind": "protocol", "distribution": distribution, **protocols.protocol(argument).model_dump(mode="json")}


def _table(name: str, distribution: str) -> dict[str, Any]:
    table = tables.table(name)
    return {
        "name": name,
        "kind": "table",
        "summary": table.title,
        "source": table.source,
        "distribution": distribution,
        "lines": [" ".join(line.label) for line in table.lines],
        "columns": list(table.columns),
        "measured": f"{len(table.asks)} numbers",
        "text": "\n".join(table.notes),
        "parameters": tables.parameters(table),
    }


def _plugin(record: PluginRecord, selector: str) -> dict[str, Any]:
    from ..contract.plugin import megapixels
    from ..contract.values import format_value

    known = facts(record, selector)
    optional: dict[str, Any] = {}
    if known.clean_images:
        optional["clean_images"] = known.clean_images
    if known.must_know:
        optional["must know"] = known.must_know
    if known.answers_queries:
        optional["queries"] = ANSWERS
    if known.largest_image:
        optional["largest image"] = megapixels(known.largest_image)
    return {
        "name": record.name,
        "kind": record.kind,
        "summary": record.summary,
        "tags": list(record.tags),
        "paper": known.paper,
        "note": known.note,
        **optional,
        "revision": known.revision,
        "distribution": record.distribution,
        "cost": _cost(known.plugin),
        "protocol": ", ".join(f"{field}={format_value(value)}" for field, value in known.protocol_fields.items()),
        "text": known.text,
        "parameters": known.parameters,
    }


def _cost(plugin: Plugin | None) -> str:
    """Return the passes that a protector or a victim's pretraining takes, and their time here; empty where none."""
    from ..contract.plugin import Protector, Victim
    from ..schedule.devices import slots

    cost = plugin.cost(IMAGES) if isinstance(plugin, (Protector, Victim)) else None
    if cost is None:
        return ""
    from .. import machine
    from ..grid.cost import seconds
    from ..grid.progress import duration

    device = slots("auto", 1, 1)[0].device
    [precision] = [d.precision for d in machine.devices() if d.name == device]
    passes = f"some {cost.passes:,.0f} training passes an image through {cost.victim}"
    try:
        took = seconds(cost, IMAGES, CLASSES, SIZE, device, precision, 1)
    except EnvironmentProblem as problem:  # weights that are not here, and cannot be downloaded
        return f"{passes}; how long they take here is not known: {problem}"
    return (
        f"{passes}; for {IMAGES:,} images of {SIZE[1]} x {SIZE[0]} px {duration(took)} on one worker here "
        f"({device}, {precision})"
    )
