"""Who may import whom (design.md, section 3), read off the syntax trees; and what start-up must not import."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
EXAMPLES = sorted(p for p in (ROOT / "examples").rglob("*.py") if "tests" not in p.relative_to(ROOT).parts)
HARNESS = sorted((ROOT / "ue_bench").rglob("*.py"))
ROOMS = ("engine", "schedule", "store")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import, also those inside functions and behind TYPE_CHECKING."""
    parents = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(parents[: len(parents) - node.level]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def violations(paths: list[Path], allowed: object) -> list[str]:
    assert paths
    assert callable(allowed)
    return [f"{p.relative_to(ROOT)}:{line} {name}" for p in paths for line, name in imported(p) if not allowed(name)]


def test_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "ue_bench" / "engine" / "x.py"
    source.parent.mkdir(parents=True)
    source.write_text("import a.b\nfrom ..store import s\ndef f():\n    from . import y\n", encoding="utf-8")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert [n for _, n in imported(source)] == ["a.b", "ue_bench.store.s", "ue_bench.engine.y"]


@pytest.mark.parametrize("paths", [PLUGINS, EXAMPLES], ids=["plugins", "examples"])
def test_plugins_use_the_public_module_only(paths: list[Path]) -> None:
    assert violations(paths, lambda n: n.split(".")[0] != "ue_bench" or n.startswith("ue_bench.api.")) == []


def test_the_harness_imports_no_plugin() -> None:
    packages = {p.relative_to(ROOT / "plugins").parts[0] for p in PLUGINS} | {
        p.name for p in (ROOT / "examples").iterdir()
    }
    assert violations(HARNESS, lambda n: n.split(".")[0] not in packages) == []


@pytest.mark.parametrize("room", ROOMS)
def test_engine_schedule_and_store_do_not_know_one_another(room: str) -> None:
    others = tuple(f"ue_bench.{r}" for r in (*ROOMS, "plan", "stages", "work", "cli", "leaderboard") if r != room)
    paths = [p for p in HARNESS if p.parent.name == room]
    assert violations(paths, lambda n: not n.startswith(others)) == []


def heavy_modules(code: str, tmp_path: Path) -> list[str]:
    """Heavy packages that a fresh interpreter has imported after ``code``."""
    script = f"""
import sys
{code}
import json
heavy = {{"torch", "torchvision", "scipy", "sklearn", "pandas", "pyarrow", "jinja2"}}
print(json.dumps(sorted(heavy & set(sys.modules))), file=sys.stderr)
"""
    environment = {**os.environ, "UE_BENCH_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True, timeout=120
    )
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


COMMAND = """
from ue_bench.cli.main import main
sys.argv = ["ue-bench", *{arguments}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import ue_bench, ue_bench.api, ue_bench.catalogue.registry, ue_bench.catalogue.loading",
        COMMAND.format(arguments=["--help"]),
        COMMAND.format(arguments=["list", "protectors"]),
        COMMAND.format(arguments=["list", "countermeasures", "--json"])
        + COMMAND.format(arguments=["list", "protectors", "--json"]),
        COMMAND.format(arguments=["show", "jpeg"]) + COMMAND.format(arguments=["run", "--help"]),
    ],
    ids=["import", "help", "list", "list json", "show"],
)
def test_start_up_imports_nothing_heavy(code: str, tmp_path: Path) -> None:
    assert heavy_modules(code, tmp_path) == []
