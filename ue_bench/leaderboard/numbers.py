"""A number of a small table without scripts, as it is shown: an accuracy, the share below it, and its colour."""

from __future__ import annotations

from dataclasses import dataclass

from . import colour


@dataclass(frozen=True)
class Number:
    """A cell as it is shown; ``share`` is empty and ``level`` None where the share means nothing."""

    accuracy: str
    share: str
    level: int | None


def number(accuracy: str, share: float | None) -> Number:
    """Return the cell of an accuracy, which is text already, and of a share in percent."""
    if share is None:
        return Number(accuracy, "", None)
    return Number(accuracy, f"{share:.0f} %", colour.level(share))
