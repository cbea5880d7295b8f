"""Every fenced block of every page is run, or at least read by what it is for; none is of an unknown language."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from ue_bench.cli.main import cli

from .helpers import PAGES, ROOT, blocks, fences, find_command, label, page

FENCES = [(label(p), language, text) for p in PAGES for language, text in fences(p.read_text(encoding="utf-8"))]
PYTHON = [(where, text) for where, language, text in FENCES if language == "python"]
SHELLS = [(where, text) for where, language, text in FENCES if language in ("sh", "bash")]
SESSIONS = [(where, text) for where, language, text in FENCES if language in ("console", "text")]
# Pages whose blocks build on each other, with the test that runs them all.
RUN_ELSEWHERE = {"docs/python.md": "test_python.py", "docs/tutorial.md": "test_tutorial.py"}
# What the README and the examples call beside ue-bench; the test line and the run line are run by .ci/run.
TOOLS = {
    ".", "eval", "jq", "mypy", "parallel", "pip", "pre-commit", "pytest", "python", "python3", "ruff", "scancel",
    "towncrier", "tox",
}  # fmt: skip


def short(text: str) -> str:
    return text.splitlines()[0][:60]


def test_languages() -> None:
    assert {language for _, language, _ in FENCES} <= {"sh", "bash", "console", "text", "python", "toml", "json", ""}
    assert len(FENCES) > 60


@pytest.mark.parametrize(("where", "text"), PYTHON, ids=lambda v: short(v))
def test_python_runs(where: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are whole by themselves, save those of the pages that have a test of their own."""
    if where in RUN_ELSEWHERE:
        assert "python" in (ROOT / "tests" / "docs" / RUN_ELSEWHERE[where]).read_text(encoding="utf-8")
        compile(text, where, "exec")
        return
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(text, where, "exec", dont_inherit=True), names)


@pytest.mark.parametrize(("where", "text"), SHELLS, ids=lambda v: short(v))
def test_shell_is_shell_of_known_commands(where: str, text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, capture_output=True, timeout=30)
    for words in commands_of(text):
        assert words[0].rsplit("/", 1)[-1] in TOOLS | {"ue-bench"}, text


def commands_of(text: str) -> list[list[str]]:
    """Return the words of each simple command, without variables that are set before it."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    parts = [part for line in lines for part in re.split(r"&&|\|", re.sub(r"(^|\s)#.*", "", line))]
    words = [[w for w in part.split() if not re.match(r"\w+=", w)] for part in parts]
    return [w for w in words if w]


@pytest.mark.parametrize(("where", "text"), SESSIONS, ids=lambda v: short(v))
def test_commands_of_sessions_parse(where: str, text: str) -> None:
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        match = re.match(r"(?:\$ )?(?:\S*/)?ue-bench (?!:)([a-z].*)", line)
        if match is None:
            continue
        words = split(match.group(1).partition(" | ")[0])
        command, rest = find_command(cli, words)
        command.make_context("ue-bench", rest, parent=click.Context(cli))


def split(text: str) -> list[str]:
    import shlex

    return shlex.split(text)


@pytest.mark.parametrize("language", ["toml", "json"])
def test_data_is_data(language: str) -> None:
    read = {"toml": tomllib.loads, "json": json.loads}[language]
    for where, kind, text in FENCES:
        if kind == language:
            assert read(text), where


def test_tox_environments_in_the_pages_exist() -> None:
    known = set(re.findall(r"^\[testenv:(.+)\]$", page("tox.ini"), flags=re.M))
    named = {
        name
        for p in PAGES
        for names in re.findall(r"tox (?:run )?-e ([a-z0-9,-]+)", p.read_text(encoding="utf-8"))
        for name in names.split(",")
    }
    assert named <= known | {"py311", "py312", "py313"}


def test_every_block_is_closed() -> None:
    for p in PAGES:
        text = p.read_text(encoding="utf-8")
        assert len(re.findall(r"^```", text, flags=re.M)) == 2 * len(fences(text)), label(p)
        assert len(blocks(text, "python")) <= len(fences(text))
