"""What was asked of a results folder: kept in it, so that whoever looks knows what is missing."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..atomic import write_atomically
from ..keys import digest
from .records import records
from .schema import cell_id, json_text

FOLDER = "requests"


class Wanted(BaseModel):
    """A grid that was to be filled: every combination of its axes, by selectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    dataset: str
    fingerprint: str
    protectors: Sequence[str]
    countermeasures: Sequence[str]
    victims: Sequence[str]
    protocol: str
    seeds: Sequence[int]
    fraction: float
    precision: str

    def ids(self) -> Iterator[tuple[str, str]]:
        """Yield the protector and the id of every cell."""
        for protector, *rest in itertools.product(self.protectors, self.countermeasures, self.victims, self.seeds):
            countermeasure, victim, seed = map(str, rest)
            names = self.dataset, protector, countermeasure, victim, self.protocol
            yield protector, cell_id(*names, seed, self.fraction)


def record(out: Path, wanted: Wanted) -> None:
    """Keep what is wanted. Where it cannot be written, those who look later do without."""
    plain = wanted.model_dump(mode="json")
    path = out / FOLDER / f"{digest(plain)[:16]}.json"
    with contextlib.suppress(OSError):
        if not path.exists():
            write_atomically(path, json_text(plain))


def recorded(out: Path) -> list[Wanted]:
    """Return all that was ever wanted of the folder."""
    return records(out / FOLDER, Wanted, below=False)
