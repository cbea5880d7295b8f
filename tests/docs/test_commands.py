"""Every ue-bench command of the pages is one that the program takes, and every command and option has its place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ue_bench.catalogue import boards, loading, protocols, tables
from ue_bench.catalogue.registry import Registry
from ue_bench.cli.common import SETTING_OPTIONS, TABLE_OPTIONS
from ue_bench.cli.main import COMMANDS, cli
from ue_bench.errors import EnvironmentProblem, NothingSelected, UserError, ValidationError

from .helpers import PAGES, find_command, label, page, rows, section, shell_commands, spans

COMMAND_LINES = [(label(p), words) for p in PAGES for words in shell_commands(p.read_text(encoding="utf-8"))]
LISTINGS = [words for _, words in COMMAND_LINES if words[0] in ("list", "show") and "hello" not in words[1]]
GRID_COMMANDS = ("run", "plan", "run-stage", "status")
SELECTORS = {"protectors": "protector", "countermeasures": "countermeasure", "victims": "victim", "dataset": "dataset"}


def commands() -> list[str]:
    """Built-in commands and those that the plugins of this distribution add."""
    added = click.Group()
    loaded = loading.load()
    for name, module in loaded.manager.list_name_plugin():
        if loaded.distributions.get(name, "").startswith("ue-bench ") and hasattr(module, "ue_bench_commands"):
            module.ue_bench_commands(group=added)
    return [*COMMANDS, *added.commands]


def leaves() -> list[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    found = []
    for name in commands():
        command = find_command(cli, [name])[0]
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", c) for sub, c in command.commands.items()]
        else:
            found.append((name, command))
    return found


def flags(parameters: list[click.Parameter]) -> set[str]:
    return {flag for p in parameters if isinstance(p, click.Option) for flag in p.opts}


def grid_flags() -> set[str]:
    @click.command()
    def bare() -> None: ...

    for option in [*TABLE_OPTIONS, *SETTING_OPTIONS]:
        bare = option(bare)
    return flags(bare.params)


def documented_flags(text: str) -> set[str]:
    return {span for row in rows(text) for span in re.findall(r"`(-[^`]+)`", row[0])}


@pytest.mark.parametrize(("where", "words"), COMMAND_LINES, ids=lambda v: v if isinstance(v, str) else " ".join(v))
class TestCommandLine:
    @pytest.fixture(autouse=True)
    def with_own_files(self, own_files: None) -> None:
        """Commands may name them."""

    def test_parses_and_names_things_that_exist(self, where: str, words: list[str], names: Registry) -> None:
        command, rest = find_command(cli, words)
        given = command.make_context("ue-bench", rest, parent=click.Context(cli)).params
        board = boards.board(given.get("board_name") or "demo")
        if given.get("protocol"):
            protocols.protocol(given["protocol"])
        if given.get("table_name"):
            assert tables.table(given["table_name"], dict(text.split("=", 1) for text in given["settings"]))
        for option, kind in SELECTORS.items():
            if given.get(option):
                assert names.resolve(kind, given[option], getattr(board, f"{kind}s", ()))


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_what_is_listed_or_shown_is_there(words: list[str], own_files: None) -> None:
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == 0
    assert ran.stdout.strip()


def test_settings_of_tables_are_documented() -> None:
    documented = section(page("docs/cli.md"), "## ue-bench reproduce")
    settings = {setting.name for name in tables.names() for setting in tables.table(name).settings}
    assert [name for name in sorted(settings) if f"`{name}`" not in documented] == []


def test_there_are_command_lines() -> None:
    assert len(COMMAND_LINES) > 20
    assert {words[0] for words in LISTINGS} == {"list", "show"}


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_commands_in_running_text_exist(path: Path) -> None:
    for span in spans(path.read_text(encoding="utf-8")):
        if span.startswith("ue-bench ") and not span.startswith("ue-bench --"):
            find_command(cli, span.split()[1:])


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_options_in_running_text_exist(path: Path) -> None:
    known = flags(cli.params) | {"-h", "--help"}
    for _, command in leaves():
        known |= flags(command.params)
    found = {s.split()[0] for s in spans(path.read_text(encoding="utf-8")) if re.match(r"--?[a-zA-Z]", s)}
    assert found <= known


@pytest.mark.parametrize("name", commands())
def test_command_has_a_section_and_a_line_in_the_table(name: str) -> None:
    text = page("docs/cli.md")
    assert section(text, f"## ue-bench {name}").strip()
    assert f"| [`ue-bench {name}`](#ue-bench-{name}) |" in text


def test_no_section_without_a_command() -> None:
    for heading in re.findall(r"^##+ ue-bench (.+)$", page("docs/cli.md"), flags=re.M):
        assert find_command(cli, heading.split())[1] == []


def test_grid_options_are_documented_as_they_are() -> None:
    assert documented_flags(section(page("docs/cli.md"), "## Grid options")) == grid_flags()


@pytest.mark.parametrize("name", GRID_COMMANDS)
def test_grid_commands_take_the_grid_options(name: str) -> None:
    assert grid_flags() <= flags(dict(leaves())[name].params)


@pytest.mark.parametrize(("name", "command"), leaves(), ids=lambda v: v if isinstance(v, str) else "")
def test_other_options_are_documented_in_their_section(name: str, command: click.Command) -> None:
    own = flags(command.params) - (grid_flags() if name in (*GRID_COMMANDS, "reproduce") else set())
    text = section(page("docs/cli.md"), f"## ue-bench {name.split()[0]}")
    assert [flag for flag in sorted(own) if f"`{flag}`" not in text] == []


@pytest.mark.parametrize("name", commands())
def test_sections_document_no_other_options(name: str) -> None:
    known: set[str] = set()
    for full, command in leaves():
        if full.split()[0] == name:
            known |= flags(command.params)
    assert documented_flags(section(page("docs/cli.md"), f"## ue-bench {name}")) <= known


def test_exit_codes() -> None:
    codes = [row[0] for row in rows(section(page("docs/cli.md"), "## Exit codes"))]
    raised = {e.exit_code for e in (UserError, EnvironmentProblem, ValidationError, NothingSelected)}
    assert codes == ["0", "1", "2", "3", "4", "5", "130, 143"]
    assert raised == {2, 3, 4, 5}


def test_help_and_list_leave_torch_alone() -> None:
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    code += "from ue_bench.cli.main import main; main()"
    for words in (["--help"], ["list", "protectors"]):
        ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=200)
        assert ran.stdout.splitlines()[-1] == "False"
