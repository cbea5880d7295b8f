"""``ue-bench evade``: classifiers trained on clean images before protected test images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from .common import Grid, evasion_options, grid, jobs_option, json_option, say

if TYPE_CHECKING:
    from ..grid.evasion_plan import EvasionCell
    from ..grid.plan import Planned
    from ..store.evasion import EvasionResult


@click.command("evade")
@click.option("-P", "--protector", "protectors", multiple=True, required=True,
              help="Selectors; 'none' is always there.")  # fmt: skip
@click.option("-C", "--countermeasure", "countermeasures", multiple=True, default=("@raeg",), show_default=True,
              help="What is done to test images before they are shown.")  # fmt: skip
@evasion_options
@jobs_option
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and stop.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@json_option
def command(
    protectors: tuple[str, ...],
    countermeasures: tuple[str, ...],
    images: int | None,
    transfer: bool,
    as_json: bool,
    markdown: bool,
    dry_run: bool,
    jobs: int | None,
    devices: str,
    threads: int,
    **options: Any,
) -> int:
    """Show protected test images to classifiers that were trained on clean images, and print their accuracy.

    Rows are protectors, columns what is done to images before. Victims of the board are the classifiers, its protocol
    trains them. What exists is not computed again.

    \b
    ue-bench evade -P 'raeg[weights=raeg.safetensors]' --board cifar10-micro -D cifar10
    """
    from ..errors import UserError
    from ..leaderboard.evasion import panels, setting
    from ..store.schema import as_json as plain
    from .run import loading

    if as_json and markdown:
        raise UserError("--json and --markdown exclude each other", "choose one")
    say("ue-bench: preparing")
    whole = grid(
        ("none", *protectors), countermeasures, devices=devices, threads=threads, fraction=1.0, report=loading(),
        **options,
    )  # fmt: skip
    wanted = Evasion.of(whole, ("none", *protectors), images, transfer)
    if dry_run:
        from .plan import show

        return show(wanted.grid, wanted.planned(), as_json)
    failed = wanted.fill(devices, jobs, threads)
    results = wanted.results()
    if as_json:
        print(json.dumps([plain(r) for r in results], indent=1, ensure_ascii=False))
    else:
        found = panels(results, setting(wanted.cells))
        print("\n".join(p.markdown() if markdown else p.text() for p in found), end="")
    say(f"ue-bench: {len(results)} of {len(wanted.cells)} cells have results in {wanted.grid.env.out / 'evasion'}")
    return 1 if failed or len(results) < len(wanted.cells) else 0


@dataclass(frozen=True)
class Evasion:
    """Cells of evasion, and the grid that says where they are computed and kept."""

    grid: Grid
    cells: Sequence[EvasionCell]

    @classmethod
    def of(cls, whole: Grid, protectors: Sequence[str], images: int | None, transfer: bool) -> Evasion:
        """The cells of ``whole`` for these protectors: a board's reference rows are not part of it."""
        from ..catalogue.registry import registry
        from ..grid.evasion_plan import EvasionCell

        own = {repr(p) for p in registry().resolve("protector", protectors)}
        chosen = [cell for cell in whole.cells if repr(cell.protector) in own]
        return cls.from_cells(whole, [EvasionCell.of(cell, images, transfer) for cell in chosen])

    @classmethod
    def from_cells(cls, whole: Grid, cells: Sequence[EvasionCell]) -> Evasion:
        return cls(replace(whole, cells=list(cells)), list(cells))

    def planned(self) -> list[Planned]:
        """Stages still to compute."""
        from ..grid.evasion_plan import stages
        from ..store.artifacts import ArtifactStore
        from ..store.evasion import EvasionStore

        artifacts = ArtifactStore(self.grid.env.cache_dir)
        have = {r.key for r in EvasionStore(self.grid.env.out).results()}
        return stages(self.cells, lambda kind, key: key in have if kind == "evasion" else artifacts.has(kind, key))

    def fill(self, devices: str, jobs: int | None, threads: int) -> bool:
        """Compute what is missing; whether something failed."""
        from ..store.results import ResultStore
        from .run import fill

        store = ResultStore(self.grid.env.out)
        store.create()
        with store.lock():
            return fill(self.grid, self.planned(), devices, jobs, threads)

    def results(self) -> list[EvasionResult]:
        """Those of the cells, in their order."""
        from ..store.evasion import EvasionStore

        known = {r.key: r for r in EvasionStore(self.grid.env.out).results()}
        return [known[cell.key] for cell in self.cells if cell.key in known]
