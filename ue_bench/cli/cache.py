"""``ue-bench cache``: show, verify or remove what is stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

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

    store = ArtifactStore((cache_dir or default_cache()).absolute())
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
    """Remove stored artifacts; they are made again when needed. Downloads in the data folder stay."""
    from ..store.artifacts import ArtifactStore

    store = ArtifactStore((cache_dir or default_cache()).absolute())
    for name, (count, size) in store.sizes().items():
        if name in KINDS and kind in (None, name):  # whatever else is in that folder is not ours to remove
            shutil.rmtree(store.root / name)
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

    store = ArtifactStore((cache_dir or default_cache()).absolute())
    count, damaged = store.verify([kind for kind in KINDS if kind != "scratch"])
    if as_json:
        print_json({"folder": str(store.root), "checked": count, "damaged": [asdict(d) for d in damaged]})
    else:
        for one in damaged:
            print(f"{one.kind}/{one.name}: {one.reason}; removed")
    say(f"ue-bench: {count} artifacts, {len(damaged)} damaged")
    return 4 if damaged else 0
