"""``ue-bench cache``: show, verify or remove what is stored."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UserError
from ..machine import cache_dir as default_cache
from .common import cache_option, json_option, print_json, say

KINDS = ("datasets", "protected", "purified", "features", "networks", "plugin", "unfinished", "scratch")


@click.group("cache")
def command() -> None:
    """Show, verify or clear stored datasets and protected sets."""


@command.command("info")
@cache_option
@json_option
def info(cache_dir: Path | None, as_json: bool) -> None:
    """Show where the cache is and what it holds."""
    from ..store.artifacts import ArtifactStore

    store = ArtifactStore(_folder(cache_dir), read_only=True)
    if as_json:
        kinds = {kind: {"artifacts": count, "bytes": size} for kind, (count, size) in store.sizes().items()}
        print_json({"folder": str(store.root), "kinds": kinds})
        return
    print(store.root)
    for kind, (count, size) in store.sizes().items():
        print(f"{kind:<10} {count:>6} {size / 1e6:>10.1f} MB")


@command.command("clear")
@cache_option
@click.option("--kind", type=click.Choice(KINDS), help="Remove one kind only.")
def clear(cache_dir: Path | None, kind: str | None) -> None:
    """Remove stored artifacts; they are made again when needed. Downloads in the data folder stay.

    Not while other commands work with them.
    """
    from ..store.artifacts import ArtifactStore
    from ..store.running import drivers

    store = ArtifactStore(_folder(cache_dir))
    if at_work := drivers(store.root):
        where = ", ".join(sorted({driver.host for driver in at_work}))
        raise UserError(f"{len(at_work)} commands work with {store.root}, on {where}", "wait until they have ended")
    for name, (count, size) in store.sizes().items():
        if name in KINDS and kind in (None, name):  # whatever else is in that folder is not ours to remove
            store.clear(name)
            say(f"ue-bench: removed {count} {name}, {size / 1e6:.1f} MB")


@command.command("verify")
@cache_option
@json_option
def verify(cache_dir: Path | None, as_json: bool) -> int:
    """Compare all stored artifacts with their checksums and remove damaged ones. Exit code 4 when there were any.

    They are made again when needed.
    """
    from dataclasses import asdict

    from ..store.artifacts import ArtifactStore

    store = ArtifactStore(_folder(cache_dir))
    count, damaged = store.verify([kind for kind in KINDS if kind != "scratch"])
    if as_json:
        print_json({"folder": str(store.root), "checked": count, "damaged": [asdict(d) for d in damaged]})
    else:
        for one in damaged:
            print(f"{one.kind}/{one.name}: {one.reason}; removed")
    say(f"ue-bench: {count} artifacts, {len(damaged)} damaged")
    return 4 if damaged else 0


def _folder(cache_dir: Path | None) -> Path:
    """Return the folder of the cache. Raises UserError where a user names one that is not there."""
    if cache_dir is not None and not cache_dir.is_dir():
        raise UserError(f"there is no folder {cache_dir}", "without --cache-dir it is the usual one")
    return (cache_dir or default_cache()).absolute()
