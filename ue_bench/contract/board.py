"""The fields of a board: a dataset, a protocol, and the grid that fills a leaderboard."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints, field_validator
from pydantic.dataclasses import dataclass

from ..arguments import LARGEST_SEED

Text = Annotated[str, StringConstraints(min_length=1)]
Selectors = Annotated[tuple[Text, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Board:
    """A board: everything that a leaderboard is made of. All lists hold selectors.

    ``reference`` rows are always run and shown. ``{data_dir}`` in ``dataset`` is the data folder of the command.
    """

    name: Text = Field(description="on pages and of the results folder")
    argument: str = Field("", description="what names it on the command line; its name where nothing is given")
    title: Text = Field("", description="heading of its pages; the name where nothing is given")
    description: str = Field("", description="one line under the title, and in 'list boards'")
    dataset: Text = Field(description="selector of the images")
    protocol: Text = Field(description="name of the training recipe, or its file relative to that of the board")
    victims: Selectors = Field(description="selectors of the networks to train")
    protectors: Selectors = Field(description="selectors of the rows")
    countermeasures: Selectors = Field(description="selectors of the columns, which mean and worst case are taken of")
    reference: Selectors = Field(("@reference",), description="selectors of the rows that are always there")
    clean: Text = Field("@clean", description="selector of the row without protection")
    plain: Text = Field("@plain", description="selector of the column without a countermeasure")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...], Field(min_length=1)] = Field(
        (0,), description="seeds of every cell"
    )
    notes: tuple[Text, ...] = Field((), description="what a reader must know")

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        twice = [seed for i, seed in enumerate(seeds) if seed in seeds[:i]]
        if twice:
            raise ValueError(f"seed {twice[0]} is there twice")
        return seeds
