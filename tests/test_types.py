"""What mypy is asked to check, and what it is told to overlook."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IGNORED = re.compile(r"# type: ignore(?P<codes>\[[a-z-]+(, [a-z-]+)*\])?(?P<reason>  # \w.*)?")


def settings() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    return found


def sources() -> list[Path]:
    """Python files of this repository, those of hidden folders and of what was built left out."""
    files = [path for folder in ROOT.iterdir() if folder.name[0] != "." for path in folder.rglob("*.py")]
    return [path for path in files if not {"build", "dist"} & set(path.relative_to(ROOT).parts)]


def test_mypy_is_strict_in_every_folder_that_holds_python() -> None:
    assert settings()["strict"] is True
    checked = [ROOT / name for name in settings()["files"]]
    assert [path for path in sources() if not {path, *path.parents} & set(checked)] == []


def test_only_libraries_without_types_are_treated_otherwise() -> None:
    for override in settings()["overrides"]:
        assert set(override) == {"module", "ignore_missing_imports"}
        assert not [name for name in override["module"] if name.startswith("ue_bench")]


def test_what_is_ignored_has_a_code_and_a_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := IGNORED.search(line)) and path != Path(__file__) and not (found["codes"] and found["reason"])
    ]
    assert bare == []
