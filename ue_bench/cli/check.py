"""``ue-bench check``: try plugins out, and say what they do and cost."""

from __future__ import annotations

import contextlib
import fnmatch
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import (
    Grid,
    cache_option,
    data_dir_option,
    dataset_option,
    devices_option,
    grid,
    jobs_option,
    json_option,
    say,
    threads_option,
)

if TYPE_CHECKING:
    from ..contract.context import Context
    from ..contract.imageset import ImageSet
    from ..contract.plugin import Plugin
    from ..testing import Finding

KINDS = ("protector", "countermeasure", "victim")
COLOURS = {"ok": "green", "note": None, "fail": "red"}
REFERENCE = {"protector": "none", "countermeasure": "vanilla"}


@click.command("check")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@dataset_option
@click.option("--board", "board_name", default="demo", show_default=True, help="Where dataset and victim come from.")
@click.option("--images", type=click.IntRange(1), default=200, show_default=True, help="Training images to try it on.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice and of the plugin.")
@click.option("--train", is_flag=True, help="Also train the board's victim, with it and without.")
@devices_option
@jobs_option
@threads_option
@click.option("--out", type=click.Path(path_type=Path), help="Results folder of --train; ue-bench-results/BOARD by "
              "default.")  # fmt: skip
@data_dir_option
@cache_option
@json_option
def command(
    names: tuple[str, ...],
    images: int,
    seed: int,
    train: bool,
    jobs: int | None,
    threads: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Try protectors, countermeasures and victims on some images: do they keep the rules, what do they change and cost?

    A line a finding; exit code 4 when one of them fails. Times are measured on this machine.

    \b
    ue-bench check 'jpeg[quality=10]' 'gray+jpeg[quality=10]' --train
    """
    from ..errors import UserError

    texts = {kind: [n for n in names if kind in _kinds(n)] for kind in KINDS}
    plugins = _plugins(texts)
    wanted = _grid({}, threads, options)
    found: list[tuple[Plugin, list[Finding]]] = []
    codes: set[int] = set()
    with _tried_on(wanted) as (ctx, data):
        for plugin in plugins:
            try:
                found.append((plugin, _check(plugin, data, ctx, images, seed, wanted)))
            except UserError as error:
                if len(plugins) == 1:
                    raise
                say(f"ue-bench: {plugin.selector} cannot be checked: {error}")
                codes.add(error.exit_code)
    if train:
        for kind in (k for k in KINDS if any(plugin.kind == k for plugin, _ in found)):
            try:
                failed = _train(_grid({kind: texts[kind]}, threads, options), found, kind, jobs, threads, options)
                codes.add(1 if failed else 0)
            except UserError as error:
                say(f"ue-bench: no training: {error}")
                codes.add(error.exit_code)
    findings = [finding for _, several in found for finding in several]
    print(json.dumps(_plain(found), indent=1, ensure_ascii=False)) if as_json else _print(found)
    broken = sum(f.state == "fail" for f in findings)
    say(f"ue-bench: {sum(f.state != 'note' for f in findings)} checks, {broken} failed")
    return 4 if broken else max(codes, default=0)


def _kinds(text: str) -> list[str]:
    """The kinds of plugins that a selector can stand for. Raises UserError with the nearest names when it is none."""
    from ..catalogue import selectors
    from ..catalogue.registry import registry
    from ..errors import UserError, did_you_mean

    names = registry()
    wanted = [part.name for term in selectors.parse(text) for part in term.parts]

    def known(kind: str, name: str) -> bool:
        entries = [e for e in names.entries.values() if e.kind == kind]
        if name.startswith("@"):
            return (kind, name[1:]) in names.sets or any(name[1:] in e.tags for e in entries)
        return any(fnmatch.fnmatchcase(e.name, name) for e in entries)

    found = [kind for kind in KINDS if all(known(kind, name) for name in wanted)]
    if not found:
        every = sorted({e.name for e in names.entries.values() if e.kind in KINDS})
        odd = next((n for n in wanted if not any(known(k, n) for k in KINDS)), wanted[0])
        raise UserError(f"no protector, countermeasure or victim {odd!r}", did_you_mean(odd, every))
    return found


def _plugins(texts: dict[str, list[str]]) -> list[Plugin]:
    from ..catalogue.registry import registry

    return [plugin for kind, names in texts.items() if names for plugin in registry().resolve(kind, names)]


def _grid(chosen: dict[str, list[str]], threads: int, options: dict[str, Any]) -> Grid:
    """The board's grid with the rows and columns of ``chosen`` beside the references, on clean images otherwise."""
    from .run import loading

    rows, columns = ((REFERENCE[kind], *chosen.get(kind, ())) for kind in ("protector", "countermeasure"))
    return grid(protectors=rows, countermeasures=columns, victims=tuple(chosen.get("victim", ())), protocol=None,
                seeds=None, fraction=1.0, precision="auto", threads=threads, report=loading(), **options)  # fmt: skip


@contextlib.contextmanager
def _tried_on(wanted: Grid) -> Iterator[tuple[Context, ImageSet]]:
    """A context for plugins and the clean training images, with as many threads as were asked for."""
    import torch

    from ..grid.stages import _context
    from ..store.artifacts import ArtifactStore, load_images
    from .run import loading

    store, env = ArtifactStore(wanted.env.cache_dir), wanted.env
    data = load_images(store.path("datasets", wanted.data.artifact) / "train")
    before = torch.get_num_threads()
    torch.set_num_threads(env.threads)
    try:
        with _context(env, store, 0, loading(), wanted.cells[0].precision) as ctx:
            yield ctx, data
    finally:
        torch.set_num_threads(before)


def _check(plugin: Plugin, data: ImageSet, ctx: Context, images: int, seed: int, wanted: Grid) -> list[Finding]:
    from ..contract.plugin import Countermeasure, Protector, Victim
    from ..testing import check_countermeasure, check_protector, check_victim

    if isinstance(plugin, Protector):
        return check_protector(plugin, data, ctx, images, seed)
    if isinstance(plugin, Countermeasure):
        return check_countermeasure(plugin, data, ctx, images, seed, wanted.cells[0].victim.build)
    assert isinstance(plugin, Victim)
    return check_victim(plugin, data, ctx, seed)


def _train(
    wanted: Grid,
    found: list[tuple[Plugin, list[Finding]]],
    kind: str,
    jobs: int | None,
    threads: int,
    options: dict[str, Any],
) -> bool:
    """Add to ``found`` what the plugins of ``kind`` do to accuracy; whether a cell failed."""
    from ..store.results import ResultStore
    from ..testing import Finding
    from .run import fill

    plugins = [(plugin, findings) for plugin, findings in found if plugin.kind == kind]
    asked = {plugin.selector for plugin, _ in plugins} | {REFERENCE.get(kind)}
    alone = [
        cell
        for cell in wanted.cells
        if getattr(cell, kind).selector in asked
        and all(getattr(cell, k).selector == reference for k, reference in REFERENCE.items() if k != kind)
    ]
    wanted = replace(wanted, cells=alone)
    store = ResultStore(wanted.env.out)
    store.create()
    with store.lock():
        failed = fill(wanted, wanted.planned(), options["devices"], jobs, threads)
    results = {r.key: r.metrics.accuracy_last for r in store.results()}

    def accuracies(selector: str) -> list[float]:
        cells = [c for c in alone if getattr(c, kind).selector == selector]
        return [results[c.key] for c in cells if c.key in results]

    plain = accuracies(REFERENCE.get(kind, ""))
    for plugin, findings in plugins:
        under = accuracies(plugin.selector)
        if not under or (kind in REFERENCE and not plain):
            findings.append(Finding("train", "accuracy", "fail", "no result; 'ue-bench status' says why"))
            continue
        findings.append(_accuracy(kind, under, plain, alone[0]))
    return failed


def _accuracy(kind: str, under: list[float], plain: list[float], cell: Any) -> Finding:
    """What is left of the accuracy on clean test images; means over victims and seeds."""
    from ..testing import Finding

    mean = sum(under) / len(under)
    setting = f"n={len(under)}, {cell.data.plugin.selector}, {cell.protocol.name}"
    values: dict[str, Any] = {"accuracy": mean, "n": len(under)}
    text = f"{mean:.1f} % on clean test images"
    if kind in REFERENCE:
        before = sum(plain) / len(plain)
        values |= {"reference": before, "difference": mean - before}
        text += f", {mean - before:+.1f} points from {before:.1f} % without it"
        setting += f", {cell.victim.selector}"
    return Finding("train", "accuracy", "note", f"{text} ({setting})", values)


def _plain(found: list[tuple[Plugin, list[Finding]]]) -> list[dict[str, Any]]:
    return [
        {"selector": plugin.selector, "kind": plugin.kind, **asdict(finding)}
        for plugin, findings in found
        for finding in findings
    ]


def _print(found: list[tuple[Plugin, list[Finding]]]) -> None:
    for number, (plugin, findings) in enumerate(found):
        click.echo(("\n" if number else "") + f"{plugin.selector} ({plugin.kind})")
        for finding in findings:
            click.echo("  " + click.style(str(finding), fg=COLOURS[finding.state]))
