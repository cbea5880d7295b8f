"""Whether bf16 moves a cell: the same twelve cells in both precisions and several seeds, and how far apart they are.

    python benchmarks/precision.py --data-dir DATA --out precision-results

What is interrupted continues when it is given again. The cells are ``none``, ``noise``, ``lsp`` and ``ops`` against
``vanilla``, ``gray`` and ``jpeg[quality=10]`` on the board ``cifar10-micro``, with fewer images for want of time:
``--per-class 1000`` computes those of the board.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance

import ue_bench
from ue_bench.leaderboard.intervals import t_quantile
from ue_bench.store.schema import Result

PROTECTORS = ("none", "noise", "lsp", "ops")
COUNTERMEASURES = ("vanilla", "gray", "jpeg[quality=10]")


@dataclass(frozen=True)
class Shift:
    """How far bf16 moves one cell, in points of accuracy, over the seeds that both precisions have."""

    name: str
    fp32: float
    difference: float  # bf16 - fp32, of the means
    noise: float  # half-width of the 95 % interval of such a difference, from the spread over seeds; nan for one seed
    n: int

    @property
    def moved(self) -> bool:
        """Whether the difference is beyond the noise of seeds."""
        return abs(self.difference) > self.noise


def shifts(results: Iterable[Result]) -> list[Shift]:
    """Return the shift of every cell that has results of both precisions for one seed at least, by name."""
    cells: dict[str, dict[str, dict[int, float]]] = {}
    for one in results:
        by_precision = cells.setdefault(f"{one.protector} / {one.countermeasure}", {})
        by_precision.setdefault(one.precision, {})[one.seed] = one.metrics.accuracy_last
    both = {name: of for name, of in sorted(cells.items()) if of.get("bf16", {}).keys() & of.get("fp32", {}).keys()}
    return [_shift(name, of) for name, of in both.items()]


def _shift(name: str, accuracies: Mapping[str, Mapping[int, float]]) -> Shift:
    bf16, fp32 = accuracies["bf16"], accuracies["fp32"]
    seeds = sorted(bf16.keys() & fp32.keys())
    low, high = [bf16[seed] for seed in seeds], [fp32[seed] for seed in seeds]
    n = len(seeds)
    noise = t_quantile(2 * n - 2) * math.sqrt((variance(low) + variance(high)) / n) if n > 1 else math.nan
    return Shift(name, fmean(high), fmean(low) - fmean(high), noise, n)


def table(found: Sequence[Shift]) -> str:
    """Return the shifts as a Markdown table, with the number of those beyond the noise of seeds."""
    lines = ["| cell | n | fp32 | bf16 - fp32 | seed noise, 95 % |", "|---|---|---|---|---|"]
    lines += [f"| {s.name} | {s.n} | {s.fp32:.1f} | {s.difference:+.1f} | {s.noise:.1f} |" for s in found]
    moved = sum(s.moved for s in found)
    return "\n".join([*lines, "", f"{moved} of {len(found)} beyond it; by chance one in twenty is"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("precision-results"), help="results folder")
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 is")
    parser.add_argument("--cache-dir", type=Path, help="where sets are kept")
    parser.add_argument("--per-class", type=int, default=200, help="training images of a class")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="workers")
    given = parser.parse_args()
    for seed in range(given.seeds):  # after each seed both precisions have the same cells
        for precision in ("fp32", "bf16"):
            ue_bench.run(
                "cifar10-micro", dataset=f"cifar10[limit_per_class={given.per_class}]", protectors=PROTECTORS,
                countermeasures=COUNTERMEASURES, seeds=seed, precision=precision, jobs=given.jobs, out=given.out,
                data_dir=given.data_dir, cache_dir=given.cache_dir,
            )  # fmt: skip
        print(table(shifts(ue_bench.load_results(given.out, "cifar10-micro"))), flush=True)


if __name__ == "__main__":
    main()
