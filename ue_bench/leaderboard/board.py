"""Collect what the pages need to know of a board."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import cast

from ..catalogue import protocols
from ..catalogue.registry import registry
from ..catalogue.selectors import parse
from ..contract.board import Board
from ..contract.combination import parts
from ..contract.plugin import Countermeasure
from ..contract.protocol import Protocol
from ..errors import UserError
from ..grid.cell import ENGINE_REVISION


@dataclass(frozen=True)
class CleanData:
    """What the adversary of a countermeasure has unprotected of the training set."""

    images: int = 0
    pairs: bool = False  # it knows which training images they are
    control: str = ""  # the countermeasure that has the same without the method
    queries: bool = False  # it has them protected by the owner's service


@dataclass(frozen=True)
class BoardInfo:
    """The rows and columns that a board wants, and what its cells are unless something else is asked for.

    Selectors are canonical, as they stand in a result.
    """

    name: str
    title: str
    description: str = ""
    countermeasures: tuple[str, ...] = ()  # columns, in order; empty: whatever the results hold
    protectors: tuple[str, ...] = ()  # rows the board wants; other rows are shown all the same
    reference: tuple[str, ...] = ()  # rows to compare with, sorted first
    clean: str = ""  # the row without protection
    plain: str = ""  # the column without a countermeasure
    argument: str = ""  # names the board on a command line, such as a file; the name where nothing is given
    dataset: str = ""  # empty: its name in results is not known without its files
    victims: tuple[str, ...] = ()
    protocol: str = ""
    seeds: tuple[int, ...] = (0,)
    recipe: Protocol | None = None  # what ``protocol`` names; None: not known
    protocol_versions: Mapping[str, int] = field(default_factory=dict)  # those that this version of ue-bench has
    engine_revision: int | None = None  # that of this version of ue-bench; None: not compared
    revision: Callable[[str, str], int | None] | None = None  # kind, name -> revision of the plugin that is here
    tags: Callable[[str, str], tuple[str, ...]] | None = None  # kind, selector -> tags of the plugins in it
    notes: tuple[str, ...] = ()
    column_notes: Mapping[str, str] = field(default_factory=dict)  # countermeasure -> why it changes nothing
    clean_data: Callable[[str], CleanData] | None = None  # countermeasure -> what its adversary has unprotected
    refits: Callable[[str], bool] | None = None  # countermeasure -> whether it changes the network after its training


def board_info(board: Board) -> BoardInfo:
    """Return what the pages need to know of a board; selectors in canonical form."""

    def selectors(kind: str, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(p.selector for p in registry().resolve(kind, texts))

    recipe = protocols.protocol(board.protocol)
    columns = cast(list[Countermeasure], registry().resolve("countermeasure", board.countermeasures))
    return BoardInfo(
        name=board.name,
        title=board.title,
        description=board.description,
        countermeasures=tuple(c.selector for c in columns),
        protectors=selectors("protector", board.protectors),
        reference=selectors("protector", board.reference),
        clean=registry().one("protector", board.clean).selector,
        plain=registry().one("countermeasure", board.plain).selector,
        argument=board.argument,
        dataset=_dataset(board),
        victims=selectors("victim", board.victims),
        protocol=recipe.name,
        recipe=recipe,
        seeds=board.seeds,
        protocol_versions=_versions() | {recipe.name: recipe.version},
        engine_revision=ENGINE_REVISION,
        revision=cache(_revision),  # asked for every result on a page
        tags=cache(_tags),
        notes=board.notes,
        column_notes=registry().identity_notes(),
        clean_data=cache(_clean_data),
        refits=cache(_refits),
    )


def _versions() -> dict[str, int]:
    """Return the versions of the registered protocols, save those that cannot be read."""
    versions = {}
    for name in protocols.names():
        with suppress(UserError):
            versions[name] = protocols.protocol(name).version
    return versions


def _revision(kind: str, name: str) -> int | None:
    """Return the revision of a plugin as it is installed; None where it is not."""
    try:
        return registry().find(kind, name).plugin_class.revision
    except UserError:
        return None


def _tags(kind: str, selector: str) -> tuple[str, ...]:
    """Return the tags of the plugins in a selector; none of one that is not installed."""
    tags: set[str] = set()
    with suppress(UserError):
        for part in (part for term in parse(selector) for part in term.parts):
            with suppress(UserError):
                tags |= {*registry().find(kind, part.name).tags}
    return tuple(sorted(tags))


def _refits(selector: str) -> bool:
    """Return whether a countermeasure changes the network after its training; not where it is not installed."""
    with suppress(UserError):
        plugins = cast(list[Countermeasure], registry().resolve("countermeasure", selector))
        return any(part.overrides("after_training") for plugin in plugins for part in parts(plugin))
    return False


def _clean_data(selector: str) -> CleanData:
    """Return what the adversary of a countermeasure has unprotected; nothing where it is not installed."""
    with suppress(UserError):
        for plugin in cast(list[Countermeasure], registry().resolve("countermeasure", selector)):
            return CleanData(plugin.clean_images, plugin.needs_pairs, plugin.control_selector, plugin.queries)
    return CleanData()


def _dataset(board: Board) -> str:
    """Return the board's dataset as results name it; empty where that takes files, which pages do without."""
    if "{data_dir}" in board.dataset:
        return ""
    try:
        [dataset] = registry().resolve("dataset", board.dataset)
        return dataset.selector
    except UserError:
        return ""
