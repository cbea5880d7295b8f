"""The table of bad days: every row names a test that exists, and exit codes that there are."""

from __future__ import annotations

import re

import pytest

from .helpers import ROOT, page, rows, section

ROWS = [row for row in rows(page("docs/bad-days.md")) if row[3]]
KINDS = (
    "plugin", "extra", "network", "in part", "checksum", "belongs to somebody else", "several users", "without locks",
    "not UTF-8", "random.py", "home folder", "memory", "device", "contradict", "languages", "spaces", "Windows",
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_shown_by_a_test(row: list[str]) -> None:
    [(file, name)] = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[3])
    assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(encoding="utf-8"), flags=re.M)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_exit_codes_are_those_of_the_command_line(row: list[str]) -> None:
    known = {code for r in rows(section(page("docs/cli.md"), "## Exit codes")) for code in r[0].split(", ")}
    assert set(re.findall(r"\d+", row[2])) <= known
    assert row[2]


def test_all_kinds_of_bad_days_have_a_row() -> None:
    said = " ".join(row[0] for row in ROWS)
    assert [kind for kind in KINDS if kind not in said] == []
