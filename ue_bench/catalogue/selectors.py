"""Read selectors, which name plugins and their parameters on the command line and in boards.

    name    name[p=v,q=[1,2]]    glob*    all    @tag    ^exclude    a+b    one,two

A list sweeps: ``q=[1,2]`` stands for two plugins. A value in single or double quotes is text as it stands, but for such
a quote inside it, which is written twice. This module only reads the text; the registry gives it meaning.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..contract.values import Value, scalar
from ..errors import UserError

NAME = re.compile(r"[A-Za-z0-9_.*?-]+")


@dataclass(frozen=True)
class Part:
    """One plugin of a selector: a name, glob, ``all`` or ``@tag``, and its parameters, each a list of values."""

    name: str
    parameters: dict[str, list[Value]] = field(default_factory=dict)

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Yield every choice of one value a parameter, the last parameter changing fastest."""
        for values in itertools.product(*self.parameters.values()):
            yield dict(zip(self.parameters, values, strict=True))


@dataclass(frozen=True)
class Term:
    """Parts joined by ``+``, to be added or, after ``^``, taken away."""

    parts: tuple[Part, ...]
    exclude: bool = False


class _Reader:
    """A cursor over one selector."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def fail(self, expected: str) -> UserError:
        pointer = self.text[: self.at] + "‸" + self.text[self.at :]
        return UserError(f"cannot read selector {pointer!r}: expected {expected}", "write name[parameter=value,...]")

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def peek(self) -> str:
        self.skip()
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self, char: str) -> bool:
        if self.peek() != char:
            return False
        self.at += 1
        return True

    def need(self, char: str) -> None:
        if not self.take(char):
            raise self.fail(repr(char))

    def name(self, what: str) -> str:
        self.skip()
        match = NAME.match(self.text, self.at)
        if not match:
            raise self.fail(what)
        self.at = match.end()
        return match.group()

    def value(self) -> Value:
        quote = self.peek()
        if quote in ("'", '"'):
            return self.quoted(quote)
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ",]":
            self.at += 1
        if not self.text[start : self.at].strip():
            raise self.fail("a value")
        return scalar(self.text[start : self.at])

    def quoted(self, quote: str) -> str:
        """Read up to the closing quote; a quote that is written twice is part of the text."""
        text = ""
        while True:
            end = self.text.find(quote, self.at + 1)
            if end < 0:
                raise self.fail(f"a closing {quote}")
            text += self.text[self.at + 1 : end]
            self.at = end + 1
            if self.text[self.at : self.at + 1] != quote:
                return text
            text += quote

    def values(self) -> list[Value]:
        if not self.take("["):
            return [self.value()]
        values = [self.value()]
        while self.take(","):
            values.append(self.value())
        self.need("]")
        return values

    def part(self) -> Part:
        name = "@" + self.name("a tag") if self.take("@") else self.name("a name")
        parameters: dict[str, list[Value]] = {}
        if self.take("["):
            while True:
                parameter = self.name("a parameter name")
                if parameter in parameters:
                    raise UserError(f"parameter {parameter!r} is given twice in {self.text!r}", "give it once")
                self.need("=")
                parameters[parameter] = self.values()
                if not self.take(","):
                    break
            self.need("]")
        return Part(name, parameters)

    def term(self) -> Term:
        exclude = self.take("^")
        parts = [self.part()]
        while self.take("+"):
            parts.append(self.part())
        return Term(tuple(parts), exclude)


def parse(selectors: str | Iterable[str]) -> list[Term]:
    """Return the terms of one or several selectors, in order.

    Raises UserError that points at the place when the text cannot be read.
    """
    terms: list[Term] = []
    for text in [selectors] if isinstance(selectors, str) else selectors:
        reader = _Reader(text)
        terms.append(reader.term())
        while reader.take(","):
            terms.append(reader.term())
        if reader.peek():
            raise reader.fail("',', '+' or the end")
    return terms


def plugin_names(selectors: str | Iterable[str]) -> list[str]:
    """Return the names in selectors, in order: of ``a[p=1]+b`` a and b. Raises UserError when one cannot be read."""
    return [part.name for term in parse(selectors) for part in term.parts]
