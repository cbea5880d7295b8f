"""Compute two cells with two workers, as ``ue-bench run`` does, and no reference rows: what ``test_training`` times.

python benchmarks/cells.py CACHE OUT DATASET VICTIM COLUMN PROTOCOL
"""

from __future__ import annotations

import sys
from pathlib import Path

from ue_bench.grid.grid import Request, resolve
from ue_bench.grid.progress import Quiet


def main(cache: str, out: str, dataset: str, victim: str, column: str, recipe: str) -> dict[str, str]:
    """Return why stages failed, by key."""
    grid = resolve(
        Request(
            dataset=dataset, protectors=["none"], countermeasures=[column], victims=[victim], protocol=recipe,
            seeds=[0, 1], devices="cpu", reference=False, out=Path(out), cache_dir=Path(cache),
        )
    )  # fmt: skip
    return grid.fill(Quiet(), 2)


if __name__ == "__main__":
    sys.exit(str(failed) if (failed := main(*sys.argv[1:])) else 0)
