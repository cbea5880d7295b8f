"""Defaults are not in keys: a default that changes under the same revision would pass old results off as new ones.

``defaults.json`` holds the defaults of every revision. After a deliberate change, raise the revision and run this file
as a script to record the new defaults; it refuses to touch a revision that is recorded already, save to add to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ue_bench.catalogue.registry import registry
from ue_bench.contract.protocol import Protocol
from ue_bench.contract.registration import KIND_NAMES
from ue_bench.grid.cell import ENGINE_REVISION

RECORD = Path(__file__).with_name("defaults.json")


def fields(model: Any) -> dict[str, Any]:
    """Defaults and presets as plain data; a field without one is left out, because its value is always in the key."""
    found = {k: f.get_default(call_default_factory=True) for k, f in model.model_fields.items() if not f.is_required()}
    if hasattr(model, "PRESETS"):
        found["PRESETS"] = model.PRESETS
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def current() -> dict[str, tuple[int, dict[str, Any]]]:
    """Revision and defaults of the training loop and of every plugin of this distribution."""
    found = {"protocol": (ENGINE_REVISION, fields(Protocol))}
    for kind in KIND_NAMES:
        for entry in registry().of_kind(kind):
            if entry.distribution.startswith("ue-bench "):
                found[f"{kind} {entry.name}"] = (entry.plugin_class.revision, fields(entry.plugin_class))
    return found


def recorded() -> dict[str, dict[str, dict[str, Any]]]:
    text: dict[str, dict[str, dict[str, Any]]] = json.loads(RECORD.read_text(encoding="utf-8"))
    return text


@pytest.mark.parametrize("name", sorted(current()))
def test_defaults_are_those_of_their_revision(name: str) -> None:
    revision, defaults = current()[name]
    known = recorded().get(name, {}).get(str(revision))
    assert known is not None, f"run {Path(__file__).name} as a script: revision {revision} of {name} is not recorded"
    assert defaults == known, f"raise the revision of {name}: a default changed, and old results would pass for new"


def test_nothing_recorded_is_gone() -> None:
    assert set(recorded()) <= set(current())


if __name__ == "__main__":
    record = recorded() if RECORD.exists() else {}
    for name, (revision, defaults) in current().items():
        known = record.setdefault(name, {}).setdefault(str(revision), {})
        moved = [field for field, value in known.items() if defaults.get(field, ...) != value]
        if moved:
            raise SystemExit(f"raise the revision of {name}: {', '.join(moved)} changed")
        known |= defaults
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
