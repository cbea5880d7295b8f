"""The documentation as the tests see it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ue-bench-hello"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    ROOT / "changes" / "README.md",
    EXAMPLE / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(text: str) -> list[tuple[str, str]]:
    """Every fenced code block: its language, empty where none is given, and its text."""
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", text, flags=re.M | re.S)


def blocks(text: str, language: str) -> list[str]:
    """Fenced code blocks of a language."""
    return [block for name, block in fences(text) if name == language]


def prose(text: str) -> str:
    """A page without its fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def spans(text: str) -> list[str]:
    """Code spans outside code blocks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def section(text: str, heading: str) -> str:
    """A heading's text, up to the next heading of the same or a higher level."""
    level = len(heading) - len(heading.lstrip("#"))
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    after = re.search(rf"^#{{1,{level}}} ", text[start:], flags=re.M)
    return text[start : start + after.start()] if after else text[start:]


def rows(text: str) -> list[list[str]]:
    """Cells of all tables in ``text``, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    body = [line for i, line in enumerate(lines) if not set(line) <= set("|-: ") and not _is_head(lines, i)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def _is_head(lines: list[str], i: int) -> bool:
    return i + 1 < len(lines) and set(lines[i + 1]) <= set("|-: ")


def shell_commands(text: str) -> list[list[str]]:
    """The words of every ``ue-bench`` command in the sh blocks of a page."""
    found = []
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words and words[0].rsplit("/", 1)[-1] == "ue-bench":
                    found.append(words[1:])
    return found


def find_command(cli: click.Group, words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``words`` name and what is left of them. Raises KeyError for a command that is not there."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        flags = {flag for p in command.params for flag in p.opts}
        while rest and rest[0] in flags:
            rest.pop(0)
        if not rest:
            break
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            raise KeyError(rest[0])
        command = found
        rest.pop(0)
    return command, rest
