"""Damage files and texts at random, a few times by default and 10,000 times under ``-m slow``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ue_bench.errors import UserError

T = TypeVar("T")

many = pytest.mark.parametrize(
    "examples", [30, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)


def users(call: Callable[[], object]) -> None:
    """Call it; an error that the user can put right is an answer too."""
    with contextlib.suppress(UserError):
        call()


def fuzz(check: Callable[[T], object], values: st.SearchStrategy[T], examples: int) -> None:
    """Call ``check`` with so many ``values``, the same ones in every run."""

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(values)
    def run(value: T) -> None:
        check(value)

    run()


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Return ``whole`` with bytes changed, a piece taken out or put in, or cut off."""
    places = st.integers(0, len(whole))
    edits = st.lists(st.tuples(places, st.integers(0, 8), st.binary(max_size=8)), max_size=4)

    def apply(edits_and_end: tuple[list[tuple[int, int, bytes]], int]) -> bytes:
        edits, end = edits_and_end
        content = bytearray(whole)
        for place, taken, put in edits:
            content[place : place + taken] = put
        return bytes(content[:end] if end else content)

    return st.tuples(edits, st.one_of(st.just(0), places)).map(apply)


def plain() -> st.SearchStrategy[Any]:
    """Return anything that JSON and TOML can hold."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8))
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=6,
    )  # fmt: skip


def replaced(record: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return ``record`` with one value, at any depth, replaced, taken away or added."""

    def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [here, *(path for key, inner in inside for path in paths(inner, (*here, key)))]

    def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
        if not path:
            return new
        copy = value.copy()
        if new is ... and len(path) == 1:
            del copy[path[0]]
        else:
            copy[path[0]] = put(value[path[0]], path[1:], new)
        return copy

    choices = st.sampled_from([path for path in paths(record) if path])
    return st.tuples(choices, st.one_of(st.just(...), plain())).map(lambda c: put(record, c[0], c[1]))
