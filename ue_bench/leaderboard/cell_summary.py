"""What the results of one cell of a table say together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from ue_bench.store.schema import Result

from .intervals import Estimate, accuracy, binomial_error

EARLY = 5.0  # points that an earlier epoch is better by, from which on that is said


@dataclass(frozen=True)
class CellSummary:
    """The results of one protector against one countermeasure, one a seed, in the order of seeds."""

    protector: str
    countermeasure: str
    results: tuple[Result, ...]
    superseded: int = 0  # older results of a seed that is here with a newer one
    refitted: bool = False  # the network was changed after its training: its last accuracy is not that of its curve

    @property
    def n(self) -> int:
        return len(self.results)

    @cached_property
    def accuracy(self) -> Estimate:
        return accuracy([r.metrics.accuracy_last for r in self.results], self.images)

    @property
    def mean(self) -> float:
        return self.accuracy.mean

    @property
    def half_width(self) -> float | None:
        return self.accuracy.half_width

    @cached_property
    def by_seed(self) -> dict[int, float]:
        return {r.seed: r.metrics.accuracy_last for r in self.results}

    @cached_property
    def peak(self) -> float:
        """Mean over seeds of the highest accuracy of any epoch, chosen on the test set: an oracle.

        Where the network was changed after its training, no epoch is of it: the last accuracy.
        """
        return self.mean if self.refitted else fmean(r.metrics.accuracy_peak for r in self.results)

    @property
    def peaks_early(self) -> bool:
        """Whether an adversary who stopped at the best epoch would have had more than 5 points above the last one."""
        return self.peak - self.mean > EARLY

    @property
    def binomial_error(self) -> float:
        """Binomial standard error from the size of the test set; not an interval over seeds."""
        return binomial_error(self.mean, self.images)

    @property
    def images(self) -> int:
        """Size of the test set."""
        return self.results[0].dataset.test

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(r.seed for r in self.results)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(r.key for r in self.results)
