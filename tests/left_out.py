"""Say at the end of a test run what was left out: ``-ra`` names skipped tests, and deselected ones are counted here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

REASONS = {
    "slow": "minutes: pytest -m slow",
    "gpu": "a CUDA device: pytest -m gpu",
    "browser": "a Chromium: pytest -m browser",
}
KEY = pytest.StashKey[Counter[str]]()
NAME = "ue_bench_left_out"  # among what a worker of xdist hands to the process that prints


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count tests that the options leave out, by the first marker that says why."""
    for item in items:
        counts = item.config.stash.setdefault(KEY, Counter())
        counts[next((name for name in REASONS if item.get_closest_marker(name)), "other")] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand a worker's counts over."""
    output = getattr(session.config, "workeroutput", None)
    counts = session.config.stash.get(KEY, None)
    if output is not None and counts is not None:
        output[NAME] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the counts of the first worker that ends: every worker leaves the same tests out."""
    counts = getattr(node, "workeroutput", {}).get(NAME)
    if counts:
        node.config.stash[KEY] = Counter(counts)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print a line for each reason why tests did not run."""
    counts: Counter[str] = config.stash.get(KEY, Counter[str]())
    if not counts:
        return
    terminalreporter.section("not run", sep="=")
    for name, count in sorted(counts.items()):
        why = REASONS.get(name, "by the options given")
        terminalreporter.write_line(f"NOT RUN [{count}] {name}: {why}")
