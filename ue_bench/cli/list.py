"""``ue-bench list``: what there is."""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from ..catalogue.registry import KIND_NAMES, Entry, registry
from .common import json_option, print_json, say

KINDS = [*(f"{k}s" for k in KIND_NAMES), "boards", "protocols"]


def _kind(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from ..catalogue.registry import did_you_mean
    from ..errors import UserError

    plural = value if value.endswith("s") else f"{value}s"
    if plural not in KINDS:
        raise UserError(f"nothing called {value!r} to list", did_you_mean(plural, KINDS))
    return plural


@click.command("list")
@click.argument("kind", metavar="KIND", callback=_kind)
@json_option
def command(kind: str, as_json: bool) -> None:
    """List protectors, countermeasures, victims, datasets, boards or protocols."""
    if kind in ("boards", "protocols"):
        rows = _boards() if kind == "boards" else _protocols()
    else:
        rows = [_entry(e, detailed=as_json) for e in registry().of_kind(kind.removesuffix("s"))]
    if as_json:
        print_json(rows)
        return
    width = max((len(r["name"]) for r in rows), default=0)
    for row in rows:
        tags = "  [" + " ".join(row["tags"]) + "]" if row.get("tags") else ""
        print(f"{row['name']:<{width}}  {row['summary']}{tags}")
    for named in registry().sets.values():
        if f"{named.kind}s" == kind:
            print(f"@{named.name}: {named.summary}: {' '.join(named.members)}")
    for problem in registry().problems:
        say(f"ue-bench: {problem.distribution} cannot be used: {problem.reason}")


def _entry(entry: Entry, detailed: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": entry.name, "summary": entry.summary, "tags": list(entry.tags)}
    if detailed:
        from ..errors import UserError

        row |= {"parameters": {}, "distribution": entry.distribution, "available": True, "reason": ""}
        try:
            row["parameters"] = entry.plugin_class.model_json_schema().get("properties", {})
            if entry.kind == "countermeasure" and entry.complete:
                [countermeasure] = registry().resolve(entry.kind, entry.name)
                row["clean_images"] = getattr(countermeasure, "clean_images", 0)
        except UserError as error:
            row |= {"available": False, "reason": error.message}
    return row


def _boards() -> list[dict[str, Any]]:
    from ..catalogue import boards

    found = [boards.board(n) for n in boards.names()]
    return [{**_ours(b.name, b.description), "dataset": b.dataset, "protocol": b.protocol} for b in found]


def _protocols() -> list[dict[str, Any]]:
    from ..contract import protocol

    found = [protocol.protocol(n) for n in protocol.names()]
    return [{**_ours(p.name, p.summary), "source": p.source, "version": p.version} for p in found]


def _ours(name: str, summary: str) -> dict[str, Any]:
    """What every row has, for things that no plugin brings."""
    row: dict[str, Any] = {"name": name, "summary": summary, "tags": [], "parameters": {}}
    return row | {"distribution": f"ue-bench {__version__}", "available": True, "reason": ""}
