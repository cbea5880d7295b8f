"""``plan``, ``run``, ``status`` and ``leaderboard`` on a grid of two cells, and on one that fails."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ue_bench.api import open_dataset
from ue_bench.catalogue import boards, protocols
from ue_bench.schedule import local
from ue_bench.store.results import ResultStore

from .conftest import Command, Finished, InProcess

GRID = [
    *("-D", "demo[train_per_class=4,test_per_class=3]", "-V", "resnet9[width=4]", "--protocol", "smoke"),
    *("-P", "none", "-C", "vanilla,gray+cutout", "--devices", "cpu", "--precision", "fp32", "--out", "out"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_reference_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo board with clean images as its only reference row: two cells are grid enough here."""
    small = dataclasses.replace(boards.board("demo"), reference=("none",))
    monkeypatch.setattr(boards, "board", lambda name: small)


def metrics(out: Path) -> dict[str, Any]:
    read = [json.loads(p.read_text(encoding="utf-8")) for p in (out / "results").rglob("*.json")]
    return {r["id"]: (r["metrics"], r["budget"], r["key"]) for r in read}


def test_a_grid_from_plan_to_leaderboard(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    planned = ue_bench("plan", *GRID)
    assert planned.code == 0
    assert planned.out.splitlines()[-1].startswith("2 of 2 cells to compute, 3 stages in all, some 0:0")
    rows = ue_bench("run", "--dry-run", "--json", *GRID).json
    assert [r["kind"] for r in rows] == ["protected", "result", "result"]
    assert all(r["seconds"] > 0 for r in rows)  # clean images ask nothing of a network, but are tried
    assert rows[1]["needs"] == [rows[0]["key"]]
    assert [r["state"] for r in ue_bench("status", "--json", *GRID).json] == ["missing", "missing"]
    assert computed == []

    done = ue_bench("run", *GRID)
    assert done.code == 0, done.err
    assert len(computed) == 3
    assert "2 of 2 cells have results in out" in done.err
    assert "none" in done.out
    assert "n=1" in done.out.replace(" ", "")
    first = metrics(tmp_path / "out")
    assert len(first) == 2
    recipe = protocols.content_digest(protocols.protocol("smoke"))
    assert [r.protocol_digest for r in ResultStore(tmp_path / "out").results()] == [recipe, recipe]

    again = ue_bench("run", "--json", *GRID)
    assert again.code == 0
    assert "nothing to compute, all 2 cells have results" in again.err
    assert len(computed) == 3
    assert [r["id"].split("/")[2] for r in again.json] == ["gray+cutout", "vanilla"]
    assert ue_bench("plan", *GRID).out == "0 of 2 cells to compute, 0 stages in all\n"
    status = ue_bench("status", *GRID).out.splitlines()
    assert status[0].startswith(
        "done     demo[train_per_class=4,test_per_class=3]/none/vanilla/resnet9[width=4]/smoke/s0"
    )
    assert status[-1] == "2 done, 0 failed, 0 missing"

    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "cache")
    assert ue_bench("run", *GRID).code == 0
    assert len(computed) == 6
    assert metrics(tmp_path / "out") == first  # bit by bit

    assert ue_bench("leaderboard", "check", "--out", "out").code == 4
    built = ue_bench("leaderboard", "build", "--out", "out")
    assert built.code == 0
    assert {Path(line).name for line in built.out.splitlines()} == {
        "README.md",
        "leaderboard.csv",
        "protectors.csv",
        "index.html",
    }
    assert ue_bench("leaderboard", "check", "--out", "out").code == 0
    (tmp_path / "out" / "README.md").write_text("x", encoding="utf-8")
    changed = ue_bench("leaderboard", "check", "--out", "out")
    assert changed.code == 4
    assert changed.out.startswith("README.md differs")


