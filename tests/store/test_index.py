"""The index of a folder of results: whatever is wrong with it, what is read is what the files say."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ue_bench.keys import digest
from ue_bench.store import index, records
from ue_bench.store.evasion import EvasionResult
from ue_bench.store.index import FILE, read_index
from ue_bench.store.listing import json_files
from ue_bench.store.results import ResultStore, fresh_path
from ue_bench.store.schema import Failure, Result, record_text
from ue_bench.temporaries import clock_of

from .helpers import CELL, plugin, result

COUNT = 40
WORTH = 20
DAY = 24 * 3600.0


def numbered(number: int, **changes: Any) -> Result:
    """One of many results: they share some values and differ in others, which 1, 1.0 and true do as well."""
    steps: Any = [1, 1.0, True, None, -0.0, 0.0, "1"][number % 7]
    cell = {
        "protector": plugin(f"p{number % 3}", steps=steps), "seed": number, "fraction": 1 if number % 2 else 1.0,
        "countermeasure": {"combination": [plugin("jpeg", quality=number % 5), plugin("gray")]},
    }  # fmt: skip
    metrics = result().metrics.model_copy(
        update={"accuracy_last": round(number % 500 / 7, 3), "learned": number % 11 > 0}
    )
    shown = {"protector": f"p{number % 3}", "countermeasure": f"jpeg[quality={number % 5}]+gray", "seed": number}
    return result(cell, id=f"cell {number:04}", metrics=metrics, **(shown | changes))


def write(out: Path, one: Result) -> Path:
    """Write a result as the store does, but without waiting for the disk."""
    path = fresh_path(out / "results", one.key, one.protector, one.countermeasure, one.victim, f"s{one.seed}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record_text(one), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def many() -> list[Result]:
    return [numbered(number) for number in range(COUNT)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is worth its while from some files on: hundreds would take these tests seconds."""
    monkeypatch.setattr(index, "WORTH", WORTH)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the file system is a day on: no file of these tests is new."""
    monkeypatch.setattr(index, "clock_of", lambda folder: clock_of(folder) + DAY)


@pytest.fixture
def out(tmp_path: Path, many: list[Result], few: None, later: None) -> Path:
    """A folder of many results that has an index."""
    for one in many:
        write(tmp_path, one)
    assert results(tmp_path) == many
    assert (tmp_path / "results" / FILE).is_file()
    return tmp_path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read."""
    names: list[str] = []
    parse = records._parse

    def noted(folder: Path, path: Path, kind: Any) -> Any:
        names.append(path.name)
        return parse(folder, path, kind)

    monkeypatch.setattr(records, "_parse", noted)
    return names


def results(out: Path) -> list[Result]:
    """What a process that has not read anything finds."""
    records._remembered.clear()
    return ResultStore(out).results()


def test_files_that_did_not_change_are_not_read_again(out: Path, many: list[Result], parsed: list[str]) -> None:
    found = results(out)
    assert found == many
    assert [record_text(one) for one in found] == [record_text(one) for one in many]  # 1 is not 1.0
    assert parsed == []


def test_what_changed_is_read_from_its_file(out: Path, many: list[Result], parsed: list[str]) -> None:
    new = numbered(COUNT)
    gone, other = many[0], numbered(1, attempts=3)
    write(out, new)
    changed = write(out, other)
    write(out, gone).unlink()
    assert results(out) == [other, *many[2:], new]
    assert len(parsed) == 2
    assert changed.name in parsed


def test_a_file_of_the_same_size_and_time_is_read_again(out: Path, many: list[Result]) -> None:
    path = write(out, many[5])
    before = path.stat()
    text = path.read_text(encoding="utf-8")
    other = text.replace('"accuracy_peak": 23.45', '"accuracy_peak": 65.43')
    path.write_text(other, encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert results(out)[5].metrics.accuracy_peak == 65.43


def test_the_index_of_a_copied_folder_is_not_believed(out: Path, many: list[Result], parsed: list[str]) -> None:
    """A folder that somebody hands in may come with an index that says what it likes."""
    copy = out / "copy"
    shutil.copytree(out / "results", copy / "results")  # keeps times
    assert results(copy) == many
    assert len(parsed) == COUNT


def forged(file: Path, before: str, after: str) -> None:
    """Change the content of an index, with the checksum that belongs to it."""
    _, body = file.read_bytes().split(b"\n", 1)
    assert before.encode() in body
    changed = body.replace(before.encode(), after.encode())
    file.write_bytes(index._head(Result, changed).encode() + b"\n" + changed)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


HARM: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut off": cut,
    "a bit flipped": flip,
    "no index": lambda file: file.write_text("{}\n{}\n", encoding="utf-8"),
    "binary": lambda file: file.write_bytes(b"\xff\n\x00"),
    "a folder": to_folder,
    "of other rules": lambda file: file.write_bytes(file.read_bytes().replace(b"rules ", b"rules 0", 1)),
    "of another kind": lambda file: file.write_bytes(file.read_bytes().replace(b"Result", b"Failure", 1)),
    "out of range": lambda file: forged(file, '"accuracy_peak":23.45', '"accuracy_peak":123.45'),
    "without a field": lambda file: forged(file, '"budget":', '"other":'),
    "columns of two lengths": lambda file: forged(file, '"cell 0000",', ""),
}


@pytest.mark.parametrize("name", HARM)
def test_a_damaged_index_is_made_again(out: Path, many: list[Result], parsed: list[str], name: str) -> None:
    HARM[name](out / "results" / FILE)
    assert results(out) == many
    assert len(parsed) == COUNT
    if name != "a folder":  # which is left alone
        assert results(out) == many
        assert len(parsed) == COUNT


