from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ue_bench.atomic import write_atomically
from ue_bench.errors import EnvironmentProblem
from ue_bench.keys import digest
from ue_bench.store.results import ResultStore, fresh_path, slug, write_record
from ue_bench.store.schema import (
    Budget,
    Cost,
    Eager,
    Environment,
    Metrics,
    as_json,
    json_text,
    record_text,
)

from .helpers import CELL, CURVE, FAILURE, KEY, old, plugin, result


def test_a_result_survives_storing(store: ResultStore) -> None:
    store.write(result(), CURVE)
    assert store.results() == [result()]
    [path] = (store.out / "results").rglob("*.json")
    name = f"results/lsp/jpeg-quality-10-resnet18-fast-s0-{digest(CELL)[:16]}.json"
    assert path.relative_to(store.out).as_posix() == name
    assert json.loads((store.out / "curves" / f"{KEY}.json").read_text(encoding="utf-8"))["accuracy_test"] == [10.0]


def test_whose_a_result_is_changes_no_key_and_is_left_out_where_it_is_not_said(store: ResultStore) -> None:
    names = "protocol_digest", "distributions", "author", "link"
    assert not any(name in record_text(result()) for name in names)
    said = result(
        protocol_digest="0123456789ab",
        distributions={"protector/mine": "mine 1.0"},
        author="A. Person",
        link="https://example.org",
    )
    assert said.key == result().key
    store.write(said, CURVE)
    assert store.results() == [said]


@pytest.mark.parametrize(("commit", "clean"), [("0123456789", True), ("0123456789+", False), ("", False)])
def test_a_clean_commit_is_one_without_changes(commit: str, clean: bool) -> None:
    environment = result().environment.model_copy(update={"commit": commit})
    assert result(environment=environment).clean_commit is clean


def test_results_come_sorted_and_the_first_of_a_cell_stays(store: ResultStore) -> None:
    other = result({"engine": 2}, id="a")
    store.write(result(), CURVE)
    store.write(other, CURVE)
    store.write(result(attempts=2), CURVE)
    assert store.results() == [other, result()]


def test_a_result_that_appears_while_another_is_written_stays(store: ResultStore, monkeypatch: Any) -> None:
    """As it does when this process was stopped in between and the cell was taken over."""
    monkeypatch.setattr(store, "has", lambda key: False)  # it was not there when this process looked
    write_record(store.out / "results", result())
    store.write(result(attempts=2), CURVE)
    assert store.results() == [result()]


