"""``ue-bench protect`` goes on: past what fails, and from where it was when the same command is given again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import tree

from ue_bench import machine
from ue_bench.owner import files, recording

from . import invertible
from .conftest import Command, Finished
from .helpers import load, random_image, write


@pytest.fixture(autouse=True)
def protectors(monkeypatch: pytest.MonkeyPatch) -> None:
    invertible.register(monkeypatch)
    monkeypatch.setattr(invertible.Shuffled, "calls", [])
    monkeypatch.setattr(invertible.Careless, "calls", [])


def protect(ue_bench: Command, protector: str, *arguments: str) -> Finished:
    return ue_bench("protect", "-P", protector, "--device", "cpu", "--threads", "1", "in", "out", *arguments)


def record() -> Any:
    return json.loads(Path("out.record.json").read_text(encoding="utf-8"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, two images of 8 x 8 and one of 9 x 8 in each."""
    for seed, label in ((0, "a"), (10, "b")):
        write(tmp_path / "in" / label / "1.png", random_image((8, 8), seed + 1))
        write(tmp_path / "in" / label / "2.png", random_image((8, 8), seed + 2))
        write(tmp_path / "in" / label / "3.png", random_image((9, 8), seed + 3))
    return tmp_path / "in"


EVEN, ODD = ["a/1.png", "a/2.png", "b/1.png", "b/2.png"], ["a/3.png", "b/3.png"]


def stamps(names: list[str]) -> dict[str, int]:
    return {name: (Path("out") / name).stat().st_mtime_ns for name in names}


