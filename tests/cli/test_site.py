"""``leaderboard build --all`` and ``check --all``."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from leaderboard.folders import two_boards

from .conftest import Command


def test_the_command_builds_and_checks_all(ue_bench: Command, tmp_path: Path) -> None:
    root = two_boards(tmp_path / "boards")
    built = ue_bench("leaderboard", "build", "--all", "--out", str(root), "--methods")
    assert built.code == 0, built.err
    assert str(root / "index.html") in built.out
    assert "strange holds results, but no board has that name: left out" in built.err
    assert ue_bench("leaderboard", "check", "--all", "--out", str(root)).code == 0
    (root / "README.md").unlink()
    checked = ue_bench("leaderboard", "check", "--all", "--out", str(root), "--json")
    assert (checked.code, checked.json) == (4, ["README.md is missing"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--all", "--board", "demo"], "--all and --board exclude each other"),
        (["--methods"], "--methods needs --all"),
    ],
)
def test_options_that_contradict_each_other(ue_bench: Command, arguments: list[str], said: str) -> None:
    found = ue_bench("leaderboard", "build", *arguments)
    assert (found.code, found.err.splitlines()[0]) == (2, f"ue-bench: {said}")


def test_serve_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    root = two_boards(tmp_path / "boards")
    script = Path(sys.executable).with_name("ue-bench")
    words = [str(script), "leaderboard", "serve", "--all", "--out", str(root), "--port", "0"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to it
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address, timeout=60) as answer:
            text = answer.read().decode()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)

    assert address.startswith("http://127.0.0.1:")
    assert text.count("An adversary gets most with ") == 2
    assert process.returncode == 0
    assert said.endswith("ue-bench: stopped\n")