def test_a_cell_that_fails_is_recorded_and_tried_again(
    ue_bench: Command, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ue_bench.engine import loop

    def fails(*arguments: Any, **options: Any) -> None:
        raise ValueError("no convergence")

    with monkeypatch.context() as broken:
        broken.setattr(loop, "train", fails)
        failed = ue_bench("run", *GRID, "-C", "^gray+cutout")
    assert failed.code == 1
    assert "Traceback" not in failed.err
    assert "ValueError: no convergence" in failed.err
    assert "0 of 1 cells have results" in failed.err
    [row] = ue_bench("status", "--json", *GRID, "-C", "^gray+cutout").json
    assert (row["state"], row["error"]) == ("failed", "ValueError: no convergence")
    trace = (tmp_path / "out" / "failures" / f"{row['key']}.txt").read_text(encoding="utf-8")
    assert trace.startswith("Traceback")
    assert "in fails" in trace

    left = ue_bench("run", *GRID, "-C", "^gray+cutout", "--retry", "oom", "--retry", "timeout")
    assert left.code == 1
    assert "1 cells failed earlier and are not tried again" in left.err
    assert "all 1 cells have results" not in left.err
    planned = ue_bench("run", *GRID, "-C", "^gray+cutout", "--retry", "oom", "--dry-run")
    assert planned.out.startswith("0 of 1 cells to compute")
    assert (
        ue_bench("run", *GRID, "-C", "^gray+cutout", "--dry-run").out.endswith("1 of 1 cells to compute", 0, 0) is False
    )
    assert ue_bench("run", *GRID, "-C", "^gray+cutout").code == 0
    assert list((tmp_path / "out" / "failures").iterdir()) == []


def test_a_corrupt_result_is_set_aside_and_its_cell_computed_again(
    ue_bench: Command, computed: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ue_bench("run", *GRID).code == 0
    first = metrics(tmp_path / "out")
    [path, *_] = sorted((tmp_path / "out" / "results").rglob("*.json"))
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 7'), encoding="utf-8")
    shown = ue_bench("status", *GRID)
    assert shown.code == 0
    assert shown.out.splitlines()[-1] == "1 done, 0 failed, 1 missing"
    assert f"{path} is not used (seed is 7, but 0 in the cell)" in caplog.text
    del computed[:]
    assert ue_bench("run", *GRID).code == 0
    assert len(computed) == 1
    assert [p.name for p in (tmp_path / "out" / "results" / "bad").rglob("*.json")] == [path.name]
    shutil.rmtree(tmp_path / "out" / "results" / "bad")
    assert metrics(tmp_path / "out") == first


def test_a_damaged_set_costs_no_wrong_number(
    ue_bench: Command, computed: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ue_bench("run", *GRID).code == 0
    first = metrics(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    for file in (tmp_path / "cache").rglob("images.npy"):
        content = bytearray(file.read_bytes())
        content[128:] = bytes(255 - value for value in content[128:])  # all pixels, not the header
        file.chmod(0o644)
        file.write_bytes(content)
    assert ue_bench("run", *GRID).code == 0
    assert metrics(tmp_path / "out") == first
    assert "removed datasets/" in caplog.text
    assert "removed protected/" in caplog.text


def test_the_cache_is_verified(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    assert ue_bench("run", *GRID).code == 0
    whole = ue_bench("cache", "verify")
    assert (whole.code, whole.out) == (0, "")
    assert "ue-bench: 2 artifacts, 0 damaged" in whole.err
    [file] = (tmp_path / "cache" / "protected").rglob("images.npy")
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = ue_bench("cache", "verify", "--json")
    assert found.code == 4
    assert found.json["checked"] == 2
    assert [(d["kind"], d["reason"]) for d in found.json["damaged"]] == [("protected", "images.npy is damaged")]
    assert not file.exists()
    assert ue_bench("cache", "verify").code == 0
    assert ue_bench("cache", "clear").code == 0
    assert not list((tmp_path / "cache").rglob("images.npy"))


def test_reference_rows_are_always_part_of_the_grid(ue_bench: Command) -> None:
    def rows(*arguments: str) -> list[str]:
        return [r["label"] for r in ue_bench("plan", "--json", *GRID, *arguments).json if r["kind"] == "protected"]

    assert len(rows("-P", "noise")) == 2
    assert rows("-P", "noise,^none") == rows("-P", "noise")
    assert len(rows("--seeds", "0-2", "-P", "noise")) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pack", "2"], "there is nothing to pack"),
        (["--pack", "many"], "cannot pack 'many' cells"),
        (["--timeout", "soon"], "cannot read the time 'soon'"),
        (["--timeout", "0"], "cannot read the time '0'"),
    ],
)
def test_options_of_filling_that_make_no_sense_are_refused(
    ue_bench: Command, computed: list[str], options: list[str], message: str
) -> None:
    refused = ue_bench("run", *GRID, *options)
    assert refused.code == 2
    assert message in refused.err
    assert computed == []


def test_fail_fast_starts_nothing_after_a_failure_and_no_table_is_printed(
    ue_bench: Command, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ue_bench.engine import loop

    def fails(*arguments: Any, **options: Any) -> None:
        raise ValueError("no convergence")

    with monkeypatch.context() as broken:
        broken.setattr(loop, "train", fails)
        failed = ue_bench("run", *GRID, "--fail-fast", "--no-table")
    assert failed.code == 1
    assert len(computed) == 2  # clean images, and the first of two cells
    assert failed.out == ""
    assert ue_bench("run", *GRID, "--timeout", "2h", "--no-table").code == 0
    assert len(computed) == 4


@pytest.mark.slow
def test_a_cell_that_diverges_has_no_accuracy(
    ue_bench: Command, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ue_bench_victims.resnet import ResNet9

    monkeypatch.setattr(ResNet9, "optimizer", lambda self: {"learning_rate": 1e30})
    failed = ue_bench("run", *GRID, "-C", "^gray+cutout")
    assert failed.code == 1
    assert "diverged at step" in failed.err
    assert "0 of 1 cells have results" in failed.err
    assert list((tmp_path / "out" / "results").rglob("*.json")) == []
    [row] = ue_bench("status", "--json", *GRID, "-C", "^gray+cutout").json
    assert (row["state"], row["kind"]) == ("failed", "diverged")
    assert re.match(r"diverged at step \d+ of \d+: .* not finite", row["error"])
    stored = json.loads((tmp_path / "out" / "failures" / f"{row['key']}.json").read_text(encoding="utf-8"))
    assert (stored["kind"], stored["error"]) == ("diverged", row["error"])
    assert f"failed   {row['id']}  diverged at step" in ue_bench("status", *GRID, "-C", "^gray+cutout").out


def test_a_cell_that_learned_nothing_says_so(
    ue_bench: Command, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ue_bench_victims.resnet import ResNet9

    monkeypatch.setattr(ResNet9, "optimizer", lambda self: {"learning_rate": 1e-30})
    done = ue_bench("run", *GRID, "-C", "^gray+cutout")
    assert done.code == 0, done.err
    assert "1 cell ended at chance on its own training data" in " ".join(done.out.split())
    [result] = ue_bench("run", "--json", *GRID, "-C", "^gray+cutout").json
    assert result["metrics"]["learned"] is False


def test_workers_compute_what_this_process_does(
    ue_bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ue_bench("run", "--jobs", "2", *GRID).code == 0
    by_workers = metrics(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(local, "open_executor", InProcess)
    assert ue_bench("run", *GRID).code == 0
    assert metrics(tmp_path / "out") == by_workers


def test_files_of_one_name_are_rows_of_their_own_and_their_names_can_be_given_again(
    ue_bench: Command, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, clean = open_dataset("demo[train_per_class=4,test_per_class=3]", cache_dir=tmp_path / "cache")
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "noise.npy", np.minimum(clean.images, 250) + np.uint8(number + 1))
    grid = ["run", *GRID[:6], "-C", "vanilla", *GRID[10:-1], str(tmp_path / "out")]

    done = ue_bench(*grid, "--json", "-P", "precomputed[path=a/noise.npy],precomputed[path=b/noise.npy]")
    files = [path.name for path in (tmp_path / "out" / "results").rglob("*.json")]
    names = sorted(row["protector"] for row in done.json if row["protector"] != "none")

    assert done.code == 0, done.err
    assert len(set(names)) == 2
    assert len(files) == 3
    assert str(tmp_path) not in done.out
    before = len(computed)
    for name in names:
        given = [ue_bench_in(tmp_path / folder, ue_bench, monkeypatch, *grid, "-P", name) for folder in "ab"]
        assert sorted(found.code for found in given) == [0, 2]
        [refused] = [found.err for found in given if found.code]
        assert f"the file noise.npy with digest {name[-9:-1]} is not here" in refused
    assert len(computed) == before


def ue_bench_in(folder: Path, ue_bench: Command, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Finished:
    monkeypatch.chdir(folder)
    return ue_bench(*arguments)


def test_a_board_without_results_is_told_how_to_be_filled_where_it_was_looked_for(ue_bench: Command) -> None:
    found = ue_bench("leaderboard", "build", "--out", "my results")
    hint = "fill it with 'ue-bench run --board demo --protector all --countermeasure all --out 'my results''"
    assert found.code == 5
    assert hint in found.err
