"""``ue-bench show``: one thing, in full."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from typing import Any

import click

from ..registry import KIND_NAMES, Entry, describe_property, did_you_mean, registry
from .common import json_option

IMAGES, CLASSES, SIZE = 50_000, 10, (32, 32)  # of CIFAR-10: what costs are given for


@click.command("show")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show one plugin, board or protocol: what it does, where it comes from, its parameters."""
    found = _find(name)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False, default=str))
        return
    for thing in found:
        print(f"{thing.pop('name')} ({thing.pop('kind')})")
        text = thing.pop("text", "")
        parameters = thing.pop("parameters", {})
        for field, value in thing.items():
            if value not in ("", None, [], ()):
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
    from .. import boards
    from ..engine import protocol
    from ..errors import UserError

    names = registry()
    bare = name.partition("[")[0]
    found = [_plugin(names.entries[kind, bare], name) for kind in KIND_NAMES if (kind, bare) in names.entries]
    if name in boards.names():
        board = boards.board(name)
        found.append({"kind": "board", **asdict(board)})
    if name in protocol.names():
        found.append({"kind": "protocol", **protocol.protocol(name).model_dump(mode="json")})
    if not found:
        known = [n for _, n in names.entries] + boards.names() + protocol.names()
        raise UserError(f"nothing is called {name!r}", did_you_mean(bare, sorted(set(known))))
    return found


def _plugin(entry: Entry, selector: str) -> dict[str, Any]:
    plugin = entry.plugin_class
    return {
        "name": entry.name,
        "kind": entry.kind,
        "summary": entry.summary,
        "tags": list(entry.tags),
        "paper": plugin.paper,
        "note": getattr(plugin, "identity_note", ""),
        "revision": plugin.revision,
        "distribution": entry.distribution,
        "cost": _cost(entry, selector),
        "protocol": _asked(entry, selector),
        "text": inspect.getdoc(plugin) or "",
        "parameters": plugin.model_json_schema().get("properties", {}),
    }


def _asked(entry: Entry, selector: str) -> str:
    """Fields of the protocol that a victim changes; empty where there are none."""
    from ..base import Victim, format_value

    if entry.kind != "victim" or not entry.complete:
        return ""
    [victim] = registry().resolve("victim", selector)
    assert isinstance(victim, Victim)
    return ", ".join(f"{field}={format_value(value)}" for field, value in victim.optimiser().items())


def _cost(entry: Entry, selector: str) -> str:
    """What a protector asks of a network, and how long that takes here; empty where it asks nothing."""
    from ..base import Protector
    from ..schedule.devices import slots

    if entry.kind != "protector" or not entry.complete:
        return ""
    [protector] = registry().resolve("protector", selector)
    assert isinstance(protector, Protector)
    cost = protector.cost(IMAGES)
    if cost is None:
        return ""
    from .. import machine
    from ..cost import seconds
    from .progress import duration

    device = slots("auto", 1, 1)[0].device
    [precision] = [d.precision for d in machine.devices() if d.name == device]
    took = seconds(cost, IMAGES, CLASSES, SIZE, device, precision, 1)
    return (
        f"some {cost.passes:,.0f} training passes an image through {cost.victim}; for {IMAGES:,} images of {SIZE[1]} x "
        f"{SIZE[0]} px {duration(took)} on one worker here ({device}, {precision})"
    )
