"""``ue-bench status``: show which cells have results."""

from __future__ import annotations

from typing import Any

import click

from .common import grid_options, json_option, print_json, resolved


@click.command("status")
@grid_options
@json_option
def command(as_json: bool, **options: Any) -> int:
    """Show which cells of a board have results, which failed and which are missing."""
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