def test_a_file_of_the_cell_that_is_no_result_is_replaced(store: ResultStore) -> None:
    store.write(result(), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    path.write_text(json.dumps({"key": result().key}), encoding="utf-8")
    write_record(store.out / "results", result(attempts=2))
    assert store.results() == [result(attempts=2)]


def test_a_cell_that_shared_its_device_says_so(store: ResultStore) -> None:
    alone, packed = result().cost, result().cost.model_copy(update={"packed": 3})
    assert "packed" not in record_text(result(cost=alone))
    store.write(result(cost=packed), CURVE)
    assert store.results()[0].cost.packed == 3


def test_a_cell_whose_steps_were_not_replayed_says_why(store: ResultStore) -> None:
    replayed, eager = result().cost, result().cost.model_copy(update={"eager": "plugin"})
    assert "eager" not in record_text(result(cost=replayed))
    store.write(result(cost=eager), CURVE)
    assert store.results()[0].cost.eager == "plugin"


@pytest.mark.parametrize(
    ("device", "eager"), [("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", ""), ("NVIDIA H100 80GB HBM3", "plugin")]
)
def test_a_result_with_the_longest_plausible_names_has_at_most_2_kb(
    store: ResultStore, device: str, eager: Eager
) -> None:
    protector = "deephiding[mode=sample,hidden=natural,hidden_images=photographs of nature,bank_size=10000,eps=16/255]"
    countermeasure = "gaussian-filter[apply_to_test=true,sigma=12.345]+jpeg[apply_to_test=true,quality=10]+at[steps=10]"
    third = 100 / 3
    cell = {
        "protector": plugin(
            "deephiding", mode="sample", hidden="natural", hidden_images="0123456789abcdef" * 2, bank_size=10000,
            eps="16/255",
        ) | {"weights": "0123456789abcdef" * 2},
        "countermeasure": {
            "combination": [
                plugin("gaussian-filter", apply_to_test=True, sigma=12.345),
                plugin("jpeg", apply_to_test=True, quality=10), plugin("at", steps=10),
            ]
        },
        "victim": plugin("resnet18", stem="imagenet"),
        "protocol": {"name": "paper", "version": 1, "batch": 128, "steps": 40000, "learning_rate": 0.1,
                     "schedule": "multistep", "milestones": [0.4, 0.8]},
        "fraction": 1 / 3,
    }  # fmt: skip
    long = result(
        cell,
        id=f"imagefolder[path=imagenet100,size=224]/{protector}@0.333333/{countermeasure}/resnet18[stem=imagenet]/paper/s0",
        protector=protector,
        countermeasure=countermeasure,
        victim="resnet18[stem=imagenet]",
        dataset=result().dataset.model_copy(update={"selector": "imagefolder[path=imagenet100,size=224]"}),
        protocol="paper",
        fraction=1 / 3,
        metrics=Metrics(
            accuracy_last=third, accuracy_peak=third, peak_epoch=third, accuracy_train=third, loss_train=1e-7 / 3
        ),
        budget=Budget(
            declared="linf 0.03137254901960784", linf_mean=third, linf_max=255, rms=third, over_8=1 / 3, l2_mean=third,
            l0_mean=third * 1000, psnr=third, ssim=1 / 3,
        ),
        cost=Cost(protect_seconds=third, train_seconds=1e5 / 3, images_per_second=1e6 / 3, peak_memory_mb=1e5 / 3,
                  packed=16, eager=eager),
        environment=Environment(
            ue_bench="0.10.12.dev123", commit="0123456789+", python="3.13.12", torch="2.11.0+cu128",
            device=device, threads=16,
        ),
        protocol_digest="0123456789ab",
    )  # fmt: skip
    store.write(long, CURVE)
    [path] = (store.out / "results").rglob("*.json")
    assert len(path.read_bytes()) <= 2048
    assert len(path.name) < 255
    [found] = store.results()
    assert as_json(found) == as_json(long)  # with what the file leaves out because the cell tells it


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("jpeg[quality=10]", "jpeg-quality-10"),
        ("a+b", "a-b"),
        ("[]", "x"),
        ("é", "x"),
        ("p" * 300, "p" * 80),
        ("..", "x"),
        ("a.", "a"),
    ],
)
def test_selectors_as_file_names(text: str, name: str) -> None:
    assert slug(text) == name


def test_a_name_is_no_longer_than_file_systems_take(store: ResultStore) -> None:
    long = "a[b=" + "c" * 300 + "]"
    path = fresh_path(store.out, "0123456789abcdef" + "0" * 16, long, long, long, long, "s0")
    assert path.name.endswith("-0123456789abcdef.json")
    assert max(len(path.name), len(path.parent.name)) < 255


def test_results_whose_names_and_first_digits_are_equal_are_both_kept(store: ResultStore) -> None:
    first, second = old(key="01234567" + "a" * 24), old(key="01234567" + "b" * 24, fraction=0.5)
    for one in (first, second):
        store.write(one, CURVE)

    assert [r.key for r in store.results()] == [first.key, second.key]
    assert store.has(first.key)
    assert store.has(second.key)
    assert not store.has("01234567" + "c" * 24)


def test_names_that_differ_in_case_alone_are_files_of_their_own_on_every_file_system(store: ResultStore) -> None:
    for number, victim in enumerate(["Net", "net", "NET"]):
        store.write(old(key=f"{number}" * 32, victim=victim), CURVE)

    names = [path.name.lower() for path in (store.out / "results").rglob("*.json")]
    assert len(set(names)) == 3


