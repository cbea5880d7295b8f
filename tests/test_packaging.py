"""What surrounds the code: one version, what single plugins need, the files of a repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import ue_bench

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_stands_in_one_place_and_the_citation_repeats_it() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "ue_bench/__init__.py"
    assert f'__version__ = "{ue_bench.__version__}"' in read("ue_bench/__init__.py")
    assert re.findall(r"^version: (.+)$", read("CITATION.cff"), flags=re.M) == [ue_bench.__version__]


def test_what_single_plugins_need_is_not_imported_by_the_harness() -> None:
    word = re.compile(r"^\s*(?:from|import) (?:sklearn|pyarrow)\b", flags=re.M)
    rooms = ["ue_bench", "plugins", "tests", "benchmarks", "examples"]
    importing = {r for r in rooms for p in (ROOT / r).rglob("*.py") if word.search(p.read_text("utf-8"))}
    assert "plugins" in importing
    assert importing <= {"plugins", "tests", "benchmarks"}


def test_workflows_call_environments_that_there_are() -> None:
    known = set(re.findall(r"^\[testenv:(.+)\]$", read("tox.ini"), flags=re.M))
    workflows = "".join(read(f".github/workflows/{name}.yml") for name in ("test", "release"))
    named = {e for names in re.findall(r"tox run -e ([a-z,-]+)", workflows) for e in names.split(",")}
    [matrix] = re.findall(r"environment: \[(.+)\]", workflows)
    assert named | set(matrix.split(", ")) <= known
    assert "downstream" in named


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    ran = subprocess.run(
        [Path(sys.executable).with_name("ue-bench")],
        env=os.environ | {"_UE_BENCH_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "ue-bench" in ran.stdout, ran.stderr
    assert f"_UE_BENCH_COMPLETE={shell}_complete" in ran.stdout


def test_commands_are_completed() -> None:
    ran = subprocess.run(
        [Path(sys.executable).with_name("ue-bench")],
        env=os.environ | {"_UE_BENCH_COMPLETE": "bash_complete", "COMP_WORDS": "ue-bench lea", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.stdout.split() == ["plain,leaderboard"]
