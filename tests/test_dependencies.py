"""Who may import whom (design.md, section 3), read off the syntax trees; and what start-up must not import."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median

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


def modules(paths: list[Path]) -> dict[str, Path]:
    """Paths by dotted name; a package has that of its folder."""
    dotted = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in paths}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


def import_graph(paths: list[Path]) -> dict[str, set[str]]:
    """Which modules every module imports: lazily and for types counted, a package by its own modules not."""
    known = modules(paths)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        targets = {n if n in known else n.rpartition(".")[0] for _, n in imported(path)}
        graph[name] = {t for t in targets if t in known and t != name and not name.startswith(f"{t}.")}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        reached[start], todo = set(), list(graph[start])
        while todo:
            if (name := todo.pop()) not in reached[start]:
                reached[start].add(name)
                todo += graph[name]
    groups = {
        tuple(sorted({name} | {other for other in reached[name] if name in reached[other]}))
        for name in graph
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def test_circles_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        "a": "from . import b\n",
        "b": "def f():\n    from .c import x\n",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import y\n",
        "d": "from .a import z\nimport room.e\n",
        "e": "from . import __version__\n",
    }
    room = tmp_path / "room"
    room.mkdir()
    for name, source in {**sources, "__init__": "from . import e\n"}.items():
        (room / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert circles(import_graph(list(room.glob("*.py")))) == [["room.a", "room.b", "room.c"]]


def test_the_harness_has_no_circle_of_imports() -> None:
    assert circles(import_graph(HARNESS)) == []


def test_packages_of_plugins_have_no_circle_of_imports() -> None:
    """What two of them share lies in the one that the other may know."""
    paths = {p.relative_to(ROOT / "plugins").parts[0]: list[Path]() for p in PLUGINS}
    for path in PLUGINS:
        paths[path.relative_to(ROOT / "plugins").parts[0]].append(path)
    graph = {
        package: {name.split(".")[0] for path in of_it for _, name in imported(path)} & paths.keys() - {package}
        for package, of_it in paths.items()
    }
    assert graph["ue_bench_raeg"]
    assert circles(graph) == []


def test_modules_can_be_read_at_one_sitting() -> None:
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in [*HARNESS, *PLUGINS]}
    assert [f"{p.relative_to(ROOT)}: {n}" for p, n in lines.items() if n > 400] == []
    assert median(lines.values()) <= 120


LAYERS = {  # room -> rooms that it may know
    "contract": {"contract", "catalogue.selectors"},  # that module only reads text
    "catalogue": {"contract", "catalogue"},
}
ALL_ROOMS = {p.name for p in (ROOT / "ue_bench").iterdir() if p.is_dir()}


@pytest.mark.parametrize("room", LAYERS)
def test_rooms_know_only_what_lies_below_them(room: str) -> None:
    paths = [p for p in HARNESS if p.relative_to(ROOT).parts[1] == room]
    above = tuple(f"ue_bench.{other}." for other in ALL_ROOMS - LAYERS[room])
    below = tuple(f"ue_bench.{other}." for other in LAYERS[room])
    assert violations(paths, lambda n: n.startswith(below) or not n.startswith(above)) == []


# Words that are also names of plugins, and where they mean something else.
ORDINARY_WORDS = {
    "cuda": "*",  # the device of torch
    "mean": "*",  # of numbers
    "jpeg": "ue_bench/cli/protect.py ue_bench/owner/pictures.py ue_bench/owner/protecting.py",  # the file format
    "gray": "ue_bench/owner/pictures.py",  # the kind of image
    "parquet": "ue_bench/cli/results.py ue_bench/store/exporting.py",  # the file format
    "demo": "*",  # the board
    "recovered": "ue_bench/cli/recover.py",  # the default folder
    "none": "ue_bench/contract/plugin.py ue_bench/errors.py ue_bench/owner/audit.py ue_bench/store/array_files.py "
    "ue_bench/testing/protectors.py ue_bench/grid/stages/evade.py",  # no bound, or nothing to list
    "noise": "ue_bench/store/image_readers.py",  # the name of an array
}


def plugin_names_in(path: Path, names: set[str]) -> Iterator[str]:
    """String literals, save docstrings, that are a plugin's name or begin as a selector of one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(n.body[0].value) for n in ast.walk(tree)
                  if isinstance(n, documented) and n.body and isinstance(n.body[0], ast.Expr)}  # fmt: skip
    where = path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)) or id(node) in docstrings:
            continue
        name = re.split(r"[\[+]", node.value.removeprefix("@"))[0]
        allowed = ORDINARY_WORDS.get(node.value, "")
        if name in names and allowed != "*" and where not in allowed.split():
            yield f"{where}:{node.lineno} {node.value!r}"


def test_plugin_names_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        '"""net"""\na = "net"\nb = "net[width=4]"\nc = "@nets"\nd = "network"\ne = "cuda"\nf = "none"\n',
        encoding="utf-8",
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    found = list(plugin_names_in(source, {"net", "nets", "cuda", "none"}))
    assert found == ["x.py:2 'net'", "x.py:3 'net[width=4]'", "x.py:4 '@nets'", "x.py:7 'none'"]


ROLES = {
    "reference",
    "clean",
    "plain",
    "evasion",
}  # tags and sets that ask a plugin for a part, and do not say which one


def test_the_harness_names_no_plugin() -> None:
    """Not even in strings. What it needs it asks for by tag: ``@plain``, ``@clean``, ``@reference``."""
    from ue_bench.catalogue.registry import registry

    names = {name for _, name in registry().entries} | {name for _, name in registry().sets}
    assert [found for path in HARNESS for found in plugin_names_in(path, names - ROLES)] == []


def heavy_modules(code: str, tmp_path: Path, also: Iterable[str] = ()) -> list[str]:
    """Heavy packages that a fresh interpreter has imported after ``code``."""
    script = f"""
import sys
{code}
import json
heavy = {{"torch", "torchvision", "scipy", "sklearn", "pandas", "pyarrow", "jinja2", *{[*also]}}}
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


def test_help_waits_for_no_arrays_and_pictures(tmp_path: Path) -> None:
    """Plugins bring commands, whose options alone are shown."""
    code = COMMAND.format(arguments=["--help"])
    assert heavy_modules(code, tmp_path, also=["numpy", "PIL", "pydantic"]) == []


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
