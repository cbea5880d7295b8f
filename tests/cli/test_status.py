"""``ue-bench status OUT``: a results folder seen from outside."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ue_bench.catalogue import boards
from ue_bench.processes import Identity
from ue_bench.store.results import ResultStore
from ue_bench.store.running import announced
from ue_bench.store.schema import Failure

from .conftest import Command

GRID = [
    *("-D", "demo[train_per_class=4,test_per_class=3]", "-V", "resnet9[width=4]", "--protocol", "smoke"),
    *("-P", "none,noise", "-C", "vanilla,gray", "--devices", "cpu", "--precision", "fp32", "--out", "out"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_reference_row(monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(boards.board("demo"), reference=("none",))
    monkeypatch.setattr(boards, "board", lambda name: small)


@pytest.fixture
def out(ue_bench: Command, computed: list[str], tmp_path: Path) -> Path:
    assert ue_bench("run", *GRID).code == 0
    return tmp_path / "out"


def lose(out: Path, row: str, column: str) -> str:
    """Remove a result; return the id of its cell."""
    [path] = (out / "results" / row).glob(f"{column}-*.json")
    name = json.loads(path.read_text(encoding="utf-8"))["id"]
    path.unlink()
    assert isinstance(name, str)
    return name


def fail(out: Path, name: str, key: str = "e" * 32, trace: str = "Traceback") -> None:
    failure = Failure(key=key, id=name, attempts=2, error="ValueError: no", failed="2026-01-01T00:00:00+00:00")
    ResultStore(out).write_failure(failure, trace)


def lease(folder: Path, key: str, label: str, silent: float = 0.0, **said: Any) -> None:
    """What a driver leaves in a shared folder while it works."""
    owners = folder / ".leases" / "owners"
    owners.mkdir(parents=True, exist_ok=True)
    (owners / "me").write_text("1", encoding="utf-8")
    then = time.time() - silent
    os.utime(owners / "me", (then, then))
    content = {
        "token": "t",
        "owner": "me",
        "host": "node7",
        "process": "1",
        "label": label,
        "since": time.time() - 90,
        "patience": 120.0,
    }
    (folder / ".leases" / key).write_text(json.dumps(content | said), encoding="utf-8")


def test_rows_are_counted(ue_bench: Command, out: Path) -> None:
    found = ue_bench("status", "out", "--json").json
    assert found["rows"] == [
        {"protector": "none", "done": 2, "failed": 0, "missing": 0},
        {"protector": "noise", "done": 2, "failed": 0, "missing": 0},
    ]
    lose(out, "none", "gray")
    fail(out, lose(out, "noise", "vanilla"))
    found = ue_bench("status", "out", "--json").json
    assert found["rows"] == [
        {"protector": "none", "done": 1, "failed": 0, "missing": 1},
        {"protector": "noise", "done": 1, "failed": 1, "missing": 0},
    ]
    assert (found["done"], found["failed"], found["missing"]) == (2, 1, 1)
    assert found["seconds_left"] > 0
    text = ue_bench("status", "out").out
    assert text.splitlines()[-1].startswith("2 done, 1 failed, 1 missing, some ")


def test_failures_come_with_their_logs(ue_bench: Command, out: Path) -> None:
    fail(out, lose(out, "noise", "vanilla"))
    fail(out, lose(out, "noise", "gray"), key="d" * 32, trace="")
    [second, first] = ue_bench("status", "out", "--json").json["failures"]
    assert (first["kind"], first["error"]) == ("error", "ValueError: no")
    assert Path(first["log"]).read_text(encoding="utf-8") == "Traceback"
    assert second["log"] is None
    (out / "logs").mkdir(exist_ok=True)
    for key in (first["key"], second["key"]):
        (out / "logs" / f"{key}.log").write_text("printed", encoding="utf-8")
    again = [failure["log"] for failure in ue_bench("status", "out", "--json").json["failures"]]
    assert again == [str(out / "logs" / f"{second['key']}.log"), first["log"]]
    assert f"[{first['log']}]" in ue_bench("status", "out").out


def test_what_is_at_work_is_read_from_leases(ue_bench: Command, out: Path, tmp_path: Path) -> None:
    lease(out, "a" * 32, "demo/none/gray", silent=5)
    lease(tmp_path / "cache", "b" * 32, "protect demo/noise/s0", silent=900, host="node8")
    lease(out, "driver.me", "a driver", silent=5)
    here = Identity.here()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        gone = Identity(here.space, ended.pid, "long ago").text
    lease(out, "d" * 32, "demo/none/jpeg", silent=5, process=gone, host="this one")
    lease(out, "e" * 32, "demo/none/mean", silent=5, process=here.text)
    (out / ".leases" / ("c" * 32)).write_text("{", encoding="utf-8")  # it is being written
    found = {stage["label"]: stage for stage in ue_bench("status", "out", "--json").json["running"]}
    assert found.pop("demo/none/jpeg")["lost"] == bool(here.space)
    assert found.pop("demo/none/mean")["lost"] is False
    assert set(found) == {"demo/none/gray", "protect demo/noise/s0"}
    alive, dead = found["demo/none/gray"], found["protect demo/noise/s0"]
    assert (alive["host"], alive["lost"], dead["host"]) == ("node7", False, "node8")
    assert alive["since"] == pytest.approx(90, abs=30)
    assert dead["lost"] is True
    text = ue_bench("status", "out").out
    assert "at work  demo/none/gray  (node7, for 1:3" in text
    with announced(out / ".leases" / ("a" * 32), "gpu1", lambda *_: None):
        (out / ".leases" / "progress" / ("a" * 32)).write_text(
            json.dumps({"slot": "gpu1", "fraction": 0.75, "text": "epoch 6/8"}), encoding="utf-8"
        )
        text = ue_bench("status", "out").out
        assert "at work  demo/none/gray  (node7 gpu1, for 1:3" in text
        assert ", 75%, epoch 6/8, some 0:3" in text
    assert "lost     protect demo/noise/s0  (node8" in text


def test_a_folder_that_nobody_has_asked_anything_of_tells_no_missing(ue_bench: Command, out: Path) -> None:
    for path in (out / "requests").iterdir():
        path.unlink()
    found = ue_bench("status", "out", "--json").json
    assert [row["missing"] for row in found["rows"]] == [None, None]
    assert found["missing"] is None
    assert ue_bench("status", "out").out.splitlines()[-1] == "4 done, 0 failed"


def test_a_shard_leaves_the_whole_to_be_seen(ue_bench: Command, computed: list[str]) -> None:
    assert ue_bench("run", "--shard", "1/2", *GRID).code == 0
    found = ue_bench("status", "out", "--json").json
    assert found["done"] + found["missing"] == 4
    assert found["missing"] > 0
    assert ue_bench("run", "--shard", "2/2", *GRID).code == 0
    assert ue_bench("status", "out", "--json").json["missing"] == 0


def test_watching_ends_when_nothing_is_left(ue_bench: Command, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = (out / "results" / "none").glob("gray-*.json")
    content = path.read_bytes()
    path.unlink()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            path.write_bytes(content)

    monkeypatch.setattr("ue_bench.cli.status.time.sleep", sleep)
    found = ue_bench("status", "out", "--watch", "--interval", "7")
    assert found.code == 0
    assert pauses == [7, 7, 7]
    assert found.out.splitlines()[-1] == "4 done, 0 failed, 0 missing"


@pytest.mark.parametrize("words", [["--board", "demo"], ["-P", "x"], ["--shard", "1/2"], ["--interval", "3"]])
def test_what_says_nothing_of_a_folder_is_refused(ue_bench: Command, out: Path, words: list[str]) -> None:
    refused = ue_bench("status", "out", *words)
    assert (refused.code, "has no part in status" in refused.err) == (2, True), refused.err


def test_rows_on_another_disk_and_copies_of_results(ue_bench: Command, out: Path, tmp_path: Path) -> None:
    row = out / "results" / "noise"
    row.rename(tmp_path / "elsewhere")
    row.symlink_to(tmp_path / "elsewhere")
    [gray] = row.glob("gray-*.json")
    (row / f"copy-of-{gray.name}").write_bytes(gray.read_bytes())
    again = ue_bench("run", *GRID, "--json")
    assert (again.code, len(again.json)) == (0, 4), again.err
    assert "nothing to compute, all 4 cells have results" in again.err
    assert ue_bench("status", "out", "--json").json["done"] == 4
    assert ue_bench("results", "merge", "out", "merged", "--json").json["added"] == 4


def test_other_folders_are_refused(ue_bench: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        found = ue_bench("status", name)
        assert found.code == 2
        assert "holds no results" in found.err
    assert ue_bench("status", "--watch").code == 2


def test_a_failure_of_a_cell_that_has_a_result_is_over(ue_bench: Command, out: Path) -> None:
    [one, *_] = ResultStore(out).results()
    fail(out, one.id, one.key)
    found = ue_bench("status", "out", "--json").json
    assert (found["done"], found["failed"], found["missing"], found["failures"]) == (4, 0, 0, [])


def test_watching_ends_with_the_folder_and_not_with_the_cache(ue_bench: Command, out: Path, tmp_path: Path) -> None:
    """Another board may fill its own folder for days from the same cache."""
    lease(tmp_path / "cache", "d" * 32, "protect something/else/s0")
    watched = ue_bench("status", "out", "--watch", "--interval", "1")
    assert watched.code == 0
    assert "4 done, 0 failed, 0 missing" in watched.out


def test_time_in_which_nobody_worked_is_not_part_of_the_pace(ue_bench: Command, out: Path) -> None:
    lose(out, "none", "gray")
    old = next((out / "results" / "none").glob("*.json"))
    content = json.loads(old.read_text(encoding="utf-8"))
    content["finished"] = (datetime.now(UTC) - timedelta(minutes=50)).isoformat(timespec="seconds")
    old.write_text(json.dumps(content), encoding="utf-8")
    assert ue_bench("status", "out", "--json").json["seconds_left"] > 900  # 3 results in 50 minutes
    lease(out, "driver.me", "run")
    assert 0 < ue_bench("status", "out", "--json").json["seconds_left"] < 90
