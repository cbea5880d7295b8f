from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ue_bench.errors import EnvironmentProblem, ValidationError
from ue_bench.store import results as module
from ue_bench.store.results import ResultStore, slug, write_atomically
from ue_bench.store.schema import Budget, Cost, Curve, DatasetInfo, Environment, Failure, Metrics, Result

KEY = "0123456789abcdef" * 2


def result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "key": KEY,
        "id": "cifar10/lsp/jpeg[quality=10]/resnet18/fast/s0",
        "dataset": DatasetInfo(
            selector="cifar10", source="CIFAR-10", train=50_000, test=10_000, classes=10, height=32, width=32,
            fingerprint="f" * 16,
        ),
        "protector": "lsp",
        "countermeasure": "jpeg[quality=10]",
        "victim": "resnet18",
        "protocol": "fast",
        "protocol_version": 1,
        "seed": 0,
        "fraction": 1.0,
        "precision": "fp32",
        "metrics": Metrics(
            accuracy_last=12.34, accuracy_peak=23.45, peak_epoch=3.0, accuracy_train=None, loss_train=0.123
        ),
        "budget": Budget(
            declared="none", linf_mean=1, linf_max=2, rms=0.5, over_8=0, l2_mean=1, l0_mean=3, psnr=None, ssim=0.9
        ),
        "cost": Cost(protect_seconds=1, train_seconds=2, images_per_second=3, peak_memory_mb=4),
        "environment": Environment(ue_bench="0.1.0", commit="", python="3", torch="2", device="a processor", threads=1),
        "attempts": 1,
        "finished": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Result(**(fields | changes))


CURVE = Curve(key=KEY, epoch=[1], accuracy_test=[10.0], accuracy_train=[None], loss_train=[2.0])
FAILURE = Failure(key=KEY, id="x", attempts=2, error="ValueError: no", failed="2026-01-01T00:00:00+00:00")


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    found = ResultStore(tmp_path / "Ergebnisse für später")
    found.create()
    return found


def test_a_result_survives_storing(store: ResultStore) -> None:
    store.write(result(), CURVE)
    assert store.results() == [result()]
    [path] = (store.out / "results").rglob("*.json")
    assert (
        path.relative_to(store.out).as_posix() == "results/lsp/jpeg-quality-10-resnet18-fast-s0-0123456789abcdef.json"
    )
    assert json.loads((store.out / "curves" / f"{KEY}.json").read_text(encoding="utf-8"))["accuracy_test"] == [10.0]


def test_results_come_sorted_and_a_second_writing_replaces_the_first(store: ResultStore) -> None:
    other = result(id="a", key="f" * 32)
    store.write(result(), CURVE)
    store.write(other, CURVE)
    store.write(result(attempts=2), CURVE)
    assert store.results() == [other, result(attempts=2)]


def test_a_result_with_the_longest_plausible_names_has_at_most_2_kb(store: ResultStore) -> None:
    protector = "deephiding[mode=sample,hidden=natural,hidden_images=photographs of nature,bank_size=10000,eps=16/255]"
    countermeasure = "gaussian-filter[apply_to_test=true,sigma=12.345]+jpeg[apply_to_test=true,quality=10]+at[steps=10]"
    third = 100 / 3
    long = result(
        id=f"imagefolder[path=imagenet100,size=224]/{protector}@0.333333/{countermeasure}/resnet18[stem=imagenet]/paper/s9",
        protector=protector,
        countermeasure=countermeasure,
        victim="resnet18[stem=imagenet]",
        fraction=1 / 3,
        metrics=Metrics(
            accuracy_last=third, accuracy_peak=third, peak_epoch=third, accuracy_train=third, loss_train=1e-7 / 3
        ),
        budget=Budget(
            declared="linf 0.03137254901960784", linf_mean=third, linf_max=255, rms=third, over_8=third, l2_mean=third,
            l0_mean=third * 1000, psnr=third, ssim=1 / 3,
        ),
        cost=Cost(protect_seconds=third, train_seconds=1e5 / 3, images_per_second=1e6 / 3, peak_memory_mb=1e5 / 3),
        environment=Environment(
            ue_bench="0.10.12.dev123", commit="0123456789+", python="3.13.12", torch="2.11.0+cu128",
            device="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", threads=16,
        ),
    )  # fmt: skip
    store.write(long, CURVE)
    [path] = (store.out / "results").rglob("*.json")
    assert path.stat().st_size <= 2048
    assert len(path.name) < 255


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


def test_results_whose_names_and_first_digits_are_equal_are_both_kept(store: ResultStore) -> None:
    first, second = result(key="01234567" + "a" * 24), result(key="01234567" + "b" * 24, fraction=0.5)
    for one in (first, second):
        store.write(one, CURVE)

    assert [r.key for r in store.results()] == [first.key, second.key]
    assert store.has(first.key)
    assert store.has(second.key)
    assert not store.has("01234567" + "c" * 24)


def test_names_that_differ_in_case_alone_are_files_of_their_own_on_every_file_system(store: ResultStore) -> None:
    for number, victim in enumerate(["Net", "net", "NET"]):
        store.write(result(key=f"{number}" * 32, victim=victim), CURVE)

    names = [path.name.lower() for path in (store.out / "results").rglob("*.json")]
    assert len(set(names)) == 3


def test_a_result_under_a_name_of_before_is_found_and_replaced_where_it_is(store: ResultStore) -> None:
    store.write(result(), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    old = path.rename(path.with_name("jpeg-quality-10-resnet18-fast-s0-01234567.json"))

    assert store.has(KEY)
    store.write(result(attempts=2), CURVE)

    assert list((store.out / "results").rglob("*.json")) == [old]
    assert store.results() == [result(attempts=2)]


def test_a_protocol_of_ones_own_may_have_any_name(store: ResultStore) -> None:
    store.write(result(protocol="../mine/x"), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    assert path.name == "jpeg-quality-10-resnet18-mine-x-s0-0123456789abcdef.json"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "\udcff"])
@pytest.mark.parametrize("kind", ["results", "failures"])
def test_a_file_that_cannot_be_read_is_named(store: ResultStore, kind: str, text: str) -> None:
    path = store.out / kind / "broken.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValidationError) as caught:
        store.results() if kind == "results" else store.failures()
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_result_of_another_version_is_refused(store: ResultStore) -> None:
    store.write(result(), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"version": 1', '"version": 2'), encoding="utf-8")
    with pytest.raises(ValidationError, match="is not a result of this version"):
        store.results()


def test_a_failure_is_no_result_and_is_forgotten_on_success(store: ResultStore) -> None:
    store.write_failure(FAILURE, "Traceback ...")
    assert store.results() == []
    assert store.failures() == [FAILURE]
    assert (store.out / "failures" / f"{KEY}.txt").read_text(encoding="utf-8") == "Traceback ..."
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

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_results_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x.json", "1")
    (tmp_path / "y").write_text("1", encoding="utf-8")
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == stat.S_IMODE((tmp_path / "y").stat().st_mode)


def test_a_second_run_is_refused_while_the_first_goes_on(store: ResultStore) -> None:
    second = ResultStore(store.out)
    with store.lock(), pytest.raises(EnvironmentProblem, match="another run is filling"), second.lock():
        pass
    with second.lock():
        pass


def test_the_lock_clears_what_a_killed_run_left(store: ResultStore) -> None:
    store.write(result(), CURVE)
    for folder in ("curves", "results/lsp"):
        (store.out / folder / ".writing-x").write_text("{", encoding="utf-8")
    with store.lock():
        assert not list(store.out.rglob(".writing-*"))
    assert store.results() == [result()]


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
