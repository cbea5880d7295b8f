"""The Python way in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ue_bench
from ue_bench.errors import EnvironmentProblem, NothingSelected, UserError
from ue_bench.grid.grid import Request, resolve
from ue_bench.grid.progress import Quiet
from ue_bench.schedule.executor import Event
from ue_bench_countermeasures.preprocessing import Gray

PROTOCOL = """
version = 1
summary = "two steps"
source = "tests"
batch = 20
steps = 2
learning_rate = 0.1
schedule = "cosine"
"""
BOARD = """
title = "Small"
dataset = "demo[train_per_class=4,test_per_class=2]"
protocol = "two.toml"
victims = ["resnet9[width=4,blocks=1]"]
protectors = ["lsp"]
countermeasures = ["vanilla", "gray"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a board of its own whose cells take moments."""
    (tmp_path / "two.toml").write_text(PROTOCOL, encoding="utf-8")
    (tmp_path / "small.toml").write_text(BOARD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_board_is_filled_and_read_again(folder: Path) -> None:
    results = ue_bench.run("./small.toml", devices="cpu", jobs=1, progress=False)
    assert results.complete
    assert results.failures == ()
    assert {(r.protector, r.countermeasure) for r in results} == {
        (row, column) for row in ("none", "noise", "lsp") for column in ("vanilla", "gray")
    }
    again = ue_bench.load_results(board="./small.toml")
    assert list(again) == list(results)
    assert again[0] == results[0]
    assert repr(again) == "<6 results of board small>"


def test_results_are_tables(folder: Path) -> None:
    results = ue_bench.run("./small.toml", countermeasures="gray", devices="cpu", jobs=1, progress=False)
    assert "lsp" in results.table()
    cells = results.to_pandas()
    assert isinstance(cells, pd.DataFrame)
    assert set(cells["protector"]) == {"none", "noise", "lsp"}
    assert set(cells["countermeasure"]) == {"gray"}
    worst = results.worst().set_index("protector")
    assert not worst.loc["lsp", "complete"]  # one of the board's two columns
    assert worst.loc["lsp", "worst_by"] == "gray"
    [lsp] = [r for r in results if r.protector == "lsp"]
    assert worst.loc["lsp", "worst"] == lsp.metrics.accuracy_last


def test_a_script_needs_no_main_guard(folder: Path) -> None:
    """A worker that imported the calling script would run it again, and again."""
    script = folder / "script.py"
    script.write_text(
        "import ue_bench\n"
        "print('started')\n"
        "r = ue_bench.run('./small.toml', protectors='lsp', countermeasures='gray', devices='cpu', jobs=1)\n"
        "print(len(r))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["started", "3"]
    assert "3 of 3 cells to compute" in done.stderr


def test_what_a_glob_stands_for_and_cannot_be_had_is_warned_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(plugin: Gray) -> None:
        raise EnvironmentProblem("no weights of gray", "put them there")

    monkeypatch.setattr(Gray, "identity", identity)
    with pytest.warns(UserWarning, match="gray is left out: no weights"), pytest.raises(NothingSelected):
        ue_bench.run("./small.toml", protectors="lsp", countermeasures="gra?", devices="cpu", progress=False)


def test_what_does_not_exist_is_a_user_error(folder: Path) -> None:
    with pytest.raises(UserError, match="no board 'dmeo'"):
        ue_bench.run("dmeo")
    with pytest.raises(UserError, match="no protector 'lps'"):
        ue_bench.run("./small.toml", protectors="lps", devices="cpu")
    with pytest.raises(NothingSelected, match="no results in"):
        ue_bench.load_results(board="./small.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"fraction": "all"}, "fraction is 'all'"),
        ({"precision": "fp16"}, "no precision 'fp16'"),
        ({"seeds": [1.0]}, "a seed is 1.0"),
        ({"seeds": [-1]}, "a seed is -1"),
        ({"seeds": 2**63}, "a seed is 9223372036854775808"),
        ({"threads": 0}, "number of threads is 0"),
        ({"jobs": 0}, "number of workers is 0"),
    ],
)
def test_numbers_are_checked_before_work_begins(arguments: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        ue_bench.run("./small.toml", devices="cpu", **arguments, progress=False)
    assert not list(folder.glob("ue-bench-results/*/results"))


def test_numbers_of_any_kind_name_the_same_cells(folder: Path) -> None:
    def keys(**arguments: Any) -> list[str]:
        return [cell.key for cell in resolve(Request(board="./small.toml", devices="cpu", **arguments)).cells]

    plain = keys(seeds=[0, 1], fraction=1.0)
    assert keys(seeds=np.arange(2), fraction=1) == plain
    assert keys(seeds=[False, True, 1], fraction=np.float32(1)) == plain


def test_owners_numbers_are_checked_too(tmp_path: Path) -> None:
    for arguments, message in (({"threads": 0}, "number of threads"), ({"precision": "fp16"}, "no precision")):
        with pytest.raises(UserError, match=message):
            ue_bench.protect(tmp_path, tmp_path / "out", "lsp", **arguments)


def test_a_folder_is_protected_and_recovered(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        target = folder / "photos" / f"class {number % 2}" / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(target)
    (folder / "photos" / "class 0" / "broken.png").write_bytes(b"no picture")
    protected = ue_bench.protect("photos", "protected", "lsp", progress=False)
    assert protected.images == 5
    assert list(protected.failed) == ["class 0/broken.png"]
    assert protected.measured is not None
    assert protected.measured["rms"] > 1
    assert protected.key is None
    assert len(list(Path("protected").rglob("*.png"))) == 4
    with pytest.raises(UserError, match="cannot be undone"):
        ue_bench.protect("photos", "other", "lsp", lossless=True, progress=False)
    with pytest.raises(UserError, match=r"nowhere\.safetensors"):
        ue_bench.recover("nowhere.safetensors", "protected", "back", progress=False)


def test_warnings_reach_who_asked_for_no_progress() -> None:
    with pytest.warns(UserWarning, match="nothing changed"):
        Quiet().on_event(Event("warning", text="nothing changed"))


def test_unknown_names_are_said_plainly() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ue_bench.nothing  # noqa: B018
