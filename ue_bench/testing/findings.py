"""Collect what a check finds, a line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """A line about one property of a plugin.

    ``stage`` is the method that was tried, ``check`` the property; ``note`` tells a fact that no plugin can get wrong.
    ``values`` holds the numbers in ``text``.
    """

    stage: str
    check: str
    state: State
    text: str
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.state:<5} {self.stage:<8} {self.check:<11} {self.text}"


Conformance = Callable[..., list[Finding]]  # of the fixture of that name


@dataclass
class Findings:
    """A collection of findings of one stage after the other."""

    stage: str = ""
    collected: list[Finding] = field(default_factory=list)

    def check(self, check: str, passed: bool, text: str, **values: Any) -> bool:
        """Add something that must hold, and return whether it does."""
        self.collected.append(Finding(self.stage, check, "ok" if passed else "fail", text, values))
        return passed

    def hold(self, check: str, passed: bool, text: str) -> None:
        """Add something that must hold in every run: one line, which tells of the first run where it did not."""
        for place, known in enumerate(self.collected):
            if (known.stage, known.check) == (self.stage, check):
                if known.state == "ok" and not passed:
                    self.collected[place] = Finding(self.stage, check, "fail", text)
                return
        self.check(check, passed, text)

    def note(self, check: str, text: str, **values: Any) -> None:
        """Add something worth knowing."""
        self.collected.append(Finding(self.stage, check, "note", text, values))


def failures(findings: Iterable[Finding]) -> list[str]:
    """Return the lines of those that failed."""
    return [str(finding) for finding in findings if finding.state == "fail"]
