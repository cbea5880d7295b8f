"""Reading the files of a results folder: what is no result is set aside by name, and stops nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ue_bench.atomic import write_atomically
from ue_bench.errors import ValidationError
from ue_bench.keys import digest
from ue_bench.store.results import ResultStore
from ue_bench.store.schema import (
    json_text,
    record_text,
)

from .helpers import CELL, CURVE, KEY, plugin, result


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "\udcff", "[" * 100_000])
@pytest.mark.parametrize("kind", ["results", "failures"])
def test_a_file_that_is_no_record_is_set_aside_by_name(
    store: ResultStore, kind: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(result(), CURVE)
    path = store.out / kind / "lsp" / "broken.json" if kind == "results" else store.out / kind / "broken.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
    for _ in range(2):
        assert (store.results(), store.failures()) == ([result()], [])
    [aside] = (store.out / kind / "bad").rglob("*.json")
    assert aside.read_bytes() == text.encode(errors="surrogateescape")
    assert not path.exists()
    [said] = caplog.records
    assert str(path) in said.message
    assert aside.relative_to(store.out).as_posix() in said.message


def test_files_of_one_name_are_set_aside_side_by_side(store: ResultStore) -> None:
    for text in ("1", "2"):
        write_atomically(store.out / "results" / "x.json", text)
        assert store.results() == []
    assert sorted(p.read_text(encoding="utf-8") for p in (store.out / "results" / "bad").rglob("*.json")) == ["1", "2"]


def test_a_protector_may_be_called_bad(store: ResultStore) -> None:
    bad = result({"protector": plugin("bad")}, protector="bad")
    store.write(bad, CURVE)
    assert store.results() == [bad]
    assert store.has(bad.key)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_keeps_its_files_and_they_are_named_once(
    store: ResultStore, caplog: pytest.LogCaptureFixture
) -> None:
    write_atomically(store.out / "results" / "x.json", "{")
    (store.out / "results").chmod(0o555)
    try:
        assert store.results() == store.results() == []
    finally:
        (store.out / "results").chmod(0o755)
    assert len(caplog.records) == 1


def test_a_folder_that_cannot_take_files_keeps_them_and_they_are_named_once(
    store: ResultStore, caplog: pytest.LogCaptureFixture
) -> None:
    write_atomically(store.out / "results" / "x.json", "{")
    write_atomically(store.out / "results" / "bad", "in the way of a folder, as a read-only one is")
    assert store.results() == store.results() == []
    [said] = caplog.records
    assert "x.json is not used" in said.message
    assert (store.out / "results" / "x.json").exists()


def test_a_result_of_a_newer_version_is_refused(store: ResultStore) -> None:
    store.write(result(), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"version": 2', '"version": 3'), encoding="utf-8")
    with pytest.raises(ValidationError, match=r"was written by a newer version of ue-bench"):
        store.results()
    assert path.exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"seed":0', '"seed":1'),  # in the cell: its digest is another
        ('"epochs":18', '"epochs":19'),
        (f'"key": "{digest(CELL)}"', f'"key": "{KEY}"'),
        ('"protector": "lsp"', '"protector": "ops"'),  # beside it: what is shown is not what was measured
        ('"countermeasure": "jpeg[quality=10]"', '"countermeasure": "vanilla"'),
        ('"victim": "resnet18"', '"victim": "resnet18+resnet18"'),
        ('"victim": "resnet18"', '"victim": "[["'),
        ('"seed": 0', '"seed": 1'),
        ('"fraction": 1.0', '"fraction": 0.5'),
        ('"precision": "fp32"', '"precision": "bf16"'),
        ('"protocol": "fast"', '"protocol": "paper"'),
        ('"protocol_version": 1', '"protocol_version": 2'),
        ('"fingerprint": "', '"fingerprint": "0'),
        ('"version": 2', '"version": 1'),
        ('"accuracy_last": 12.34', '"accuracy_last": 123.4'),
        ('"accuracy_last": 12.34', '"accuracy_last": NaN'),
        ('"accuracy_last": 12.34', '"accuracy_last": -1'),
        ('"loss_train": 0.123', '"loss_train": Infinity'),
        ('"linf_max": 2', '"linf_max": 256'),
        ('"ssim": 0.9', '"ssim": 1.5'),
        ('"over_8": 0.0', '"over_8": 2'),
        ('"psnr": null', '"psnr": -1'),
        ('"train_seconds": 2.0', '"train_seconds": -2'),
        ('"attempts": 1', '"attempts": 0'),
    ],
)
def test_a_result_that_cannot_be_true_is_set_aside(store: ResultStore, before: str, after: str) -> None:
    store.write(result(), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    assert not store.has(digest(CELL))
    assert store.results() == []
    assert len(list((store.out / "results" / "bad" / "lsp").iterdir())) == 1


def test_a_result_holds_the_cell_of_its_key(store: ResultStore) -> None:
    store.write(result({"fraction": 1 / 3}, fraction=1 / 3), CURVE)
    [path] = (store.out / "results").rglob("*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert digest(found["cell"]) == found["key"]  # its floats are not shortened
    assert (found["fraction"], found["cell"]["fraction"]) == (0.333333, 1 / 3)
    assert len(store.results()) == 1


@pytest.mark.parametrize("name", ["em-vanilla.json", "ops-median.json"])
def test_results_of_version_1_are_still_read(store: ResultStore, name: str) -> None:
    old = Path(__file__).parent / "version-1" / name
    target = store.out / "results" / "some" / f"x-{json.loads(old.read_text())['key'][:8]}.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(old.read_bytes())
    [found] = store.results()
    assert (found.version, found.cell, store.has(found.key)) == (1, None, True)
    assert record_text(found) == old.read_text(encoding="utf-8")


def test_what_is_not_a_number_is_never_written(store: ResultStore) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": [float("nan")]})
    with pytest.raises(ValueError, match="finite number"):
        result().metrics.model_validate(result().metrics.model_dump() | {"loss_train": float("inf")})


def test_what_is_no_file_is_named_and_not_waited_for(store: ResultStore, caplog: pytest.LogCaptureFixture) -> None:
    folder = store.out / "results" / "em"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.json")
    (folder / "annexed.json").symlink_to("nowhere")
    assert store.results() == store.results() == []
    said = sorted(record.getMessage() for record in caplog.records)
    assert ["annexed.json" in said[0], "pipe.json" in said[1], len(said)] == [True, True, 2]