def test_an_index_of_another_version_is_not_used(
    out: Path, many: list[Result], parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "__version__", "0.0.1")
    assert results(out) == many
    assert len(parsed) == COUNT


def test_an_index_of_other_rules_is_not_used(out: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer source of the schema may refuse what an older one took."""
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path.suffix == ".py" else b""))
    results(out)
    assert len(parsed) == COUNT


def test_files_that_are_new_are_not_indexed(tmp_path: Path, many: list[Result], few: None, parsed: list[str]) -> None:
    """They may change again at the same time, on a file system with coarse times."""
    for one in many:
        write(tmp_path, one)
    assert results(tmp_path) == results(tmp_path) == many
    assert len(parsed) == 2 * COUNT
    assert not (tmp_path / "results" / FILE).exists()


def test_a_clock_that_was_set_back_leaves_files_unindexed(
    tmp_path: Path, many: list[Result], few: None, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "clock_of", lambda folder: clock_of(folder) - 3600)
    for one in many:
        write(tmp_path, one)
    assert results(tmp_path) == results(tmp_path) == many
    assert len(parsed) == 2 * COUNT


def test_a_clock_of_this_machine_that_is_wrong_changes_nothing(
    out: Path, many: list[Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    other = numbered(1, attempts=3)
    write(out, other)
    assert results(out) == [many[0], other, *many[2:]]


def test_small_folders_have_no_index(tmp_path: Path, many: list[Result], later: None) -> None:
    for one in many:
        write(tmp_path, one)
    assert results(tmp_path) == many
    assert [path.name for path in (tmp_path / "results").glob(".*")] == []


def test_a_folder_that_cannot_be_written_is_read(
    tmp_path: Path, many: list[Result], few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in many:
        write(tmp_path, one)

    def refuse(*_: Any) -> float:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(index, "clock_of", refuse)
    assert results(tmp_path) == results(tmp_path) == many
    monkeypatch.undo()
    monkeypatch.setattr(index, "clock_of", lambda folder: DAY * 1e6)
    monkeypatch.setattr(index, "write_atomically", refuse)
    assert results(tmp_path) == many
    assert not (tmp_path / "results" / FILE).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_the_index_of_a_read_only_folder_is_used(out: Path, many: list[Result], parsed: list[str]) -> None:
    (out / "results").chmod(0o555)
    try:
        assert results(out) == many
    finally:
        (out / "results").chmod(0o755)
    assert parsed == []


def test_an_index_grows_with_its_folder_now_and_then(out: Path, many: list[Result], parsed: list[str]) -> None:
    more = [numbered(number) for number in range(COUNT, COUNT + WORTH)]
    for one in more[:-1]:
        write(out, one)
    assert results(out) == results(out) == [*many, *more[:-1]]
    assert len(parsed) == 2 * (WORTH - 1)
    write(out, more[-1])
    assert results(out) == results(out) == [*many, *more]
    assert len(parsed) == 2 * (WORTH - 1) + WORTH


def test_what_two_processes_index_at_once_is_right_whichever_is_last(
    out: Path, many: list[Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one read the folder before a result was replaced, and writes its index afterwards."""
    stale = (out / "results" / FILE).read_bytes()
    other = numbered(1, attempts=3)
    write(out, other)
    (out / "results" / FILE).unlink()
    assert results(out) == [many[0], other, *many[2:]]
    (out / "results" / FILE).write_bytes(stale)
    assert results(out) == [many[0], other, *many[2:]]


def test_a_file_that_is_no_result_is_told_however_many_are_indexed(
    out: Path, many: list[Result], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(out, many[7])
    path.write_text("{", encoding="utf-8")
    assert results(out) == [one for one in many if one != many[7]]
    assert f"{path.name} is not used" in caplog.text


def test_results_without_a_cell_are_indexed_beside_those_with_one(
    tmp_path: Path, many: list[Result], few: None, later: None, parsed: list[str]
) -> None:
    old = Result(**(result().model_dump() | {"version": 1, "cell": None, "id": "old", "key": "0" * 32}))
    for one in [*many, old]:
        write(tmp_path, one)
    assert results(tmp_path) == results(tmp_path) == [*many, old]
    assert len(parsed) == COUNT + 1


def test_failures_are_indexed(tmp_path: Path, few: None, later: None, parsed: list[str]) -> None:
    (tmp_path / "failures").mkdir()
    made = [
        Failure(key=digest(n), id=f"{n}", attempts=1, error="é\udcff"[: n % 2], failed="then") for n in range(COUNT)
    ]
    for failure in made:
        path = tmp_path / "failures" / f"{failure.key}.json"
        path.write_text(json.dumps(failure.model_dump()), encoding="utf-8")
    for _ in range(2):
        records._remembered.clear()
        assert sorted(ResultStore(tmp_path).failures(), key=lambda f: int(f.id)) == made
    assert len(parsed) == COUNT


def test_an_index_of_results_is_none_of_evasion(out: Path) -> None:
    files = json_files(out / "results")
    assert len(read_index(out / "results", Result, files)) == COUNT
    assert read_index(out / "results", EvasionResult, files) == {}


def test_keys_are_compared_when_a_file_is_first_read_and_ranges_always(out: Path, many: list[Result]) -> None:
    path = write(out, many[3])
    path.write_text(record_text(many[3]).replace(many[3].key, digest(CELL)), encoding="utf-8")
    assert results(out) == [one for one in many if one != many[3]]
    forged(out / "results" / FILE, '"ssim":0.9', '"ssim":1.9')
    assert {one.budget.ssim for one in results(out)} == {0.9}
