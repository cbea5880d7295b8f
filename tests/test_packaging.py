"""What surrounds the code: one version, what single plugins need, the files of a repository."""

from __future__ import annotations

import os
import re
import runpy
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
    assert "version" in PROJECT["project"]["dynamic"]
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
    assert named | set(matrix.split(", ")) == known - {"bench"}
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


def test_tox_has_the_environments_of_the_contributors_page() -> None:
    known = re.findall(r"^\[testenv:(.+)\]$", read("tox.ini"), flags=re.M)
    assert {"lint", "types", "unit", "docs", "downstream", "browser", "cluster", "lowest"} <= set(known)
    assert [name for name in known if f"`{name}`" not in read("CONTRIBUTING.md")] == []


def test_style_is_checked_without_installing_what_is_checked() -> None:
    lint = re.search(r"^\[testenv:lint\]$.*?^commands", read("tox.ini"), flags=re.M | re.S)
    assert lint is not None
    [ruff] = [d for d in PROJECT["project"]["optional-dependencies"]["checks"] if d.startswith("ruff")]
    assert f"skip_install = true\ndeps = {ruff}\n" in lint[0]


def test_the_oldest_dependencies_that_are_tried_are_those_that_are_allowed() -> None:
    lowest = re.search(r"^\[testenv:lowest\]$.*?^deps =\n(.*?)^commands", read("tox.ini"), flags=re.M | re.S)
    assert lowest is not None
    tried = {name: version for name, _, version in (line.strip().partition("==") for line in lowest[1].splitlines())}
    allowed = {name: version for name, _, version in (d.partition(">=") for d in PROJECT["project"]["dependencies"])}

    def same(a: str, b: str) -> bool:
        """Return whether two versions are the same: 2.11 is 2.11.0."""
        return [int(n) for n in f"{a}.0.0".split(".")[:3]] == [int(n) for n in f"{b}.0.0".split(".")[:3]]

    assert tried.keys() == allowed.keys()
    assert [name for name in allowed if not same(tried[name], allowed[name])] == []


def test_a_wheel_has_the_addresses_that_the_release_gives() -> None:
    pytest.importorskip("hatchling")
    urls = runpy.run_path(str(ROOT / "hatch_build.py"))["urls"]
    assert urls({}) == {}
    found = urls({"UE_BENCH_REPOSITORY": "https://example.org/a/ue-bench/", "UE_BENCH_SITE": "https://example.org/b"})
    assert found["Issues"] == "https://example.org/a/ue-bench/issues"
    assert found["Documentation"] == "https://example.org/b"
    assert "UE_BENCH_REPOSITORY" in read(".github/workflows/release.yml")


def test_coverage_has_a_floor_and_counts_branches() -> None:
    settings = PROJECT["tool"]["coverage"]
    assert settings["report"]["fail_under"] >= 90
    assert settings["run"]["branch"]
    assert "--cov" in read("tox.ini")
