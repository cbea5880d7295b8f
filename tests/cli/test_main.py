from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ue_bench import __version__
from ue_bench.catalogue import loading
from ue_bench.cli import main as module
from ue_bench.cli.common import parse_seeds
from ue_bench.errors import UserError

from .conftest import Command


def test_version(ue_bench: Command) -> None:
    assert ue_bench("--version").out == f"ue-bench, version {__version__}\n"


def test_help_names_every_command(ue_bench: Command) -> None:
    found = ue_bench("--help")
    assert found.code == 0
    for command in module.COMMANDS:
        assert f"\n  {command} " in found.out


@pytest.mark.parametrize("name", module.COMMANDS)
def test_every_command_has_help(ue_bench: Command, name: str) -> None:
    found = ue_bench(name, "--help")
    assert found.code == 0
    assert f"ue-bench {name}" in found.out or "Usage:" in found.out


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["rum"], 2, "no command 'rum'"),
        (["plan", "-P", "noize"], 2, "no protector 'noize'"),
        (["plan", "-P", "em[surrogate=resnet8]"], 2, "no victim 'resnet8'"),
        (["plan", "-P", "em[surrogate='resnet18[weights=w.pt]']"], 2, "no file or folder at w.pt"),
        (["plan", "-C", "jpeg[quality=101]"], 2, "jpeg[quality=101]: Input should be less than or equal to 100"),
        (["plan", "-C", "jpeg[qualty=10]"], 2, "countermeasure 'jpeg' has no parameter 'qualty'"),
        (["plan", "-C", "jpeg[quality=10"], 2, "cannot read selector"),
        (["plan", "-V", "resnet9+resnet18"], 2, "victims cannot be combined"),
        (["plan", "-D", "demo,npz[path=x]"], 2, "one dataset at a time"),
        (["plan", "-D", "npz[path=nowhere.npz]"], 2, "no file or folder at nowhere.npz"),
        (["plan", "--board", "demoo"], 2, "no board 'demoo'"),
        (["plan", "--protocol", "papper"], 2, "no protocol 'papper'"),
        (["plan", "--seeds", "1-x", "-D", "demo[train_per_class=1,test_per_class=1]"], 2, "cannot read seeds '1-x'"),
        (["list", "protektors"], 2, "nothing called 'protektors' to list"),
        (["show", "jpegg"], 2, "nothing is called 'jpegg'"),
        (["plan", "--devices", "cuda:99"], 3, "no device 'cuda:99' here"),
        (["plan", "--cache-dir", "file/x"], 3, "cannot be written: Not a directory"),
        (["plan", "-C", "zz*"], 5, "no countermeasure matches 'zz*'"),
        (["plan", "-C", "jpeg,^jpeg"], 5, "the selection of countermeasures is empty"),
        (["leaderboard", "build"], 5, "no results in ue-bench-results"),
    ],
)
def test_errors_are_one_line_with_a_hint(
    ue_bench: Command, tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    found = ue_bench(*arguments)
    assert found.code == code
    first, hint = found.err.splitlines()
    assert first.startswith("ue-bench: ")
    assert reason in first
    assert hint.startswith("  hint: ")
    assert found.out == ""


def test_a_typo_in_a_command_gets_the_nearest(ue_bench: Command) -> None:
    assert "did you mean run?" in ue_bench("rum").err


@pytest.mark.parametrize(
    "arguments", [["plan", "--nonsense"], ["plan", "--fraction", "2"], ["show"], ["run", "--jobs", "0"]]
)
def test_wrong_options_are_usage_errors(ue_bench: Command, arguments: list[str]) -> None:
    found = ue_bench(*arguments)
    assert found.code == 2
    assert "Error: " in found.err
    assert "Traceback" not in found.err


def test_the_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["ue-bench", "--traceback", "rum"])
    with pytest.raises(UserError, match="no command 'rum'"):
        module.main()


def test_a_plugin_that_ends_the_program_does_not_make_it_a_success(
    ue_bench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over(name: str) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("ue_bench.cli.show._find", over)
    found = ue_bench("show", "jpeg")
    assert found.code == 1
    assert "a plugin ended the program, with code 0" in found.err


def test_ctrl_c_exits_with_130(ue_bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ue_bench.cli.show._find", interrupted)
    found = ue_bench("show", "jpeg")
    assert found.code == 130
    assert "run the same command again to continue" in found.err


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0,1,2", [0, 1, 2]), ("0-4", [0, 1, 2, 3, 4]), ("3,0-1,3", [3, 0, 1])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1-2-3", "4-0", "0,5-3", "0-99999999999", str(2**63)])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="seed"):
        parse_seeds(text)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--fraction", "nan"],
        ["check", "noise", "--seconds", "nan"],
        ["status", "out", "--watch", "--interval", "inf"],
        ["run", "--seeds", ""],
    ],
)
def test_numbers_that_are_none_are_refused(ue_bench: Command, words: list[str]) -> None:
    found = ue_bench(*words)
    assert (found.code, "Traceback" in found.err) == (2, False), found.err


class TestCommandsOfPlugins:
    """Two distributions: one adds ``hello`` and tries to replace ``run``, the other one fails."""

    @pytest.fixture(autouse=True)
    def strangers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        code = {
            "adds": "@group.command('hello')\n    def hello():\n        'Say hello.'\n        print('hello')\n"
            "    @group.command('run')\n    def run():\n        raise SystemExit(77)",
            "breaks": "raise OSError('no\\nway')",
        }
        for name, body in code.items():
            hook = f"from ue_bench.api import hookimpl\n@hookimpl\ndef ue_bench_commands(group):\n    {body}\n"
            (tmp_path / f"cli_{name}.py").write_text(hook, encoding="utf-8")
            info = tmp_path / f"cli_{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cli-{name}\nVersion: 1.0\n", encoding="utf-8")
            (info / "entry_points.txt").write_text(f"[ue_bench]\n{name} = cli_{name}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        loading.load.cache_clear()
        vars(module.cli).pop("_added", None)
        yield
        vars(module.cli).pop("_added", None)
        loading.load.cache_clear()

    def test_can_be_used(self, ue_bench: Command) -> None:
        assert ue_bench("hello").out == "hello\n"

    def test_are_listed_beside_the_builtins_which_they_cannot_replace(self, ue_bench: Command) -> None:
        found = ue_bench("--help")
        assert found.code == 0
        assert "Say hello." in found.out
        assert found.out.count("\n  run ") == 1
        assert ue_bench("run", "--help").code == 0

    def test_that_fail_are_reported_and_lose_only_themselves(self, ue_bench: Command) -> None:
        found = ue_bench("hello")
        assert found.code == 0
        assert found.err.splitlines() == [
            "ue-bench: commands of cli-adds 1.0 cannot be used: ValueError: there is a command 'run' already",
            "ue-bench: commands of cli-breaks 1.0 cannot be used: OSError: no",
        ]
