from __future__ import annotations

import json
from pathlib import Path

import pytest

from ue_bench.leaderboard import evidence as module
from ue_bench.leaderboard.build import build, check
from ue_bench.leaderboard.evidence import evidence
from ue_bench.store.results import ResultStore
from ue_bench.store.schema import Curve, Failure, cell_id

from .factory import BOARD, grid, result
from .test_build import Page, details

ROWS = {"none": (94.56, 85.21), "em": (10.04, 84.8)}
FAILED = Failure(
    key="e" * 32,
    id=cell_id("cifar10", "ar", "vanilla", "resnet18", "fast", 0, 1.0),
    attempts=1,
    error="no memory\nleft",
    kind="oom",
    failed="2026-01-02T03:04:05Z",
)


def curve(key: str) -> Curve:
    return Curve(
        key=key, epoch=[1.0, 2.0], accuracy_test=[20.0, 10.0], accuracy_train=[None, 99.0], loss_train=[1, 0.1]
    )


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    folder = ResultStore(tmp_path)
    for one in grid(ROWS):
        folder.write(one, curve(one.key))
    return folder


def test_files_and_curves_of_results_are_found(store: ResultStore) -> None:
    results = store.results()
    found = evidence(store.out, results)
    assert set(found.files) == set(found.curves) == {r.key for r in results}
    for r in results:
        assert json.loads((store.out / found.files[r.key]).read_text(encoding="utf-8"))["key"] == r.key


def test_the_page_has_curves_and_names_of_files(store: ResultStore) -> None:
    build(store.results(), BOARD, store.out)
    page = Page((store.out / "index.html").read_text(encoding="utf-8"))
    cell = details(page, "em", "vanilla")
    assert cell["curves"] == [[[1.0, 2.0], [20.0, 10.0], [None, 99.0]]]
    files = cell["files"]
    assert isinstance(files, list)
    assert (store.out / files[0]).is_file()


def test_check_sees_a_curve_that_changed_and_one_that_cannot_be_read_is_left_out(store: ResultStore) -> None:
    results = store.results()
    build(results, BOARD, store.out)
    (store.out / "curves" / f"{results[0].key}.json").write_text("{", encoding="utf-8")
    [difference] = check(results, BOARD, store.out)
    assert difference.startswith("index.html differs")
    assert len(evidence(store.out, results).curves) == len(results) - 1


def test_curves_of_very_many_results_stay_in_their_files(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CURVES", 3)
    found = evidence(store.out, store.results())
    assert (len(found.curves), len(found.files)) == (0, 4)


def test_failures_are_told_from_missing_results(store: ResultStore) -> None:
    one = result("ar", "jpeg[quality=10]", 50.0)
    store.write(one, curve(one.key))
    store.write_failure(FAILED)
    build(store.results(), BOARD, store.out)
    page = Page((store.out / "index.html").read_text(encoding="utf-8"))
    [panel] = json.loads(page.data)["panels"]
    [gap] = panel["gaps"]
    assert gap["failures"] == ["Seed 0 failed after 1 attempt (oom, 2026-01-02T03:04:05Z): no memory left"]
    assert "ar against vanilla: failed" in page.attributes("aria-label")
    assert "--protector 'ar' --countermeasure 'vanilla'" in gap["command"]


def test_a_row_that_failed_altogether_is_named(store: ResultStore) -> None:
    store.write_failure(FAILED)
    build(store.results(), BOARD, store.out)
    text = Page((store.out / "index.html").read_text(encoding="utf-8")).text
    assert "No result yet: ar." in text
    assert "ar under vanilla: Seed 0 failed after 1 attempt" in text
