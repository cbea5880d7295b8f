"""Tables and snippets of the pages agree with the files they describe."""

from __future__ import annotations

import dataclasses
import inspect
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pydantic import BaseModel
from toys import torchvision_module

from ue_bench import api
from ue_bench.api import Context, Countermeasure, Dataset, ImageSet, Plugin, Protector, Register, Victim
from ue_bench.catalogue import boards, protocols
from ue_bench.catalogue.registry import Registry
from ue_bench.contract import hookspecs
from ue_bench.contract.board import Board
from ue_bench.contract.protocol import Protocol
from ue_bench.grid.surrogates import Surrogates
from ue_bench.store import schema
from ue_bench.store.perturbation import check

from .helpers import EXAMPLE, PAGES, ROOT, blocks, label, page, rows, section, spans
from .tables import board_row, protocol_row, release_row, victim_row

PLUGINS = page("docs/plugins.md")
BOARD_KEYS = {field.name for field in dataclasses.fields(Board)} - {"name", "argument"}
PROTOCOL_KEYS = set(Protocol.model_fields) - {"name"}
K = TypeVar("K", bound=Plugin)
HOOKS = [name for name in vars(hookspecs) if name.startswith("ue_bench_")]


def argument_list(function: Callable[..., Any]) -> str:
    return ", ".join(p for p in inspect.signature(function).parameters if p != "self")


