"""Make a new plugin distribution from templates, for ``ue-bench new``."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from ..catalogue.registry import registry
from ..contract.registration import KIND_NAMES
from ..errors import EnvironmentProblem, UserError

KINDS = (*KIND_NAMES, "board")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 60  # characters of a name: twice that and more is in paths
SUMMARIES = {  # of what the templates hold, for ``ue-bench list``
    "protector": "stripes, one frequency a class",
    "countermeasure": "color channels in random order",
    "victim": "two convolutions and a linear layer",
    "dataset": "two classes of generated images, dark and bright",
    "board": "two rows and two columns on generated images",
}
PACKAGE = {
    "pyproject.toml": "common/pyproject.toml.in",
    "README.md": "common/README.md.in",
    ".github/workflows/test.yml": "common/test.yml.in",
}
PLUGIN = {
    "{module}/__init__.py": "common/__init__.py.in",
    "{module}/plugin.py": "{kind}/plugin.py.in",
    "tests/test_plugin.py": "common/test_plugin.py.in",
}
BOARD = {
    "{module}/__init__.py": "board/__init__.py.in",
    "{module}/board.toml": "board/board.toml.in",
    "tests/test_board.py": "board/test_board.py.in",
}
SMALLEST = {"pyproject.toml": "smallest/pyproject.toml.in", "{module}.py": "smallest/{kind}.py.in"}


@dataclass(frozen=True)
class Blueprint:
    """What is to be made: a ``kind`` of plugin, or a board, called ``name``; ``smallest`` has two files."""

    kind: str
    name: str
    smallest: bool = False

    @property
    def distribution(self) -> str:
        return f"ue-bench-{self.name}"

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in self.name.split("-"))

    def templates(self) -> dict[str, str]:
        """Return the template of every file by its path in the new folder."""
        layout = SMALLEST if self.smallest else PACKAGE | (BOARD if self.kind == "board" else PLUGIN)
        words = {"kind": self.kind, "module": self.module}
        return {path.format_map(words): template.format_map(words) for path, template in layout.items()}

    def render(self) -> dict[str, str]:
        """Return the content of every file by its path in the new folder."""
        words = {
            "kind": self.kind, "name": self.name, "distribution": self.distribution, "module": self.module,
            "class_name": self.class_name, "summary": SUMMARIES[self.kind],
        }  # fmt: skip
        words["use"] = Template(_template(f"{self.kind}/use.in")).substitute(words).strip()
        return {path: Template(_template(template)).substitute(words) for path, template in self.templates().items()}


def _template(path: str) -> str:
    return files(__package__).joinpath("templates", *path.split("/")).read_text(encoding="utf-8")


def check_name(blueprint: Blueprint) -> None:
    """Raise UserError for a name that Python, a package or a registered plugin cannot have or has already."""
    kind, name = blueprint.kind, blueprint.name
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UserError(
            f"{name!r} cannot be the name of a {kind}",
            f"use at most {LONGEST} of a-z, 0-9 and '-' between them, a letter first, such as my-{kind}",
        )
    names = registry()
    records: Mapping[str, object] = names.boards if kind == "board" else {r.name: r for r in names.of_kind(kind)}
    taken = records.get(name)
    if taken is not None:
        owner = getattr(taken, "distribution", "another distribution")
        raise UserError(f"{kind} {name!r} is already registered by {owner}", "choose another name")
    if _means_something(blueprint) or name == "all":
        raise UserError(f"{name!r} means something else already", f"choose another name, such as my-{name}")
    if importlib.util.find_spec(blueprint.module) is not None:
        raise UserError(f"there is a Python package {blueprint.module} already", "choose another name")


def _means_something(blueprint: Blueprint) -> bool:
    """Return whether the class would hide a word of Python or a name that its own file imports."""
    if blueprint.kind == "board":
        return False
    if keyword.iskeyword(blueprint.name) or keyword.iskeyword(blueprint.class_name):
        return True
    sources = [text for path, text in blueprint.render().items() if path.endswith(".py")]
    imported = {
        alias.asname or alias.name
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(blueprint.module))
    }
    return blueprint.class_name in imported or hasattr(builtins, blueprint.class_name)


def write(blueprint: Blueprint, folder: Path) -> list[Path]:
    """Write the files of ``blueprint`` to ``folder``, new or empty, and return their paths; nothing stays of a failure.

    Raises UserError when there is something already, EnvironmentProblem when it cannot be written.
    """
    check_name(blueprint)
    contents = blueprint.render()
    new = not os.path.lexists(folder)
    try:
        if not new and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is there already", "give another folder behind the name")
        written = []
        try:
            for path, text in contents.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8", newline="\n")
                written.append(target)
        except BaseException:
            _remove(folder, keep=not new)
            raise
    except OSError as error:
        where = error.filename or folder
        raise EnvironmentProblem(
            f"cannot write {where}: {error.strerror or error}", "give a folder that you may write to"
        ) from error
    return written


def _remove(folder: Path, keep: bool) -> None:
    """Remove what was written; the folder itself stays where it was there before."""
    for child in list(folder.iterdir()) if folder.is_dir() else []:
        if child.is_dir():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)
    if not keep and folder.is_dir():
        folder.rmdir()
