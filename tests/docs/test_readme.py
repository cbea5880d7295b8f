from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ue_bench.cli.main import cli

from .helpers import PAGES, ROOT, blocks, label, page, prose

RUN_LINE = (
    "python3 -m venv .venv && .venv/bin/pip install -e . && "
    ".venv/bin/ue-bench run --protector deephiding --countermeasure all"
)
TEST_LINE = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest -n auto"


def lines_of_code() -> list[str]:
    return [line for block in blocks(page("README.md"), "sh") for line in block.splitlines()]


def test_one_line_installs_and_runs_the_demo() -> None:
    assert lines_of_code().count(RUN_LINE) == 1


def test_one_line_installs_and_tests() -> None:
    assert lines_of_code().count(TEST_LINE) == 1


def test_ci_takes_its_line_from_the_readme() -> None:
    printed = subprocess.run([ROOT / ".ci" / "run", "--print"], capture_output=True, text=True, check=True, timeout=30)
    assert printed.stdout == TEST_LINE + "\n"


TOOL = """#!/bin/sh
printf '%s %s\\n' "${0##*/}" "$*"
[ "${0##*/}" != python ] || [ "$UE_BENCH_REQUIRE_BROWSER" = 1 ] || echo 'browsers are not required'
case " $FAILING " in *" ${0##*/} "*) exit 3 ;; esac
"""
PYTHON = """#!/bin/sh
mkdir -p .venv/bin
for name in pip ruff mypy python; do cp tool ".venv/bin/$name"; done
echo "python3 $*"
"""


@pytest.fixture
def ci(tmp_path: Path) -> Callable[[str], tuple[int, list[str]]]:
    """Runs ``.ci/run`` in a clone whose tools only say how they were called, and fail where they are told to."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    shutil.copy(ROOT / "README.md", tmp_path)
    tools = {"tool": TOOL, "bin/python3": PYTHON, "bin/apt-get": TOOL, "bin/chromium": TOOL}
    for path, text in ((tmp_path / name, text) for name, text in tools.items()):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def run(failing: str) -> tuple[int, list[str]]:
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAILING": failing}
        ran = subprocess.run(["bash", tmp_path / ".ci" / "run"], env=env, capture_output=True, text=True, timeout=30)
        return ran.returncode, ran.stdout.splitlines()

    return run


def test_ci_installs_checks_and_then_tests(ci: Callable[[str], tuple[int, list[str]]]) -> None:
    code, said = ci("")
    assert code == 0
    assert [line for line in said if not line.startswith("== ")] == [
        "python3 -m venv .venv",
        "pip install -e .[test]",
        "pip install -e .[checks,browser]",
        "ruff check",
        "ruff format --check",
        "mypy ",
        "python -m pytest -n auto",
    ]


@pytest.mark.parametrize(("failing", "ends"), [("ruff", 1), ("mypy", 1), ("python", 3)])
def test_ci_fails_with_any_of_its_parts_and_ends_with_the_tests(
    ci: Callable[[str], tuple[int, list[str]]], failing: str, ends: int
) -> None:
    code, said = ci(failing)
    assert (code, said[-1]) == (ends, "python -m pytest -n auto")
    assert ("failed: mypy" in said) == (failing == "mypy")


def test_ci_stops_where_nothing_can_be_installed(ci: Callable[[str], tuple[int, list[str]]]) -> None:
    assert ci("pip") == (3, ["python3 -m venv .venv", "pip install -e .[test]"])


def test_results_are_those_of_the_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table, the agreement with print and the sentences are what the command in the first mark prints."""
    monkeypatch.chdir(ROOT)
    marks = r"<!-- (ue-bench leaderboard summary [^\n]*) -->\n\n(.*)\n<!-- end of summary -->"
    found = re.search(marks, page("README.md"), re.S)
    assert found is not None
    ran = CliRunner().invoke(cli, shlex.split(found[1])[1:])
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == found[2]
    old = tmp_path / "README.md"
    old.write_text(page("README.md").replace(found[2], "of last year\n"), encoding="utf-8")
    assert CliRunner().invoke(cli, [*shlex.split(found[1])[1:], "--into", str(old)]).exit_code == 0
    assert old.read_text(encoding="utf-8") == page("README.md")


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
