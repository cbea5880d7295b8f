"""Read and write parameter values as selectors have them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .inputs import name_and_digest

Value = str | int | float | bool | None


def scalar(text: str) -> Value:
    """Read a bare value: true, false, null, an integer, a number, else the text itself."""
    text = text.strip()
    words: dict[str, Value] = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    for convert in (int, float):
        try:
            number = convert(text)
        except ValueError:
            continue
        if math.isfinite(number):  # "inf" and "nan" are words: no number that a key can hold
            return number
    return text


def write_text(text: str) -> str:
    """Write ``text`` as a parameter value: quoted where it would be read as something else."""
    plain = text and scalar(text) == text and not set("[],") & set(text) and text[0] not in "'\""
    if plain:
        return text
    quote = '"' if "'" in text else "'"
    return quote + text.replace(quote, 2 * quote) + quote


def read_ratio(value: Any) -> Any:
    """Read ``8/255`` or ``0.8/255`` as a number, because the field writes its budgets that way."""
    if isinstance(value, str) and "/" in value:
        try:
            above, below = value.split("/")
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{value!r} is not a fraction") from error
    return value


Ratio = Annotated[float, BeforeValidator(read_ratio), Field(json_schema_extra={"format": "ratio"})]
"""A float that may be written, and is shown, as a fraction: ``8/255``."""


def format_value(value: Any, ratio: bool = False) -> str:
    """Write a parameter value as in a selector; with ``ratio`` as ``8/255`` or ``0.8/255`` where that is exact."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Path):
        return write_text(name_and_digest(value))
    if isinstance(value, float):
        for digits in range(3 if ratio and 0 < value < 1 else 0):
            if round(value * 255, digits) / 255 == value:
                return f"{round(value * 255, digits):g}/255"
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(format_value(v) for v in value) + "]"
    return write_text(value) if isinstance(value, str) else str(value)
