"""``ue-bench cache``: what is stored, and how to be rid of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from .common import cache_option, cache_root, say


@click.group("cache")
def command() -> None:
    """Show or clear stored datasets and protected sets."""


@command.command("info")
@cache_option
def info(cache_dir: Path | None) -> None:
    """Show where the cache is and what it holds."""
    from ..store.artifacts import ArtifactStore

    store = ArtifactStore((cache_dir or cache_root()).absolute())
    print(store.root)
    for kind, (count, size) in store.sizes().items():
        print(f"{kind:<10} {count:>6} {size / 1e6:>10.1f} MB")


@command.command("clear")
@cache_option
@click.option("--kind", type=click.Choice(["datasets", "protected", "purified", "plugin", "unfinished", "scratch"]))
def clear(cache_dir: Path | None, kind: str | None) -> None:
    """Remove stored artifacts; they are made again when needed. Downloads in the data folder stay."""
    from ..store.artifacts import ArtifactStore

    store = ArtifactStore((cache_dir or cache_root()).absolute())
    for name, (count, size) in store.sizes().items():
        if name != "data" and kind in (None, name):
            shutil.rmtree(store.root / name)
            say(f"ue-bench: removed {count} {name}, {size / 1e6:.1f} MB")
