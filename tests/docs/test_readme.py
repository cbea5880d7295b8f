from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .helpers import PAGES, ROOT, blocks, label, page, prose

RUN_LINE = (
    "python3 -m venv .venv && .venv/bin/pip install -e . && "
    ".venv/bin/ue-bench run --protector deephiding --countermeasure all"
)
TEST_LINE = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest"


def lines_of_code() -> list[str]:
    return [line for block in blocks(page("README.md"), "sh") for line in block.splitlines()]


def test_one_line_installs_and_runs_the_demo() -> None:
    assert lines_of_code().count(RUN_LINE) == 1


def test_one_line_installs_and_tests() -> None:
    assert lines_of_code().count(TEST_LINE) == 1


def test_ci_runs_the_line_of_the_readme() -> None:
    printed = subprocess.run([ROOT / ".ci" / "run", "--print"], capture_output=True, text=True, check=True, timeout=30)
    assert printed.stdout == TEST_LINE + "\n"


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_local_links_lead_somewhere(path: Path) -> None:
    text = prose(path.read_text(encoding="utf-8"))
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    missing = [t for t in targets if not (path.parent / t.partition("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_anchors_exist(path: Path) -> None:
    text = prose(path.read_text(encoding="utf-8"))
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, flags=re.M)}
    wanted = re.findall(r"\]\(#([^)\s]+)\)", text)
    assert [w for w in wanted if w not in anchors] == []


def test_every_page_is_on_the_map() -> None:
    pages = {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert [name for name in sorted(pages) if f"({name})" not in page("docs/index.md")] == []
