"""``ue-bench show``: one thing, in full."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..catalogue.registry import KIND_NAMES, Entry, describe_property, did_you_mean, registry
from .common import json_option

if TYPE_CHECKING:
    from ..contract.plugin import Plugin

IMAGES, CLASSES, SIZE = 50_000, 10, (32, 32)  # of CIFAR-10: what costs are given for


@click.command("show")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show one plugin, board, protocol or set: what it does, where it comes from, its parameters or members."""
    found = _find(name)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False, default=str))
        return
    for thing in found:
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
    from ..catalogue import boards
    from ..contract import protocol
    from ..errors import UserError

    names = registry()
    bare = name.partition("[")[0]
    found = [_plugin(names.entries[kind, bare], name) for kind in KIND_NAMES if (kind, bare) in names.entries]
    found += [
        {"name": name, "kind": f"set of {named.kind}s", "summary": named.summary, "members": named.members}
        for named in names.sets.values()
        if f"@{named.name}" == name
    ]
    if name in boards.names():
        board = boards.board(name)
        found.append({"kind": "board", **asdict(board)})
    if name in protocol.names():
        found.append({"kind": "protocol", **protocol.protocol(name).model_dump(mode="json")})
    if not found:
        known = [n for _, n in names.entries] + [f"@{n}" for _, n in names.sets] + boards.names() + protocol.names()
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
        **_clean_images(entry, selector),
        "revision": plugin.revision,
        "distribution": entry.distribution,
        "cost": _cost(entry, selector),
        "protocol": _asked(entry, selector),
        "text": inspect.getdoc(plugin) or "",
        "parameters": plugin.model_json_schema().get("properties", {}),
    }


def _one(entry: Entry, selector: str) -> Plugin | None:
    """The plugin of ``selector``, of the kind of ``entry``; None for a bare name that needs parameters."""
    from ..errors import UserError

    if not entry.complete and selector == entry.name:
        return None
    found = registry().resolve(entry.kind, selector)
    if len(found) != 1:
        raise UserError(f"{selector!r} is {len(found)} {entry.kind}s", "one at a time can be shown")
    return found[0]


def _clean_images(entry: Entry, selector: str) -> dict[str, int]:
    """How many training images the thief must own unprotected, for the countermeasures that need any."""
    from ..contract.plugin import Countermeasure

    plugin = _one(entry, selector)
    return {"clean_images": plugin.clean_images} if isinstance(plugin, Countermeasure) and plugin.clean_images else {}


def _asked(entry: Entry, selector: str) -> str:
    """Fields of the protocol that a victim changes; empty where there are none."""
    from ..contract.plugin import Victim, format_value

    victim = _one(entry, selector)
    if not isinstance(victim, Victim):
        return ""
    return ", ".join(f"{field}={format_value(value)}" for field, value in victim.optimizer().items())


def _cost(entry: Entry, selector: str) -> str:
    """What a protector, or a victim before its training, asks of a network, and how long that takes here; or empty."""
    from ..contract.plugin import Protector, Victim
    from ..schedule.devices import slots

    plugin = _one(entry, selector)
    cost = plugin.cost(IMAGES) if isinstance(plugin, (Protector, Victim)) else None
    if cost is None:
        return ""
    from .. import machine
    from ..grid.cost import seconds
    from ..grid.progress import duration

    device = slots("auto", 1, 1)[0].device
    [precision] = [d.precision for d in machine.devices() if d.name == device]
    took = seconds(cost, IMAGES, CLASSES, SIZE, device, precision, 1)
    return (
        f"some {cost.passes:,.0f} training passes an image through {cost.victim}; for {IMAGES:,} images of {SIZE[1]} x "
        f"{SIZE[0]} px {duration(took)} on one worker here ({device}, {precision})"
    )