class TestASizeThatFails:
    def test_is_named_and_the_others_are_done(
        self, ue_bench: Command, photos: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        found = protect(ue_bench, "careless")
        assert found.code == 1
        assert tree(Path("out")) == EVEN
        assert [f"  {name}: ZeroDivisionError: odd" in found.err.splitlines() for name in ODD] == [True, True]
        assert "Traceback" in caplog.text  # a bug of the protector's, which its author wants to see

    def test_is_asked_for_alone_when_its_bad_file_is_removed(self, ue_bench: Command, photos: Path) -> None:
        write(photos / "b" / "4.png", random_image((9, 8), 4))
        protect(ue_bench, "careless")
        before = stamps(EVEN)
        invertible.Careless.calls.clear()
        (photos / "b" / "4.png").unlink()
        found = protect(ue_bench, "careless")
        assert found.code == 1
        assert invertible.Careless.calls == [(2, 9, 8, 3)]
        assert list(record()["failed"]) == ODD
        for name in ODD:
            (photos / name).unlink()
        invertible.Careless.calls.clear()
        assert protect(ue_bench, "careless").code == 0
        assert invertible.Careless.calls == []
        assert stamps(EVEN) == before
        assert list(record()["files"]) == EVEN

    def test_alone_is_a_bug_with_a_traceback(self, ue_bench: Command, photos: Path) -> None:
        for name in EVEN:
            (photos / name).unlink()
        with pytest.raises(ZeroDivisionError):
            protect(ue_bench, "careless")

    def test_refused_alone_is_one_line_and_the_command_continues_without_the_bad_file(
        self, ue_bench: Command, photos: Path
    ) -> None:
        for name in EVEN:
            (photos / name).unlink()
        write(photos / "a" / "4.png", random_image((9, 8), 4))
        found = protect(ue_bench, "fussy")
        assert found.code == 2
        assert "ue-bench: heights must be even" in found.err
        write(photos / "a" / "4.png", random_image((8, 8), 4))
        for name in ODD:
            (photos / name).unlink()
        assert protect(ue_bench, "fussy").code == 0
        assert tree(Path("out")) == ["a/4.png"]


class TestAPictureThatCannotBeRead:
    @pytest.fixture
    def protected(self, ue_bench: Command, photos: Path) -> dict[str, int]:
        """When the other files were written."""
        (photos / "a" / "bad.png").write_bytes(b"bad")
        assert protect(ue_bench, "shuffled").code == 1
        invertible.Shuffled.calls.clear()
        return stamps(EVEN + ODD)

    def test_is_no_failure_once_it_is_removed(self, ue_bench: Command, photos: Path, protected: dict[str, int]) -> None:
        (photos / "a" / "bad.png").unlink()
        found = protect(ue_bench, "shuffled")
        assert (found.code, record()["failed"], record()["images"]) == (0, {}, 6)
        assert invertible.Shuffled.calls == []
        assert stamps(EVEN + ODD) == protected

    @pytest.mark.parametrize("size", [(8, 8), (9, 8), (12, 12)])
    def test_is_protected_once_it_is_mended(
        self, ue_bench: Command, photos: Path, protected: dict[str, int], size: tuple[int, int]
    ) -> None:
        write(photos / "a" / "bad.png", random_image(size, 7))
        assert protect(ue_bench, "shuffled").code == 0
        assert invertible.Shuffled.calls == [(1, *size, 3)]
        assert stamps(EVEN + ODD) == protected
        assert record()["recovery"]["exact"] == 7
        assert ue_bench("recover", "out.key.safetensors", "out", "back").code == 0
        assert np.array_equal(load(Path("back/a/bad.png")), random_image(size, 7))

    def test_is_left_out_where_images_were_learned_from_together(self, ue_bench: Command, photos: Path) -> None:
        for name in ODD:
            (photos / name).unlink()
        (photos / "a" / "bad.png").write_bytes(b"bad")
        assert protect(ue_bench, "learner").code == 1
        write(photos / "a" / "bad.png", random_image((8, 8), 7))
        assert "out holds other images" in protect(ue_bench, "learner").err
        (photos / "a" / "bad.png").unlink()
        assert protect(ue_bench, "learner").code == 0


class TestARemovedPicture:
    @pytest.mark.parametrize("gone", ["a/1.png", "b/3.png"])
    def test_changes_nothing_else_of_finished_work(self, ue_bench: Command, photos: Path, gone: str) -> None:
        assert protect(ue_bench, "shuffled", "--json").code == 0
        before = stamps(EVEN + ODD)
        invertible.Shuffled.calls.clear()
        (photos / gone).unlink()
        assert protect(ue_bench, "shuffled").code == 0
        assert invertible.Shuffled.calls == []
        assert stamps(EVEN + ODD) == before
        assert set(record()["files"]) == {*EVEN, *ODD} - {gone}
        assert (record()["recovery"]["exact"], record()["recovery"]["others"]) == (5, 0)
        # Its original may be lost: the key still brings it back.
        assert ue_bench("recover", "out.key.safetensors", "out", "back").code == 0
        assert tree(Path("back")) == sorted(EVEN + ODD)

    def test_measures_what_is_left(self, ue_bench: Command, photos: Path) -> None:
        protect(ue_bench, "shuffled", "--seed", "3")
        (photos / "a" / "1.png").unlink()
        protect(ue_bench, "shuffled", "--seed", "3")
        continued = record()
        shutil.rmtree("out")
        Path("out.record.json").unlink()
        Path("out.key.safetensors").unlink()
        protect(ue_bench, "shuffled", "--seed", "3")
        assert continued["measured"] == pytest.approx(record()["measured"])
        assert {k: v for k, v in continued["settings"].items() if k != "input"} == {
            k: v for k, v in record()["settings"].items() if k != "input"
        }

    def test_leaves_the_names_of_the_others(self, ue_bench: Command, photos: Path) -> None:
        write(photos / "a" / "1.bmp", random_image((8, 8), 5))
        protect(ue_bench, "shuffled")
        (photos / "a" / "1.png").unlink()
        assert protect(ue_bench, "shuffled").code == 0
        assert record()["files"]["a/1.bmp"] == "a/1.bmp.png"

    def test_may_have_a_line_in_the_file_of_labels(self, ue_bench: Command, tmp_path: Path) -> None:
        for number in range(3):
            write(tmp_path / "in" / f"{number}.png", random_image(seed=number))
        lines = ["0.png,a\n", "1.png,a\n", "2.png,b\n"]
        for removed in (0, 1):
            (tmp_path / "in" / "labels.csv").write_text("".join(lines[removed:]), encoding="utf-8")
            assert protect(ue_bench, "shuffled").code == 0
            (tmp_path / "in" / f"{removed}.png").unlink()
            assert (tmp_path / "out" / "labels.csv").read_text(encoding="utf-8") == "".join(lines[removed:])

    @pytest.mark.parametrize("gone", ["a/1.png", "b/1.png", "b/3.png"])
    def test_after_ctrl_c(self, ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
        write_file, count = files.write, 0

        def write_some(path: Path, content: bytes) -> None:
            nonlocal count
            count += 1
            if count >= 3:
                raise KeyboardInterrupt
            write_file(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(files, "write", write_some)
            patched.setattr(machine, "usable_cores", lambda: 1)
            assert protect(ue_bench, "shuffled").code == 130
        before = stamps(tree(Path("out")))
        assert len(before) == 2
        invertible.Shuffled.calls.clear()
        (photos / gone).unlink()
        found = protect(ue_bench, "shuffled")
        assert (found.code, record()["failed"]) == (0, {})
        assert invertible.Shuffled.calls == [(1 if gone in ODD else 2, 9, 8, 3)]
        assert stamps(list(before)) == before
        assert not any((Path("cache") / "unfinished").iterdir())
        assert ue_bench("recover", "out.key.safetensors", "out", "back").code == (1 if gone in before else 0)


class TestAPictureThatGoesMeanwhile:
    @pytest.mark.parametrize("how", ["removed", "changed"])
    def test_costs_itself_only(
        self, ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        begin = recording.begin

        def begin_late(*arguments: Any) -> Any:
            if how == "removed":
                (photos / "a" / "1.png").unlink()
            else:
                write(photos / "a" / "1.png", random_image((8, 8), 9))
            return begin(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(recording, "begin", begin_late)
            found = protect(ue_bench, "shuffled")
        assert found.code == 1
        reasons = {
            "removed": "No such file or directory, it was there before",
            "changed": "changed while the command ran",
        }
        assert record()["failed"] == {"a/1.png": reasons[how]}
        assert tree(Path("out")) == sorted({*EVEN, *ODD} - {"a/1.png"})
        assert protect(ue_bench, "shuffled").code == 0
        assert record()["failed"] == {}
        assert ("a/1.png" in tree(Path("out"))) == (how == "changed")

    def test_one_more_is_refused(self, ue_bench: Command, photos: Path) -> None:
        protect(ue_bench, "shuffled")
        write(photos / "a" / "new.png", random_image((8, 8), 9))
        assert "out holds other images" in protect(ue_bench, "shuffled").err


def test_a_command_that_wrote_nothing_is_in_nobodys_way(ue_bench: Command, photos: Path) -> None:
    for name in EVEN:
        (photos / name).unlink()
    assert protect(ue_bench, "fussy").code == 2
    write(photos / "a" / "new.png", random_image((9, 8), 9))
    assert protect(ue_bench, "shuffled").code == 0


def test_a_name_that_is_too_long_costs_itself_only(ue_bench: Command, photos: Path) -> None:
    fits, too_long = "f" * 251 + ".png", "t" * 251 + ".bmp"
    write(photos / "a" / fits, random_image((8, 8), 4))
    write(photos / "a" / too_long, random_image((8, 8), 5))
    write(photos / "a" / ("t" * 251 + ".png"), random_image((8, 8), 6))
    found = protect(ue_bench, "shuffled")
    assert found.code == 1
    assert [line[:6] for line in found.err.splitlines() if "cannot be written under its name" in line] == ["  a/tt"]
    assert (Path("out") / "a" / fits).is_file()


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX systems")
def test_key_and_record_are_for_their_owner_only(ue_bench: Command, photos: Path) -> None:
    before = os.umask(0o022)
    try:
        protect(ue_bench, "shuffled")
    finally:
        os.umask(before)

    def mode(path: str) -> int:
        return stat.S_IMODE(Path(path).stat().st_mode)

    assert (mode("out.record.json"), mode("out.key.safetensors"), mode("out/a/1.png")) == (0o600, 0o600, 0o644)


def test_a_key_that_cannot_be_written_is_said_before_anything_is_done(ue_bench: Command, photos: Path) -> None:
    Path("file").touch()
    found = protect(ue_bench, "shuffled", "--key", "file/key")
    assert found.code == 3
    assert invertible.Shuffled.calls == []


def test_a_cache_that_is_full_is_one_line(ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ue_bench.contract.context.Context.map_images", full)
        found = protect(ue_bench, "shuffled")
    assert found.code == 3
    assert "ue-bench: No space left on device" in found.err
    assert protect(ue_bench, "shuffled").code == 0


def test_the_seed_cannot_be_tried_out(ue_bench: Command, photos: Path) -> None:
    seeds = []
    for _ in range(4):
        assert protect(ue_bench, "shuffled", "--force").code == 0
        seeds.append(record()["settings"]["seed"])
    assert max(seeds) >= 2**50


def test_another_spelling_of_the_same_folder_is_no_other_folder(
    ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as Photos for photos on macOS and Windows, which ``resolve`` leaves as they are."""
    content = {name: (photos / name).read_bytes() for name in EVEN + ODD}
    Path("IN").symlink_to("in")
    monkeypatch.setattr(Path, "resolve", lambda self, strict=False: self.absolute())
    for arguments in (["IN"], ["IN/a"], ["out", "--record", "IN/r"], ["out", "--key", "IN/k"]):
        found = ue_bench("protect", "-P", "shuffled", "--device", "cpu", "in", *arguments, "--force")
        assert found.code == 2
    assert {name: (photos / name).read_bytes() for name in tree(photos)} == content


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS"])
def test_a_file_system_without_locks(
    ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="of POSIX systems")

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, error), "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert protect(ue_bench, "shuffled").code == 0
    assert ue_bench("recover", "out.key.safetensors", "out", "back").code == 0
    with files.alone(Path("out").absolute(), Path("cache")):
        found = ue_bench("recover", "out.key.safetensors", "out", "back")
        assert found.code == 0  # another folder
        found = protect(ue_bench, "shuffled")
        assert found.code == 3
        assert "another command is writing into" in found.err
        assert ".lock.soft" in found.err
