"""Grids in pieces: stages one by one, shards, and bringing their results together."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ue_bench.catalogue import boards
from ue_bench.errors import EnvironmentProblem
from ue_bench.grid.grid import Request, resolve
from ue_bench.grid.sharding import Shard
from ue_bench_countermeasures.preprocessing import Gray

from .conftest import Command

PROTECTORS = "none,noise,ops"
GRID = [
    *("-D", "demo[train_per_class=4,test_per_class=3]", "-V", "resnet9[width=4]", "--protocol", "smoke"),
    *("-P", PROTECTORS, "-C", "vanilla,gray", "--devices", "cpu", "--precision", "fp32"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_reference_row(monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(boards.board("demo"), reference=("none",))
    monkeypatch.setattr(boards, "board", lambda name: small)


def numbers(out: Path) -> dict[str, Any]:
    read = [json.loads(p.read_text(encoding="utf-8")) for p in (out / "results").rglob("*.json")]
    return {r["key"]: (r["metrics"], r["budget"]) for r in read}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_plan_by_lines_can_be_computed_one_command_after_the_other(
    ue_bench: Command, computed: list[str], tmp_path: Path
) -> None:
    rows = lines(ue_bench("plan", "--format", "jsonl", "--out", "a b", *GRID).out)
    assert [set(row) for row in rows] == [{"key", "kind", "label", "needs", "seconds", "command"}] * 9
    same = ("kind", "key", "label", "needs")  # how long it takes is measured anew
    together = ue_bench("plan", "--format", "json", "--out", "a b", *GRID).json
    assert [list(row) for row in together] == [[*same, "seconds"]] * 9
    assert [[row[name] for name in same] for row in together] == [[row[name] for name in same] for row in rows]
    for row in rows:
        program, *words = shlex.split(row["command"])
        assert (program, words[0], words[1]) == ("ue-bench", "run-stage", row["key"])
        before = len(computed)
        assert ue_bench(*words).code == 0
        assert computed[before:] == [row["label"]]
    assert ue_bench("plan", "--format", "jsonl", "--out", "a b", *GRID).out == ""
    assert ue_bench("run", "--out", "other", *GRID).code == 0
    assert numbers(tmp_path / "a b") == numbers(tmp_path / "other")
    assert len(numbers(tmp_path / "other")) == 6


def test_one_stage_computes_what_it_needs(ue_bench: Command, computed: list[str]) -> None:
    rows = lines(ue_bench("plan", "--format", "jsonl", "--out", "out", *GRID).out)
    wanted = rows[-1]
    found = ue_bench("run-stage", wanted["key"][:12], "--json", "--out", "out", *GRID)
    assert found.code == 0
    assert found.json == {"key": wanted["key"], "kind": "result", "label": wanted["label"], "error": None}
    assert len(computed) == 2
    assert ue_bench("run-stage", wanted["key"], "--out", "out", *GRID).code == 0
    assert len(computed) == 2


def test_reference_rows_can_be_left_out(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    bare = [*GRID[:6], "-P", "noise", "-C", "vanilla", "--devices", "cpu", "--no-reference", "--out", "out"]
    rows = lines(ue_bench("plan", "--format", "jsonl", *bare).out)
    assert [row["kind"] for row in rows] == ["protected", "result"]
    assert not any("/none" in row["label"] for row in rows)
    for row in rows:  # the flag has no value behind it
        assert ue_bench(*shlex.split(row["command"])[1:]).code == 0
    assert computed == [row["label"] for row in rows]
    assert len(ue_bench("run", "--json", *bare).json) == 1
    [state] = ue_bench("status", "--json", *bare).json
    assert state["state"] == "done"
    assert len(computed) == 2


def test_a_key_of_another_plan_is_refused(ue_bench: Command) -> None:
    found = ue_bench("run-stage", "0" * 32, "--out", "out", *GRID)
    assert found.code == 2
    assert f"no stage with key '{'0' * 32}' in this plan" in found.err


def test_the_plan_names_the_precision_that_came_out(ue_bench: Command) -> None:
    options = [word for word in GRID if word not in ("--precision", "fp32")]
    commands = [row["command"] for row in lines(ue_bench("plan", "--format", "jsonl", *options).out)]
    assert commands
    assert all(shlex.split(command)[-2] == "--precision" for command in commands)
    assert all(shlex.split(command)[-1] in ("fp32", "bf16") for command in commands)


def test_shards_compute_everything_once_and_merge_into_the_whole(
    ue_bench: Command, computed: list[str], tmp_path: Path
) -> None:
    """Each shard has folders of its own, as on machines that share nothing."""
    for i in (1, 2, 3):
        folders = ["--out", f"out{i}", "--cache-dir", f"cache{i}"]
        assert ue_bench("run", "--shard", f"{i}/3", *folders, *GRID).code == 0
        assert ue_bench("plan", "--shard", f"{i}/3", *folders, *GRID).out.endswith("0 stages in all\n")
        states = [row["state"] for row in ue_bench("status", "--json", "--shard", f"{i}/3", *folders, *GRID).json]
        assert states == ["done"] * len(states)
    assert sorted(computed) == sorted(set(computed))
    assert len(computed) == 9
    merged = ue_bench("results", "merge", "--json", "out1", "out2", "out3", "whole")
    assert merged.code == 0
    assert merged.json["added"] == 6
    assert ue_bench("run", "--out", "other", *GRID).code == 0
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "other")
    assert {p.name for p in (tmp_path / "whole" / "curves").iterdir()} == {
        p.name for p in (tmp_path / "other" / "curves").iterdir()
    }
    status = ue_bench("status", "--out", "whole", *GRID)
    assert status.out.splitlines()[-1] == "6 done, 0 failed, 0 missing"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(ue_bench: Command, text: str) -> None:
    found = ue_bench("plan", "--shard", text, *GRID)
    assert found.code == 2
    assert f"cannot read the shard {text!r}" in found.err


def test_shards_are_stable(ue_bench: Command, tmp_path: Path) -> None:
    """More rows or seeds move no cell to another shard."""
    request = Request(
        dataset="demo[train_per_class=4,test_per_class=3]", protectors=["none", "noise"], devices="cpu",
        precision="fp32", out=tmp_path / "out", cache_dir=tmp_path / "cache",
    )  # fmt: skip
    wider = dataclasses.replace(request, protectors=["ops", "noise", "none"], seeds=[5, 0, 1])
    few, many = resolve(request), resolve(wider)
    for i in (1, 2, 3, 4):
        mine = {cell.key for cell in few.shard(Shard(i, 4)).cells}
        theirs = {cell.key for cell in many.shard(Shard(i, 4)).cells}
        assert mine == theirs & {cell.key for cell in few.cells}
    assert sum(len(many.shard(Shard(i, 4)).cells) for i in (1, 2, 3, 4)) == len(many.cells)


@pytest.fixture
def filled(ue_bench: Command, computed: list[str], tmp_path: Path) -> Path:
    assert ue_bench("run", "--out", "out", *GRID).code == 0
    return tmp_path / "out"


def test_merging_overwrites_no_other_number_and_says_so(ue_bench: Command, filled: Path, tmp_path: Path) -> None:
    shutil.copytree(filled, tmp_path / "copy")
    first, second, third = sorted((tmp_path / "copy" / "results").rglob("*.json"))[:3]
    content = json.loads(first.read_text(encoding="utf-8"))
    content["metrics"]["accuracy_last"] = 1.25
    first.write_text(json.dumps(content), encoding="utf-8")
    content = json.loads(second.read_text(encoding="utf-8"))
    content["cost"]["train_seconds"] = 1e6  # another run of the same cell: the numbers are the same
    second.write_text(json.dumps(content), encoding="utf-8")
    third.write_text(third.read_text(encoding="utf-8").replace('"seed":0', '"seed":1'), encoding="utf-8")
    before = {p: p.read_bytes() for folder in ("out", "copy") for p in (tmp_path / folder).rglob("*") if p.is_file()}
    found = ue_bench("results", "merge", "copy", "out")
    assert found.code == 4
    assert f"copy/{first.relative_to(tmp_path / 'copy')} has other numbers than out, which stay" in found.err
    assert f"copy/{third.relative_to(tmp_path / 'copy')} is no result and was left out" in found.err
    assert "0 results added, 4 were there" in found.err
    after = {p: p.read_bytes() for folder in ("out", "copy") for p in (tmp_path / folder).rglob("*") if p.is_file()}
    assert after == before


def test_failures_are_merged_where_there_is_no_result(ue_bench: Command, filled: Path, tmp_path: Path) -> None:
    from ue_bench.store.results import ResultStore
    from ue_bench.store.schema import Failure

    other = ResultStore(tmp_path / "other")
    done = ResultStore(filled).results()[0]
    for key, when in ((done.key, "2026-01-01T00:00:00+00:00"), ("f" * 32, "2026-01-01T00:00:00+00:00")):
        other.write_failure(Failure(key=key, id="x", attempts=1, error="why", failed=when), "Traceback: here")
    assert ue_bench("results", "merge", "other", "out").code == 0
    assert [f.key for f in ResultStore(filled).failures()] == ["f" * 32]
    assert (filled / "failures" / f"{'f' * 32}.txt").read_text(encoding="utf-8") == "Traceback: here"


def test_a_shard_without_cells_can_be_merged(ue_bench: Command, computed: list[str], filled: Path) -> None:
    last = next(f"{i}/40" for i in range(1, 41) if ue_bench("plan", "--shard", f"{i}/40", "--json", *GRID).json == [])
    assert ue_bench("run", "--shard", last, "--out", "nothing", *GRID).code == 0
    assert ue_bench("results", "merge", "--json", "nothing", "out").json["added"] == 0


@pytest.mark.parametrize(("words", "message"), [
    (["out", "out"], "is both merged and merged into"), (["empty", "out"], "holds no results"),
])  # fmt: skip
def test_what_cannot_be_merged(ue_bench: Command, filled: Path, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    found = ue_bench("results", "merge", *words)
    assert found.code == 2
    assert message in found.err


@pytest.mark.parametrize("ending", ["parquet", "csv", "sqlite"])
def test_results_are_exported(ue_bench: Command, filled: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"table.{ending}"
    assert ue_bench("results", "export", "out", file.name).code == 0
    frame = read(file)
    plain = [json.loads(p.read_text(encoding="utf-8")) for p in (filled / "results").rglob("*.json")]
    expected = {r["key"]: r for r in plain}
    assert set(frame["key"]) == set(expected)
    for row in frame.to_dict("records"):
        stored = expected[row["key"]]
        assert row["protector"] == stored["protector"]
        assert row["metrics_accuracy_last"] == stored["metrics"]["accuracy_last"]
        assert row["budget_linf_max"] == stored["budget"]["linf_max"]
        assert row["environment_torch"] == stored["environment"]["torch"]
        assert json.loads(row["cell"]) == stored["cell"]
    assert ue_bench("results", "export", "out", file.name).code == 2
    assert ue_bench("results", "export", "out", file.name, "--force").code == 0


def read(file: Path, table: str = "results") -> pd.DataFrame:
    if file.suffix in (".sqlite", ".db"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(file)) as database:
            return pd.read_sql(f"select * from {table}", database)
    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)


def test_nothing_of_a_record_is_a_formula_in_a_spreadsheet(ue_bench: Command, filled: Path, tmp_path: Path) -> None:
    from ue_bench.store.results import ResultStore
    from ue_bench.store.schema import Failure

    hostile = ["=1+1", "+1", "-1", "@x", "\t=1", "plain, with a comma"]
    store = ResultStore(filled)
    for number, text in enumerate(hostile):
        key = f"{number:032x}"
        store.write_failure(Failure(key=key, id=text, attempts=1, error=text, failed="2026-01-01T00:00:00+00:00"))
    assert ue_bench("results", "export", "out", "f.csv", "--table", "failures").code == 0
    shown = pd.read_csv(tmp_path / "f.csv", dtype=str)
    assert [text.removeprefix("'") for text in shown["error"]] == hostile
    assert not any(text.startswith(("=", "+", "-", "@", "\t")) for text in shown["error"])
    assert ue_bench("results", "export", "out", "f.parquet", "--table", "failures").code == 0
    assert pd.read_parquet(tmp_path / "f.parquet")["error"].tolist() == hostile  # only CSV is opened by spreadsheets
    assert ue_bench("results", "export", "out", "all.db").code == 0
    assert len(read(tmp_path / "all.db", "failures")) == 6


def test_an_export_needs_a_format_and_a_folder(ue_bench: Command, filled: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no ending that names a format" in ue_bench("results", "export", "out", "table.xlsx").err
    assert "holds no results" in ue_bench("results", "export", "empty", "table.csv").err
    assert not (tmp_path / "table.csv").exists()


def test_a_plan_knows_what_this_machine_took_before(ue_bench: Command, filled: Path, tmp_path: Path) -> None:
    timings = tmp_path / "cache" / "timings.json"
    known = json.loads(timings.read_text(encoding="utf-8"))
    slow = {what: [1e5] if what.startswith("result|") else values for what, values in known.items()}
    timings.write_text(json.dumps(slow), encoding="utf-8")
    more = [*GRID, "--seeds", "7", "--out", "new"]
    after = lines(ue_bench("plan", "--format", "jsonl", *more).out)
    assert len(after) == 9
    assert all(row["seconds"] > 1e5 for row in after if row["kind"] == "result")  # each of at least one pass
    assert all(row["seconds"] < 100 for row in after if row["kind"] == "protected")
    summary = ue_bench("plan", *more).out.splitlines()[-1]
    assert summary.startswith("6 of 6 cells to compute, 9 stages in all, some ")
    assert re.search(r" \([1-9][\d,]+ device-hours\), until 20", summary)
    assert "unknown" not in summary


def test_a_plan_of_a_glob_leaves_out_what_cannot_be_had(ue_bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(plugin: Gray) -> None:
        raise EnvironmentProblem("no weights of gray", "put them there")

    monkeypatch.setattr(Gray, "identity", identity)
    most = ["plan", "--format", "jsonl", *GRID[:6], "-P", "ops", "--devices", "cpu"]
    named = ue_bench(*most, "-C", "gray,vanilla")
    assert named.code == 3
    assert named.err.splitlines()[-2:] == ["ue-bench: no weights of gray", "  hint: put them there"]
    globbed = ue_bench(*most, "-C", "gra?,vanilla")
    assert globbed.code == 0
    assert globbed.err.count("ue-bench: gray is left out: no weights of gray") == 1
    assert {row["label"].split("/")[2] for row in lines(globbed.out) if row["kind"] == "result"} == {"vanilla"}
