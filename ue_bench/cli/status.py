"""``ue-bench status``: show which cells have results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import Finite, grid_options, json_option, print_json, refuse_options, resolved, shard_option

if TYPE_CHECKING:
    from ..grid.overview import Overview

FAILURES = 20  # that are named; --json has them all


@click.command("status")
@click.argument("folder", required=False, metavar="[OUT]", type=click.Path(path_type=Path, file_okay=False))
@grid_options
@shard_option
@click.option("--watch", is_flag=True, help="Show OUT again and again until nothing is missing or at work.")
@click.option("--interval", type=Finite(0.1), default=5.0, show_default=True,
              help="Seconds between two looks.")  # fmt: skip
@json_option
def command(folder: Path | None, watch: bool, interval: float, as_json: bool, **options: Any) -> int:
    """Show which cells have results, which failed and which are missing.

    With a results folder OUT, from any machine that sees it: by row, with failures and what is at work. Without OUT,
    cell by cell of the grid that the options describe.
    """
    if not watch:
        refuse_options(["interval"], "status without --watch")
    if folder is None:
        if watch:
            raise click.UsageError("--watch needs a results folder, OUT")
        return _cells(as_json, **options)
    refuse_options(options.keys() - {"cache_dir"}, "status of a folder, which tells of all cells in it")
    return _folder(folder, options["cache_dir"], watch, interval, as_json)


def _cells(as_json: bool, **options: Any) -> int:
    from ..store.results import ResultStore

    grid = resolved(**options)
    store = ResultStore(grid.env.out)
    done = {r.key: r for r in store.results()}
    failed = {f.key: f for f in store.failures()}
    rows = []
    for cell in grid.cells:
        state = "done" if cell.key in done else "failed" if cell.key in failed else "missing"
        row: dict[str, Any] = {"id": cell.id, "key": cell.key, "state": state}
        if state == "done":
            row["accuracy"] = done[cell.key].metrics.accuracy_last
        elif state == "failed":
            row["kind"], row["error"] = failed[cell.key].kind, failed[cell.key].error
        rows.append(row)
    if as_json:
        print_json(rows)
        return 0
    for row in rows:
        more = f"{row['accuracy']:.1f}" if "accuracy" in row else row.get("error", "")
        print(f"{row['state']:<8} {row['id']}  {more}".rstrip())
    counts = {s: sum(r["state"] == s for r in rows) for s in ("done", "failed", "missing")}
    print(", ".join(f"{n} {s}" for s, n in counts.items()))
    return 0


def _folder(out: Path, cache_dir: Path | None, watch: bool, interval: float, as_json: bool) -> int:
    from .. import machine
    from ..grid.overview import overview

    cache = cache_dir or machine.cache_dir()
    shown = ""
    while True:
        found = overview(out.absolute(), cache.absolute())
        text = "" if as_json else _text(found)
        if as_json:
            print_json(found.plain())
        elif text != shown:
            click.clear() if watch else None
            print(text, flush=True)
            shown = text
        if not watch or found.finished:
            return 0
        time.sleep(interval)


def _text(found: Overview) -> str:
    from tabulate import tabulate

    from ..grid.progress import duration

    done, failed, missing = found.counts
    body = [[r.protector, r.done, r.failed, "?" if r.missing is None else r.missing] for r in found.rows]
    lines = [str(tabulate(body, ["protector", "done", "failed", "missing"], tablefmt="simple", disable_numparse=True))]
    if found.failures:
        lines.append("")
    for failure in found.failures[:FAILURES]:
        log = found.logs.get(failure.key)
        lines.append(f"failed ({failure.kind})  {failure.id}: {failure.error}" + (f"  [{log}]" if log else ""))
    if len(found.failures) > FAILURES:
        lines.append(f"... and {len(found.failures) - FAILURES} more; --json has them all")
    if found.running:
        lines.append("")
    for stage in found.running:
        at = "lost" if stage.is_lost else "at work"
        parts = [
            f"{stage.host} {stage.slot}".strip(),
            "" if stage.since is None else f"for {duration(stage.since)}",
            f"{stage.fraction:.0%}" if stage.fraction else "",
            stage.text,
            "" if stage.is_lost or stage.seconds_left is None else f"some {duration(stage.seconds_left)} left",
        ]
        lines.append(f"{at:<8} {stage.label}  ({', '.join(filter(None, parts))})")
    left = "" if found.seconds_left is None else f", some {duration(found.seconds_left)} at the pace of the last hour"
    counts = f"{done} done, {failed} failed" + ("" if missing is None else f", {missing} missing")
    return "\n".join([*lines, "", counts + left])
