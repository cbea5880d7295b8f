"""Looking up what a key has: by names, from listings that are remembered while nothing changes."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ue_bench.store import records
from ue_bench.store.listing import SETTLED, files_of, json_files
from ue_bench.store.results import ResultStore

from .helpers import CURVE, result

KEY = "0123456789abcdef" * 2


def touch(path: Path, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}", encoding="utf-8")
    settle(path.parent, age)
    return path


def settle(path: Path, age: float = SETTLED / 1e9 + 1) -> None:
    then = time.time() - age
    os.utime(path, (then, then))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are listed."""
    names: list[str] = []
    plain = os.listdir

    def listdir(folder: str) -> list[str]:
        names.append(Path(folder).name)
        return plain(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    return names


def test_files_are_known_by_the_key_in_their_name(tmp_path: Path) -> None:
    long = touch(tmp_path / "em" / f"jpeg-10-s0-{KEY[:16]}.json")
    short = touch(tmp_path / "a" / f"jpeg-10-s0-{KEY[:8]}.json")
    touch(tmp_path / "em" / "jpeg-10-s0-ffffffffffffffff.json")
    touch(tmp_path / "em" / f".writing-{KEY[:16]}")
    touch(tmp_path / f"jpeg-{KEY[:16]}.json")  # in no protector's folder
    touch(tmp_path / "bad" / "files" / f"jpeg-{KEY[:16]}.json")
    assert files_of(tmp_path, KEY) == [short, long]
    assert files_of(tmp_path, "f" * 32) == [tmp_path / "em" / "jpeg-10-s0-ffffffffffffffff.json"]
    assert files_of(tmp_path / "none", KEY) == []


def test_what_did_not_change_is_listed_once(tmp_path: Path, listed: list[str]) -> None:
    touch(tmp_path / "em" / f"jpeg-{KEY[:16]}.json", age=60)
    touch(tmp_path / "ar" / f"jpeg-{KEY[:16]}.json", age=60)
    for _ in range(5):
        assert len(files_of(tmp_path, KEY)) == 2
    assert sorted(listed) == ["ar", "em"]
    new = touch(tmp_path / "em" / f"gray-{KEY[:16]}.json", age=30)
    assert new in files_of(tmp_path, KEY)
    new.unlink()
    settle(new.parent, 20)
    assert len(files_of(tmp_path, KEY)) == 2
    assert sorted(listed) == ["ar", "em", "em", "em"]


def test_what_has_just_changed_is_listed_again(tmp_path: Path, listed: list[str]) -> None:
    """Two changes may have the same time."""
    folder = touch(tmp_path / "em" / f"jpeg-{KEY[:16]}.json").parent
    status = folder.stat()
    assert len(files_of(tmp_path, KEY)) == 1
    touch(folder / f"gray-{KEY[:16]}.json")
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(files_of(tmp_path, KEY)) == 2


def test_a_record_is_parsed_once_and_again_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    plain = records._parse

    def parse(folder: Path, path: Path, kind: type) -> object:
        parsed.append(path.name)
        return plain(folder, path, kind)

    monkeypatch.setattr(records, "_parse", parse)
    store = ResultStore(tmp_path)
    store.write(result(), CURVE)
    [path] = (tmp_path / "results").rglob("*.json")
    assert store.results() == store.results() == [result()]
    assert len(parsed) == 2  # it is so new that a change would not show
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)
    assert store.results() == store.results() == [result()]
    assert len(parsed) == 3
    path.write_text("{" + path.read_text(encoding="utf-8")[1:].replace("\n", " "), encoding="utf-8")
    assert store.results() == store.results() == [result()]
    assert len(parsed) == 4
    path.write_text("no result", encoding="utf-8")
    assert store.results() == []


def test_files_are_listed_with_what_tells_that_they_changed(tmp_path: Path) -> None:
    file = touch(tmp_path / "em" / "jpeg.json")
    touch(tmp_path / "bad" / "em" / "aside.json")
    touch(tmp_path / "bad" / "of-the-plugin-bad.json")
    touch(tmp_path / "em" / "other.txt")
    touch(tmp_path / "em" / "deep" / "x.json")
    (tmp_path / "em" / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "em" / "itself.json").symlink_to(tmp_path / "em" / "itself.json")
    (tmp_path / "linked").symlink_to(tmp_path / "em")
    (tmp_path / "em" / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "em" / "pipe.json")
    names = ["bad/of-the-plugin-bad.json", "em/deep/x.json", "em/gone.json", "em/itself.json", "em/jpeg.json"]
    names.append("em/pipe.json")
    names += [name.replace("em/", "linked/") for name in names[1:]]
    assert list(json_files(tmp_path)) == names
    assert list(json_files(tmp_path, below=False)) == []
    assert json_files(tmp_path / "none") == json_files(file) == {}
    before = json_files(tmp_path)
    assert [before[f"em/{name}.json"] for name in ("itself", "gone", "pipe")] == [None] * 3
    os.utime(file, (1, 1))
    old, new = before["em/jpeg.json"], json_files(tmp_path)["em/jpeg.json"]
    assert old is not None
    assert new is not None
    assert new.modified == 10**9
    assert new.changed >= old.changed


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "em" / "jpeg.json")
    known = os.scandir

    def scandir(folder: str | Path) -> Any:
        if str(folder).endswith("em"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return known(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        json_files(tmp_path)
