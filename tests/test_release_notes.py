"""Fragments of release notes: named as towncrier reads them, and the changelog has the place where they go."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
FRAGMENTS = sorted(p for p in (ROOT / SETTINGS["directory"]).iterdir() if p.name != "README.md")
KINDS = [kind["directory"] for kind in SETTINGS["type"]]


def test_the_changelog_has_one_place_for_them() -> None:
    changelog = (ROOT / SETTINGS["filename"]).read_text(encoding="utf-8")
    assert changelog.count(SETTINGS["start_string"]) == 1
    assert changelog.index(SETTINGS["start_string"]) < changelog.index("## [")


def test_the_page_on_them_names_their_kinds() -> None:
    text = (ROOT / SETTINGS["directory"] / "README.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda p: p.name)
def test_a_fragment_is_named_and_written_as_one(path: Path) -> None:
    assert re.fullmatch(rf"(\+[a-z0-9-]+|\d+)\.({'|'.join(KINDS)})\.md", path.name)
    text = path.read_text(encoding="utf-8")
    assert text.strip()
    assert not text.startswith(("-", "#"))
    assert max(map(len, text.splitlines())) <= 132
