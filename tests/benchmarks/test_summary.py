"""The table of ratios that ``benchmarks/summary.py`` makes of a report of pytest-benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SUMMARY = Path(__file__).parents[2] / "benchmarks" / "summary.py"


def report(folder: Path, here: list[list[float]], there: list[list[float]]) -> Path:
    """Write what pytest-benchmark does, as far as the summary reads it: one benchmark in pairs, and one without."""
    notes: dict[str, Any] = {
        "what": "gray, 256 images", "against": "Pillow", "here": here, "there": there,
        "torch": "2.14.1", "precision": "fp32", "size": "small",
    }  # fmt: skip
    content = {
        "machine_info": {"machine": "x86_64", "cpu": {"brand_raw": "Some Processor", "count": 2}},
        "datetime": "2026-11-29T17:00:00+00:00",
        "benchmarks": [
            {"name": "test_countermeasure", "extra_info": notes},
            {"name": "test_hide", "extra_info": {}},
        ],
    }
    path = folder / "out.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def summary(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SUMMARY), *map(str, arguments)], capture_output=True, text=True)


# Seconds of wall and CPU: by the wall the pairs are 3, 1 and 8 times as fast, by the processor 2, 4 and 3 times.
HERE, THERE = [[1.0, 1.0], [2.0, 1.0], [0.5, 2.0]], [[3.0, 2.0], [2.0, 4.0], [4.0, 6.0]]


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ([], "| gray, 256 images | Pillow | 3 | 3.00 | 2.00 - 4.00 |"),
        (["--clock", "wall"], "| gray, 256 images | Pillow | 3 | 3.00 | 1.00 - 8.00 |"),
    ],
)
def test_table_has_median_spread_and_n_of_the_ratios_of_pairs(tmp_path: Path, options: list[str], row: str) -> None:
    printed = summary(report(tmp_path, HERE, THERE), *options).stdout.splitlines()
    assert printed[0].startswith(f"Ratios of {'wall time' if options else 'CPU seconds'}; Some Processor, 2 cores; ")
    assert "torch 2.14.1" in printed[0]
    assert printed[-1] == row
    assert len(printed) == 5  # conditions, an empty line, two lines of the head, and no row without pairs


def test_a_time_of_nothing_is_no_ratio(tmp_path: Path) -> None:
    failed = summary(report(tmp_path, [[1.0, 0.0]], [[1.0, 1.0]]))
    assert failed.returncode
    assert "test_countermeasure: a time of 0 s says nothing" in failed.stderr


def test_benchmarks_write_what_the_summary_reads(tmp_path: Path) -> None:
    benchmarks, out = SUMMARY.parent, tmp_path / "out.json"
    (tmp_path / "test_one.py").write_text(
        f"import sys\nsys.path.insert(0, {str(benchmarks)!r})\nfrom pairs import in_pairs\n"
        "def test_sums(benchmark):\n"
        "    one, ten = (lambda: sum(range(10**5))), (lambda: sum(range(10**6)))\n"
        "    in_pairs(benchmark, 'sums', one, 'longer sums', ten, rounds=3)\n",
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--benchmark-only",
        f"--benchmark-json={out}",
        "-p",
        "no:cacheprovider",
    ]
    # a worker of pytest-xdist says so to its children, and benchmarks are not timed beside others
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    subprocess.run([*command, str(tmp_path / "test_one.py")], check=True, capture_output=True, cwd=tmp_path, env=alone)
    [*_, row] = summary(out).stdout.splitlines()
    what, against, n, *_ = row.strip("| ").split(" | ")
    assert (what, against, n) == ("sums", "longer sums", "3")
