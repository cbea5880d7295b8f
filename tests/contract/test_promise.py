"""What others rely on: no name of ``ue_bench``, ``ue_bench.api`` or ``ue_bench.testing`` goes, and no argument of one.

``promise.json`` holds what is promised (docs/stability.md). Add what is new with

    python -m contract.test_promise   # in tests/

and take away only with a new minor version and a line in the release notes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ue_bench
from ue_bench import api, testing

FILE = Path(__file__).with_name("promise.json")
MODULES = {"ue_bench": ue_bench, "ue_bench.api": api, "ue_bench.testing": testing}
Arguments = dict[str, bool]  # by name: whether a caller has to give it


def arguments(function: Callable[..., Any]) -> Arguments:
    """Return what a caller may give, beside ``self``."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a type without a signature, such as an annotation
        return {}
    return {
        name: p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for name, p in parameters.items()
    }


def promised_of(module: Any, name: str) -> dict[str, Arguments]:
    """Return a public name and its public methods, with their arguments."""
    thing = getattr(module, name)
    found = {name: arguments(thing) if callable(thing) else {}}
    if inspect.isclass(thing) and thing.__module__.startswith("ue_bench"):
        for method, value in inspect.getmembers(thing, inspect.isfunction):
            if not method.startswith("_") and value.__module__.startswith("ue_bench"):
                found[f"{name}.{method}"] = arguments(value)
    return found


def promised_now() -> dict[str, dict[str, Arguments]]:
    return {
        label: {n: a for name in sorted(module.__all__) for n, a in promised_of(module, name).items()}
        for label, module in MODULES.items()
    }


@pytest.mark.parametrize("module", MODULES)
def test_what_was_promised_is_there(module: str) -> None:
    before, now = json.loads(FILE.read_text(encoding="utf-8"))[module], promised_now()[module]
    assert sorted(before.keys() - now.keys()) == []
    for name, promised in before.items():
        offered = now[name]
        assert sorted(promised.keys() - offered.keys()) == [], f"{name} takes less than before"
        asked = {argument for argument, required in offered.items() if required}
        assert asked <= {argument for argument, required in promised.items() if required}, f"{name} asks for more"


@pytest.mark.parametrize("module", MODULES)
def test_what_is_new_is_promised(module: str) -> None:
    """So that it is held from now on: see above for how to add it."""
    new = sorted(promised_now()[module].keys() - json.loads(FILE.read_text(encoding="utf-8"))[module].keys())
    assert new == [], "add them with python -m contract.test_promise, in tests/"


if __name__ == "__main__":
    parts = []
    for label, promised in promised_now().items():
        lines = [f" {json.dumps(name)}: {json.dumps(given)}" for name, given in promised.items()]
        parts.append(f"{json.dumps(label)}: {{\n" + ",\n".join(lines) + "\n}")
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
