"""Turn what the benchmarks measured into a table of ratios.

    pytest benchmarks --benchmark-only --benchmark-json=out.json
    python benchmarks/summary.py out.json [--clock wall]

A ratio is the time of the other way over ours, of one pair of adjacent runs: 2 means that ours takes half. Told are the
median of n pairs, the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

CLOCKS = {"wall": 0, "cpu": 1}  # places in what ``pairs.clocks`` returns


def ratios(entry: dict[str, Any], clock: str) -> list[float]:
    """Return the ratio of every pair of one benchmark. Raises ValueError when a time is not above 0."""
    place = CLOCKS[clock]
    pairs = zip(entry["extra_info"]["there"], entry["extra_info"]["here"], strict=True)
    times = [(there[place], here[place]) for there, here in pairs]
    if min(map(min, times)) <= 0:
        raise ValueError(f"{entry['name']}: a time of 0 s says nothing")
    return [there / here for there, here in times]


def table(report: dict[str, Any], clock: str) -> str:
    """Return a Markdown table of the benchmarks of ``report`` that were run in pairs, in their order."""
    lines = ["| what | against | n | times as fast | least - most |", "|---|---|---:|---:|---:|"]
    for entry in report["benchmarks"]:
        info = entry["extra_info"]
        if "against" in info:
            found = ratios(entry, clock)
            spread = f"{min(found):.2f} - {max(found):.2f}"
            lines.append(f"| {info['what']} | {info['against']} | {len(found)} | {median(found):.2f} | {spread} |")
    return "\n".join(lines)


def conditions(report: dict[str, Any], clock: str) -> str:
    """Return one line that says where and how ``report`` was measured."""
    machine, notes = report["machine_info"], [entry["extra_info"] for entry in report["benchmarks"]]
    processor = machine.get("cpu", {}).get("brand_raw") or machine.get("processor") or machine["machine"]
    cores = machine.get("cpu", {}).get("count")
    of = {"wall": "wall time", "cpu": "CPU seconds"}[clock]

    def all_of(name: str) -> str:
        return ", ".join(sorted({str(info[name]) for info in notes if name in info})) or "unknown"

    return (
        f"Ratios of {of}; {processor}, {cores or 'unknown'} cores; torch {all_of('torch')}; "
        f"ours in {all_of('precision')}; size {all_of('size')}; measured {report['datetime'][:10]}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Print a table of ratios from what pytest-benchmark wrote.")
    parser.add_argument("report", type=Path, help="file of --benchmark-json")
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu", help="what is compared (default: cpu)")
    given = parser.parse_args(arguments)
    report = json.loads(given.report.read_text(encoding="utf-8"))
    print(conditions(report, given.clock), table(report, given.clock), sep="\n\n")


if __name__ == "__main__":
    main()
