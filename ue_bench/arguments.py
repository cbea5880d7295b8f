"""Check what Python callers give: numbers that would name other cells, or that only fail after hours of work."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from .errors import UserError, did_you_mean

PRECISIONS = ("auto", "bf16", "fp32")
LARGEST_SEED = 2**63 - 1  # tables and databases have no larger whole numbers


def whole(name: str, value: Any, least: int, most: int = LARGEST_SEED) -> int:
    """Return ``value`` as a Python integer. Raises UserError where it is none, or not within ``least`` and ``most``."""
    try:
        number = int(operator.index(value))  # numpy's integers are some, floats are none
    except TypeError:
        raise UserError(f"{name} is {value!r}, which is no whole number", f"give one from {least}") from None
    if not least <= number <= most:
        raise UserError(f"{name} is {number}", f"give one from {least} to {most:,}")
    return number


def share(name: str, value: Any) -> float:
    """Return ``value`` as a Python float. Raises UserError where it is no number between 0 and 1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise UserError(f"{name} is {value!r}", "give a number between 0 and 1")
    return number


def known(name: str, value: str, names: Iterable[str]) -> str:
    """Return ``value``. Raises UserError with the nearest names where it is none of ``names``."""
    if value not in (names := list(names)):
        raise UserError(f"no {name} {value!r}", did_you_mean(str(value), names))
    return value


def seeds_of(values: Iterable[Any]) -> list[int]:
    """Return seeds, each once. Raises UserError where one is none."""
    return list(dict.fromkeys(whole("a seed", value, 0) for value in values))
