"""No JSON that is written anywhere holds NaN or infinity."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest

import ue_bench
from ue_bench.keys import json_ready

ROOT = Path(ue_bench.__file__).parent.parent
SOURCES = [path for folder in ("ue_bench", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]


def lenient(path: Path) -> list[str]:
    """Calls of ``json.dumps`` and ``json.dump`` in a file that would write NaN."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if given.get("allow_nan") != "False":
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_every_writer_refuses_what_is_no_number() -> None:
    if not (ROOT / "plugins").is_dir():
        pytest.skip("an installed copy has no source tree")
    assert len(SOURCES) > 100
    assert [call for path in SOURCES for call in lenient(path)] == []


def test_such_a_call_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "a.py").write_text("import json\njson.dumps([])\njson.dumps([], allow_nan=False)\n", encoding="utf-8")
    assert lenient(tmp_path / "a.py") == ["a.py:2"]


def test_the_course_of_a_training_has_null_for_what_is_no_number() -> None:
    course = {"curve": [{"step": 1, "loss": math.nan}, {"step": 2, "loss": 0.5}], "size": (1, -math.inf), "name": "a"}
    assert json.loads(json.dumps(json_ready(course), allow_nan=False)) == {
        "curve": [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}], "size": [1, None], "name": "a",
    }  # fmt: skip
