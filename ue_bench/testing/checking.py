"""Check plugins by their selectors: the rules they keep on some images of a board, and their price in training."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import machine
from ..catalogue import selectors
from ..catalogue.registry import registry
from ..contract.context import Context, ProgressReport, silent
from ..contract.imageset import ImageSet
from ..contract.plugin import Plugin
from ..errors import UserError
from ..grid.cell import Cell
from ..grid.data import open_context, stored_split
from ..grid.filling import Follower
from ..grid.grid import Grid, Request, resolve
from ..grid.stages.base import Stores
from . import check_plugin
from .findings import Finding

KINDS = ("protector", "countermeasure", "victim", "dataset")
REFERENCE = {"protector": "@clean", "countermeasure": "@plain"}


@dataclass
class Checked:
    """A plugin and the findings about it."""

    plugin: Plugin
    findings: list[Finding] = field(default_factory=list)


def kinds_of(text: str) -> list[str]:
    """Return the kinds of plugins that a selector can stand for.

    Raises UserError with the nearest names when it is none.
    """
    names = registry()
    wanted = selectors.plugin_names(text)

    def known(kind: str, name: str) -> bool:
        records = names.of_kind(kind)
        if name.startswith("@"):
            return (kind, name[1:]) in names.sets or any(name[1:] in r.tags for r in records)
        return any(fnmatch.fnmatchcase(r.name, name) for r in records)

    kinds = [kind for kind in KINDS if all(known(kind, name) for name in wanted)]
    if not kinds:
        every = sorted({r.name for kind in KINDS for r in names.of_kind(kind)})
        odd = next((n for n in wanted if not any(known(k, n) for k in KINDS)), wanted[0])
        raise UserError(f"no protector, countermeasure, victim or dataset {odd!r}", names.nearest(odd, every))
    return kinds


class Check:
    """A trial of plugins on the images of a board; ``problems`` are those that could not be tried."""

    def __init__(
        self,
        names: Sequence[str],
        request: Request,
        report: ProgressReport = silent,
        seconds: float | None = None,
    ) -> None:
        """Find the plugins and load the images; each is checked for so many ``seconds``, or without a limit.

        Raises UserError when a name stands for none.
        """
        self.request, self.report, self.seconds = request, report, seconds
        self.texts = {kind: [n for n in names if kind in kinds_of(n)] for kind in KINDS}
        self.plugins = [p for kind, texts in self.texts.items() if texts for p in registry().resolve(kind, texts)]
        self.grid = self._grid({})
        self.checked: list[Checked] = []
        self.problems: list[tuple[str, UserError]] = []

    def rules(self, images: int, seed: int) -> None:
        """Check what each plugin promises. Raises UserError when the only plugin cannot be checked."""
        with self._context() as (ctx, data):
            for plugin in self.plugins:
                try:
                    self.checked.append(Checked(plugin, self._check(plugin, data, ctx, images, seed)))
                except UserError as error:
                    if len(self.plugins) == 1:
                        raise
                    self.problems.append((f"{plugin.name} cannot be checked", error))  # its file may be missing

    def train(self, jobs: int | None, follower: Callable[[], Follower]) -> bool:
        """Train the board's victim with and without each plugin; return whether a cell failed."""
        failed = False
        for kind in (k for k in KINDS if k != "dataset" and any(c.plugin.kind == k for c in self.checked)):
            try:
                failed |= self._train(kind, jobs, follower())
            except UserError as error:
                self.problems.append(("no training", error))
        return failed

    def _grid(self, chosen: dict[str, list[str]]) -> Grid:
        """Return the board's grid with the rows and columns of ``chosen`` beside the references."""
        rows, columns = ((REFERENCE[kind], *chosen.get(kind, ())) for kind in ("protector", "countermeasure"))
        wanted = replace(
            self.request, protectors=rows, countermeasures=columns, victims=tuple(chosen.get("victim", ()))
        )
        return resolve(wanted, self.report)

    @contextlib.contextmanager
    def _context(self) -> Iterator[tuple[Context, ImageSet]]:
        """Give a context for plugins and the clean training images, with as many threads as were asked for."""
        env, store = self.grid.env, Stores(self.grid.env).artifacts
        with (
            machine.torch_threads(env.threads),
            open_context(env, store, 0, self.report, self.grid.cells[0].precision) as ctx,
        ):
            yield ctx, stored_split(store, self.grid.data, "train")

    def _check(self, plugin: Plugin, data: ImageSet, ctx: Context, images: int, seed: int) -> list[Finding]:
        build = self.grid.cells[0].victim.build
        return check_plugin(plugin, data, ctx, images, seed, build, self.seconds)

    def _train(self, kind: str, jobs: int | None, follower: Follower) -> bool:
        """Add what the plugins of ``kind`` do to accuracy to their findings; return whether a cell failed."""
        checked = [c for c in self.checked if c.plugin.kind == kind]
        reference = {k: registry().one(k, selector).selector for k, selector in REFERENCE.items()}
        asked = {c.plugin.selector for c in checked} | {reference.get(kind)}
        whole = self._grid({kind: self.texts[kind]})
        alone = [
            cell
            for cell in whole.cells
            if getattr(cell, kind).selector in asked
            and all(getattr(cell, k).selector == selector for k, selector in reference.items() if k != kind)
        ]
        grid = whole.with_cells(alone)
        failed = grid.fill(follower, jobs)
        results = {r.key: r.metrics.accuracy_last for r in grid.results()}

        def accuracies(selector: str) -> list[float]:
            cells = [c for c in alone if getattr(c, kind).selector == selector]
            return [results[c.key] for c in cells if c.key in results]

        plain = accuracies(reference.get(kind, ""))
        for one in checked:
            under = accuracies(one.plugin.selector)
            if not under or (kind in REFERENCE and not plain):
                one.findings.append(Finding("train", "accuracy", "fail", "no result; 'ue-bench status' says why"))
                continue
            one.findings.append(_accuracy(kind, under, plain, alone[0]))
        return bool(failed)


def _accuracy(kind: str, under: list[float], plain: list[float], cell: Cell) -> Finding:
    """Return what is left of the accuracy on clean test images; means over victims and seeds."""
    mean = sum(under) / len(under)
    setting = f"n={len(under)}, {cell.data.info.selector}, {cell.protocol.name}"
    values: dict[str, Any] = {"accuracy": mean, "n": len(under)}
    text = f"{mean:.1f} % on clean test images"
    if kind in REFERENCE:
        before = sum(plain) / len(plain)
        values |= {"reference": before, "difference": mean - before}
        text += f", {mean - before:+.1f} points from {before:.1f} % without it"
        setting += f", {cell.victim.selector}"
    return Finding("train", "accuracy", "note", f"{text} ({setting})", values)
