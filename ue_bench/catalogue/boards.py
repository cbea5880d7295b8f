"""Boards: a dataset, a protocol, and the grid that fills a leaderboard, one TOML file each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import UserError
from .registry import did_you_mean


@dataclass(frozen=True)
class Board:
    """What a leaderboard is made of. All lists hold selectors; ``reference`` rows are always run and shown.

    ``{data_dir}`` in ``dataset`` stands for the data folder of the command.
    """

    name: str
    title: str
    description: str
    dataset: str
    protocol: str
    victims: tuple[str, ...]
    protectors: tuple[str, ...]
    countermeasures: tuple[str, ...]
    reference: tuple[str, ...] = ("none", "noise")
    seeds: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()


def names() -> list[str]:
    """Boards that come with ue-bench."""
    return sorted(f.name.removesuffix(".toml") for f in files("ue_bench.boards").iterdir() if f.name.endswith(".toml"))


@cache
def board(name: str) -> Board:
    """The board of that name. Raises UserError with the nearest names when there is none."""
    if name not in names():
        raise UserError(f"no board {name!r}", did_you_mean(name, names()))
    fields = tomllib.loads(files("ue_bench.boards").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Board(name=name, **plain)
