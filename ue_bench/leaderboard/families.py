"""Find columns that differ in one number, such as a quality or a strength: what can be drawn as a curve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..catalogue.selectors import parse
from ..contract.values import Value
from ..errors import UserError

FEWEST = 3  # points of a curve


@dataclass(frozen=True)
class Family:
    """Columns of one countermeasure at several values of one parameter, in rising order."""

    name: str
    parameter: str
    points: tuple[tuple[float, str], ...]  # value and column


def families(columns: Iterable[str]) -> list[Family]:
    """Return the families of at least three columns that differ in the value of one numeric parameter alone."""
    groups: dict[tuple[str, str, str], dict[float, str]] = defaultdict(dict)
    for column in columns:
        for name, parameter, others, value in _numbers(column):
            groups[name, parameter, others].setdefault(value, column)
    return [
        Family(f"{name}[{others}]" if others else name, parameter, tuple(sorted(points.items())))
        for (name, parameter, others), points in groups.items()
        if len(points) >= FEWEST
    ]


def _numbers(column: str) -> Iterable[tuple[str, str, str, float]]:
    """Yield name, parameter, the other parameters as text, and value, for each number in a selector of one plugin."""
    try:
        terms = parse(column)
    except UserError:
        return
    if len(terms) != 1 or len(terms[0].parts) != 1:
        return
    [part] = terms[0].parts
    for parameter, values in part.parameters.items():
        number = _number(values)
        if number is not None:
            others = ",".join(f"{name}={v[0]}" for name, v in part.parameters.items() if name != parameter)
            yield part.name, parameter, others, number


def _number(values: list[Value]) -> float | None:
    value = values[0] if len(values) == 1 else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