class TestPlugins:
    @pytest.mark.parametrize("hook", HOOKS)
    def test_hook_is_documented_with_its_arguments(self, hook: str) -> None:
        heading = f"### {hook}({argument_list(getattr(hookspecs, hook))})"
        assert heading in section(PLUGINS, "## Hooks").splitlines()

    def test_no_other_hook_is_documented(self) -> None:
        assert set(re.findall(r"\bue_bench_(?:register|[a-z]+s)\b(?=\()", PLUGINS)) <= set(HOOKS)
        assert re.findall(r"^### (ue_bench_\w+)", PLUGINS, flags=re.M) == HOOKS

    def test_register_is_documented_with_its_arguments(self) -> None:
        parameters = list(inspect.signature(Register.__call__).parameters)[1:]
        assert f"`register({', '.join(parameters[:-1])}, tags=())`" in PLUGINS
        for method in (Register.set, Register.board, Register.protocol, Register.table):
            assert f"`register.{method.__name__}({argument_list(method)})`" in PLUGINS

    def test_a_board_is_registered_as_shown(self, names: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        block = blocks(section(PLUGINS, "### ue_bench_register(register)"), "python")[0]
        found: dict[str, Any] = {}
        exec(block, found)
        found["ue_bench_register"](register=Register(names, "hello"))
        monkeypatch.setattr(boards, "registry", lambda: names)
        assert boards.board("hello").protectors == ("hello",)

    @pytest.mark.parametrize("name", api.__all__)
    def test_public_name_is_mentioned(self, name: str) -> None:
        assert re.search(rf"\b{name}\b", PLUGINS)

    @pytest.mark.parametrize(
        ("kind", "method"),
        [
            (Protector, "protect"),
            (Countermeasure, "purify"),
            (Countermeasure, "augment"),
            (Countermeasure, "loss"),
            (Countermeasure, "selection_score"),
            (Countermeasure, "after_training"),
            (Dataset, "load"),
            (Dataset, "files"),
            (Victim, "optimizer"),
            (Victim, "pretrain"),
            (Victim, "cost"),
        ],
    )
    def test_method_is_documented_with_its_arguments(self, kind: type[Plugin], method: str) -> None:
        assert f"`{method}({argument_list(getattr(kind, method))})`" in PLUGINS

    def test_context_is_documented(self) -> None:
        names = (*Context.__dataclass_fields__, *vars(Context), *vars(Context.__base__))
        public = {n for n in names if not n.startswith("_")}
        # What the methods are made of.
        private = {"artifacts", "report", "open_dataset", "clean", "rows", "queried", "networks", "defers"}
        table = " ".join(row[0] for row in rows(section(PLUGINS, "## Context")))
        assert {n for n in public - private if not re.search(rf"`{n}\b", table)} == set()

    def test_entry_point_is_that_of_the_example(self) -> None:
        [snippet] = blocks(PLUGINS, "toml")
        assert snippet in (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")


def snippet_class(kind: type[K]) -> type[K]:
    """The plugin class of the first code block under its kind's heading."""
    [block] = blocks(section(PLUGINS, f"## {kind.__name__}"), "python")
    found: dict[str, Any] = {}
    exec(compile(block, f"docs/plugins.md, {kind.__name__}", "exec", dont_inherit=True), found)
    return next(c for c in found.values() if isinstance(c, type) and issubclass(c, kind) and c.name)


class TestSnippets:
    @pytest.fixture
    def ctx(self, tmp_path: Path) -> Context:
        return Context("cpu", 0, tmp_path, tmp_path, tmp_path, networks=Surrogates())

    @pytest.fixture
    def blobs(self, ctx: Context) -> ImageSet:
        return snippet_class(Dataset)().load("train", ctx)

    def test_dataset(self, blobs: ImageSet) -> None:
        assert blobs.images.shape == (100, 32, 32, 3)

    def test_protector(self, blobs: ImageSet, ctx: Context) -> None:
        protector = snippet_class(Protector).model_validate({"step": 3})
        protected = protector.protect(blobs, ctx)
        check(protector, blobs, protected)
        assert (np.abs(protected.images.astype(int) - blobs.images).max(axis=(1, 2, 3)) == 3 * blobs.labels).all()

    def test_countermeasure_and_victim(self) -> None:
        import torch

        x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
        fading = snippet_class(Countermeasure).model_validate({"low": 0.0})
        faded, labels = fading.augment(x, y, torch.Generator().manual_seed(0))
        assert faded.shape == x.shape
        assert torch.equal(labels, y)
        assert snippet_class(Victim)().build(4, (8, 8))(faded).shape == (4, 4)

    def test_table(self) -> None:
        [block] = blocks(section(PLUGINS, "## Tables of papers"), "python")
        found: dict[str, Any] = {}
        exec(compile(block, "docs/plugins.md, Tables", "exec", dont_inherit=True), found)
        table = found["table_2"](strength="5")
        assert table.lines[1].protectors == ("hello[levels=5]",)
        assert [setting.name for setting in table.settings] == ["strength"]

    def test_registration(self) -> None:
        [block] = blocks(section(PLUGINS, "## The distribution"), "python")
        found: dict[str, Any] = {}
        exec(block, found)
        names = Registry()
        found["ue_bench_register"](register=Register(names, "hello"))
        assert [e.name for e in names.of_kind("protector")] == ["hello"]


class TestProtocolsAndBoards:
    text = page("docs/protocols-and-boards.md")

    def test_protocols(self) -> None:
        documented = [row for row in rows(self.text) if len(row) == 12]
        assert documented == [protocol_row(protocols.protocol(n)) for n in protocols.names()]

    def test_what_released_codes_do_beside(self) -> None:
        documented = [row for row in rows(section(self.text, "## Protocols")) if len(row) == 6]
        assert documented == [release_row(protocols.protocol(n)) for n in protocols.names()]

    def test_sources(self) -> None:
        text = section(self.text, "## Protocols")
        documented = {row[0].strip("`"): row[1] for row in rows(text) if len(row) == 2}
        assert list(documented) == protocols.names()
        for name, shown in documented.items():
            source = protocols.protocol(name).source.partition(";")[0]
            assert shown.startswith(source)

    def test_overrides(self) -> None:
        documented = [(row[0].strip("`"), row[1].strip("`")) for row in rows(self.text) if len(row) == 3]
        actual = [(n, c) for n in protocols.names() for c in protocols.protocol(n).overrides]
        assert documented == actual

    def test_victims(self, names: Registry) -> None:
        torchvision_module("torchvision")  # which the large ones are made of
        pytest.importorskip("timm", reason="pip install 'ue-bench[pretrained]'", exc_type=ImportError)
        documented = [row[:3] for row in rows(section(self.text, "## Victims")) if len(row) == 4]
        own = [e for e in names.of_kind("victim") if e.distribution.startswith("ue-bench ")]
        assert sorted(documented) == sorted(victim_row(e) for e in own)

    def test_files_of_ones_own(self, own_files: None) -> None:
        board = boards.board("./mine.toml")
        assert (board.title, board.seeds) == ("My rows", (0, 1, 2))
        recipe = protocols.protocol(board.protocol)
        assert re.fullmatch("recipe.toml#[0-9a-f]{8}", recipe.name)
        assert recipe.under(["at"], {}).epochs == 40

    @pytest.mark.parametrize(("head", "keys"), [("board", BOARD_KEYS), ("protocol", PROTOCOL_KEYS)])
    def test_keys(self, head: str, keys: set[str]) -> None:
        table = self.text.split(f"| key of a {head} | holds |\n")[1].partition("\n\n")[0]
        first = [line.split("|")[1] for line in table.splitlines()]
        assert set(re.findall(r"`(\w+)`", " ".join(first))) == keys

    def test_boards(self) -> None:
        documented = [row for row in rows(self.text) if len(row) == 8]
        assert documented == [board_row(boards.board(n)) for n in boards.names()]


class TestResults:
    @pytest.mark.parametrize(
        ("heading", "record"),
        [
            ("## Result", schema.Result),
            ("### dataset", schema.DatasetInfo),
            ("### metrics", schema.Metrics),
            ("### budget", schema.Budget),
            ("### cost", schema.Cost),
            ("### environment", schema.Environment),
        ],
    )
    def test_fields(self, heading: str, record: type[BaseModel]) -> None:
        text = section(page("docs/results.md"), heading).partition("\n### ")[0]
        documented = [name for row in rows(text) for name in re.findall(r"`(\w+)`", row[0])]
        assert sorted(documented) == sorted(record.model_fields)

    def test_version(self) -> None:
        assert f"| `version` | version of the schema, {schema.SCHEMA} |" in page("docs/results.md")


class TestSelectors:
    @pytest.mark.parametrize("row", rows(page("docs/selectors.md")), ids=lambda r: r[0])
    def test_stands_for_something(self, row: list[str], names: Registry) -> None:
        board = boards.board("cifar10-micro")
        everything = {"protector": board.protectors, "countermeasure": board.countermeasures}
        assert names.resolve(row[1], row[0].strip("`"), everything[row[1]])

    def test_canonical_form(self, names: Registry) -> None:
        found = names.resolve("countermeasure", "jpeg[quality=[10,75]]")
        assert [p.selector for p in found] == ["jpeg[quality=10]", "jpeg"]


SELECTOR_SPAN = re.compile(r"[a-z][\w-]*\[.*\]")


@pytest.mark.parametrize("path", PAGES, ids=label)
class TestMentions:
    def test_selectors_are_of_registered_plugins(self, path: Path, names: Registry) -> None:
        registered = {name for _, name in names.entries}
        found = [s for s in spans(path.read_text(encoding="utf-8")) if SELECTOR_SPAN.fullmatch(s)]
        assert [s for s in found if s.partition("[")[0] not in registered] == []

    def test_no_private_paths(self, path: Path) -> None:
        private = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)\b\S*")
        assert private.findall(path.read_text(encoding="utf-8")) == []


class TestProtectors:
    text = page("docs/protectors.md")

    def test_every_protector_is_named(self, names: Registry) -> None:
        built_in = {e.name for e in names.of_kind("protector") if e.distribution.startswith("ue-bench ")}
        assert built_in - set(spans(self.text)) == set()

    def test_bounds(self, names: Registry) -> None:
        documented = {row[0].strip("`"): row[2] for row in rows(self.text) if len(row) in (6, 7) and row[0] != "name"}
        assert len(documented) > 15
        for name, bound in documented.items():
            [protector] = names.resolve("protector", name)
            assert isinstance(protector, Protector)
            declared = protector.budget
            if declared.startswith("linf") or bound.startswith("Linf"):
                assert bound.lower() == declared


class TestCountermeasures:
    text = page("docs/countermeasures.md")

    def test_every_countermeasure_is_in_a_table(self, names: Registry) -> None:
        built_in = {e.name for e in names.of_kind("countermeasure") if e.distribution.startswith("ue-bench ")}
        assert built_in - {name for row in rows(self.text) for name in spans(row[0])} == set()


def test_changelog_names_every_plugin_protocol_and_board(names: Registry) -> None:
    built_in = {e.name for e in names.entries.values() if e.distribution.startswith("ue-bench ")}
    notes = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "changes").glob("*.md"))]
    mentioned = set(spans("\n".join([page("CHANGELOG.md"), *notes])))
    assert (built_in | set(protocols.names()) | set(boards.names())) - mentioned == set()


