"""What a board is, as far as its pages are concerned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..catalogue.boards import Board
from ..catalogue.registry import registry
from ..contract import protocol as protocols
from ..errors import UserError
from ..grid.cell import ENGINE_REVISION

IDENTITY = (
    "No-op: at sigma 0.1 and kernel 3 this filter returns every 8-bit image unchanged. "
    "It repeats vanilla with the same seed: equal to it on a CPU, off by run noise on a GPU; not robustness."
)


def _identities() -> dict[str, str]:
    return {"gaussian-filter": IDENTITY, "gaussian-filter[sigma=0.1]": IDENTITY}


@dataclass(frozen=True)
class BoardInfo:
    """The plan of a board: which rows and columns it wants, and what its cells are unless something else is asked for.

    Selectors are canonical, as they stand in a result.
    """

    name: str
    title: str
    description: str = ""
    countermeasures: tuple[str, ...] = ()  # columns, in order; empty: whatever the results hold
    protectors: tuple[str, ...] = ()  # rows the board wants; other rows are shown all the same
    reference: tuple[str, ...] = ("none", "noise")  # rows to compare with, sorted first
    dataset: str = ""  # empty: its name in results is not known without its files
    victims: tuple[str, ...] = ()
    protocol: str = ""
    seeds: tuple[int, ...] = (0,)
    protocol_versions: Mapping[str, int] = field(default_factory=dict)  # those that this version of ue-bench has
    engine_revision: int | None = None  # that of this version of ue-bench; None: not compared
    revision: Callable[[str, str], int | None] | None = None  # kind, name -> revision of the plugin that is here
    notes: tuple[str, ...] = ()
    column_notes: Mapping[str, str] = field(default_factory=_identities)  # countermeasure -> what a reader must know


def board_info(board: Board) -> BoardInfo:
    """Return what the pages need to know of a board; selectors in canonical form."""

    def selectors(kind: str, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(p.selector for p in registry().resolve(kind, texts))

    return BoardInfo(
        name=board.name,
        title=board.title,
        description=board.description,
        countermeasures=selectors("countermeasure", board.countermeasures),
        protectors=selectors("protector", board.protectors),
        reference=selectors("protector", board.reference),
        dataset=_dataset(board),
        victims=selectors("victim", board.victims),
        protocol=board.protocol,
        seeds=board.seeds,
        protocol_versions={name: protocols.protocol(name).version for name in protocols.names()},
        engine_revision=ENGINE_REVISION,
        revision=_revision,
        notes=board.notes,
    )


def _revision(kind: str, name: str) -> int | None:
    """Return the revision of a plugin as it is installed; None where it is not."""
    try:
        return registry().find(kind, name).plugin_class.revision
    except UserError:
        return None


def _dataset(board: Board) -> str:
    """Return the board's dataset as results name it; empty where that takes files, which pages do without."""
    if "{data_dir}" in board.dataset:
        return ""
    try:
        [dataset] = registry().resolve("dataset", board.dataset)
        return dataset.selector
    except UserError:
        return ""
