"""Standard output that is not UTF-8, and ``python -m ue_bench``."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ue_bench.cli.main import main

from . import invertible
from .helpers import random_image, write


class Ascii:
    """Runs ``ue-bench`` on a terminal that knows ASCII only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.BytesIO(), io.BytesIO()
        with self.monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["ue-bench", *arguments])
            patched.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii", write_through=True))
            patched.setattr(sys, "stderr", io.TextIOWrapper(err, "ascii", write_through=True))
            with pytest.raises(SystemExit) as end:
                main()
            return int(end.value.code or 0), out.getvalue().decode("ascii"), err.getvalue().decode("ascii")


@pytest.fixture
def ascii_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ascii:
    monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    invertible.register(monkeypatch)
    return Ascii(monkeypatch)


def test_what_the_encoding_lacks_is_replaced(ascii_terminal: Ascii, tmp_path: Path) -> None:
    write(tmp_path / "in" / "größe" / "1.png", random_image())
    (tmp_path / "in" / "größe" / "kaputt ä.png").write_bytes(b"broken")
    protect = ["protect", "-P", "shuffled", "--device", "cpu", "--threads", "1", "in"]
    code, out, err = ascii_terminal(*protect, "geschützt")
    assert code == 1
    assert out.splitlines()[0].endswith("gesch?tzt: 1 images protected by shuffled")
    assert "  gr??e/kaputt ?.png: not an image that can be read" in err.splitlines()


def test_json_is_escaped_instead(ascii_terminal: Ascii, tmp_path: Path) -> None:
    write(tmp_path / "in" / "größe" / "猫.png", random_image())
    protect = ["protect", "-P", "shuffled", "--device", "cpu", "--threads", "1", "in"]
    _, out, _ = ascii_terminal(*protect, "out", "--json")
    assert list(json.loads(out)["files"]) == ["größe/猫.png"]


def test_python_m(tmp_path: Path) -> None:
    environment = {**os.environ, "UE_BENCH_CACHE": str(tmp_path), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment |= {"LC_ALL": "C", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "ue_bench"]
    ran = subprocess.run([*command, "list", "--help"], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.startswith("Usage: python -m ue_bench list ")
    ran = subprocess.run([*command, "rum"], capture_output=True, text=True, env=environment, check=False)
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (2, "ue-bench: no command 'rum'")