def test_variables_of_the_environment(tmp_path: Path) -> None:
    code = "from ue_bench.machine import cache_dir; print(cache_dir())"
    environment = os.environ | {"UE_BENCH_CACHE": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(tmp_path)
    assert "`UE_BENCH_CACHE`" in page("docs/cli.md")
    assert "`UE_BENCH_DATA`" in page("docs/cli.md")


def test_shards_are_unpacked_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "a-0.tar", "w") as archive:
        for name, content in (("17.jpg", b"picture"), ("17.cls", b"3\n"), ("18.jpg", b"other"), ("18.cls", b"cat")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    [block] = blocks(section(page("docs/protocols-and-boards.md"), "## Datasets"), "python")

    exec(compile(block, "docs/protocols-and-boards.md", "exec", dont_inherit=True), {})

    assert (tmp_path / "photos" / "3" / "a-0-17.jpg").read_bytes() == b"picture"
    assert (tmp_path / "photos" / "cat" / "a-0-18.jpg").read_bytes() == b"other"


def test_every_dataset_is_on_the_page(names: Registry) -> None:
    text = section(page("docs/protocols-and-boards.md"), "## Datasets")
    for record in names.of_kind("dataset"):
        if record.distribution.startswith("ue-bench "):
            assert re.search(rf"`{record.name}[`\[]", text), record.name
