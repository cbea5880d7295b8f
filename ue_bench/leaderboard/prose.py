"""Cut docstrings into paragraphs, lists and pieces of code, as pages show them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ITEM = re.compile(r"[-*] ")


def blocks(text: str) -> Iterator[str | list[str]]:
    """Cut a docstring into paragraphs and lists, lines joined: a text is a paragraph, a list of texts are its items.

    An item begins with ``- `` at the left margin, and goes on in lines that are indented.
    """
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        paragraph: list[str] = []
        items: list[list[str]] = []
        for line in part.split("\n"):
            if _ITEM.match(line):
                items.append([line[2:].strip()])
            elif items and line[:1].isspace():
                items[-1].append(line.strip())
            else:
                if items:  # a paragraph follows without an empty line
                    yield from _joined(paragraph, items)
                    paragraph, items = [], []
                paragraph.append(line.strip())
        yield from _joined(paragraph, items)


def _joined(paragraph: list[str], items: list[list[str]]) -> Iterator[str | list[str]]:
    if any(paragraph):
        yield " ".join(paragraph)
    if items:
        yield [" ".join(item) for item in items]


def spans(text: str) -> list[tuple[str, bool]]:
    """Cut a text into pieces, each with whether it is code: between two backquotes, or one, on both sides."""
    pieces = []
    end = 0
    for match in re.finditer(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", text):
        pieces += [(text[end : match.start()], False), (match[2], True)]
        end = match.end()
    return [(piece, code) for piece, code in [*pieces, (text[end:], False)] if piece]