def test_a_result_under_a_name_of_before_is_found_and_stays_where_it_is(store: ResultStore) -> None:
    store.write(result(), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    key = result().key
    short = path.rename(path.with_name(f"jpeg-quality-10-resnet18-fast-s0-{key[:8]}.json"))

    assert store.has(key)
    store.write(result(attempts=2), CURVE)

    assert list((store.out / "results").rglob("*.json")) == [short]
    assert store.results() == [result()]


def test_a_protocol_of_ones_own_may_have_any_name(store: ResultStore) -> None:
    store.write(old(protocol="../mine/x", key=KEY), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    assert path.name == f"jpeg-quality-10-resnet18-mine-x-s0-{KEY[:16]}.json"


def test_a_failure_that_cannot_be_recorded_stops_nothing(store: ResultStore, caplog: pytest.LogCaptureFixture) -> None:
    (store.out / "failures").write_text("in the way", encoding="utf-8")
    store.write_failure(FAILURE, "Traceback ...")
    assert "cannot record a failure" in caplog.text


def test_half_of_a_character_in_a_failure_stops_nothing(store: ResultStore) -> None:
    store.write_failure(FAILURE.model_copy(update={"error": "no file \udcff"}), "in \udcff")
    [found] = json.loads("[" + (store.out / "failures" / f"{KEY}.json").read_text(encoding="utf-8") + "]")
    assert found["error"] == "no file \udcff"


def test_a_failure_is_no_result_and_is_forgotten_on_success(store: ResultStore) -> None:
    failure = FAILURE.model_copy(update={"key": result().key})
    store.write_failure(failure, "Traceback ...")
    assert store.results() == []
    assert store.failures() == [failure]
    assert (store.out / "failures" / f"{failure.key}.txt").read_text(encoding="utf-8") == "Traceback ..."
    store.write(result(), CURVE)
    assert store.failures() == []
    assert list((store.out / "failures").iterdir()) == []


def test_a_failure_without_a_traceback_drops_the_earlier_one(store: ResultStore) -> None:
    store.write_failure(FAILURE, "Traceback ...")
    store.write_failure(FAILURE)
    assert [p.suffix for p in (store.out / "failures").iterdir()] == [".json"]


def test_writing_that_fails_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old")

    def fail(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_results_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x.json", "1")
    (tmp_path / "y").write_text("1", encoding="utf-8")
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == stat.S_IMODE((tmp_path / "y").stat().st_mode)


def test_sweep_clears_what_a_run_left_that_was_killed_a_day_ago(store: ResultStore) -> None:
    store.write(result(), CURVE)
    for folder in ("curves", "results/lsp"):
        for name in (".writing-old", ".writing-now"):
            (store.out / folder / name).write_text("{", encoding="utf-8")
        os.utime(store.out / folder / ".writing-old", (1, 1))
    store.sweep()
    assert {path.name for path in store.out.rglob(".writing-*")} == {".writing-now"}
    assert store.results() == [result()]


def test_a_failure_that_cannot_be_forgotten_stops_nobody(store: ResultStore, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    store.forget_failure("0" * 32)


def test_a_half_written_result_is_not_seen(store: ResultStore) -> None:
    store.write(result(), CURVE)
    (store.out / "results" / "lsp" / ".writing-x").write_text("{", encoding="utf-8")
    assert store.results() == [result()]


def test_a_results_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EnvironmentProblem, match=r"cannot be written: Not a directory.*--out"):
        ResultStore(tmp_path / "file" / "out").create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_results_folder_is_the_users_to_mend(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(EnvironmentProblem, match="Permission denied"):
        ResultStore(tmp_path / "out").create()


def test_a_folder_without_results_has_none(tmp_path: Path) -> None:
    assert ResultStore(tmp_path / "nowhere").results() == []
    assert ResultStore(tmp_path / "nowhere").failures() == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_no_file_holds_what_is_no_number(store: ResultStore, bad: float) -> None:
    metrics = result().metrics.model_copy(update={"accuracy_last": bad})
    with pytest.raises(ValueError, match="JSON"):
        store.write(result(metrics=metrics), CURVE)
    with pytest.raises(ValueError, match="JSON"):
        store.write(result(), CURVE.model_copy(update={"loss_train": [bad]}))
    with pytest.raises(ValueError, match="JSON"):
        json_text({"intra": bad})
    assert store.results() == []


def test_older_failures_and_results_are_read_as_what_they_were(store: ResultStore) -> None:
    store.write_failure(FAILURE)
    [path] = (store.out / "failures").glob("*.json")
    old = {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if k != "kind"}
    path.write_text(json.dumps(old), encoding="utf-8")
    assert [f.kind for f in store.failures()] == ["error"]
    store.write_failure(FAILURE.model_copy(update={"kind": "diverged"}))
    assert [f.kind for f in store.failures()] == ["diverged"]
    assert Metrics.model_validate({k: v for k, v in result().metrics.model_dump().items() if k != "learned"}).learned
