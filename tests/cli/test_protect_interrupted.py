"""``ue-bench protect`` that ends early: killed, interrupted, or stopped by the disk."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import tree

from ue_bench import machine
from ue_bench.owner import files, recording

from . import invertible
from .conftest import Command
from .helpers import load, random_image, write
from .protecting import NEW_NAMES, protect

pytestmark = pytest.mark.usefixtures("reversible")


class TestInterrupted:
    @pytest.fixture
    def interrupted(self, ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """``out`` after Ctrl-C at the fourth file."""
        write_file, count = files.write, 0

        def write_some(path: Path, content: bytes) -> None:
            nonlocal count
            count += path.suffix == ".png"
            if count == 4:
                raise KeyboardInterrupt
            write_file(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(files, "write", write_some)
            patched.setattr(machine, "usable_cores", lambda: 1)
            found = protect(ue_bench, str(photos), "out")
        assert found.code == 130
        assert "run the same command again to continue" in found.err
        return Path("out").absolute()

    def test_continues_where_it_was(self, ue_bench: Command, photos: Path, interrupted: Path) -> None:
        seed = json.loads(Path("out.record.json").read_text(encoding="utf-8"))["settings"]["seed"]
        assert 0 < len(tree(interrupted)) < 5
        assert not Path("out.key.safetensors").exists()
        stamps = {name: (interrupted / name).stat().st_mtime_ns for name in tree(interrupted)}
        invertible.Shuffled.calls.clear()
        assert protect(ue_bench, str(photos), "out").code == 1
        assert invertible.Shuffled.calls == [(1, 8, 10, 3), (1, 9, 12, 3)]  # the first size was protected before
        assert {name: (interrupted / name).stat().st_mtime_ns for name in stamps} == stamps
        protect(ue_bench, str(photos), "straight", "--seed", str(seed))
        for name in NEW_NAMES:
            assert (interrupted / name).read_bytes() == (Path("straight") / name).read_bytes()
        assert Path("out.key.safetensors").read_bytes() == Path("straight.key.safetensors").read_bytes()

    def test_leaves_nothing_in_the_cache(self, ue_bench: Command, photos: Path, interrupted: Path) -> None:
        unfinished = Path("cache") / "unfinished"
        assert any(unfinished.iterdir())
        protect(ue_bench, str(photos), "out")
        assert not any(unfinished.iterdir())
        assert [p for p in (Path("cache") / "scratch").iterdir() if p.is_dir()] == []

    @pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX systems")
    @pytest.mark.parametrize("at", ["cat/a b.png", "out.key.safetensors", "out.record.json"])
    def test_continues_when_it_was_killed(self, ue_bench: Command, photos: Path, tmp_path: Path, at: str) -> None:
        """Killed with a file half written, a process has no way to clean up."""
        name = at.rpartition("/")[2]
        child = os.fork()
        if child == 0:
            replace, seen = Path.replace, 0

            def killed(self: Path, target: Path) -> Path:
                nonlocal seen
                seen += target.name == name
                if target.name == name and seen == (2 if name == "out.record.json" else 1):
                    self.write_bytes(self.read_bytes()[:20])
                    os.kill(os.getpid(), signal.SIGKILL)
                return replace(self, target)

            Path.replace = killed  # type: ignore[method-assign, assignment]  # in a child, which is killed
            machine.usable_cores = lambda: 1
            protect(ue_bench, str(photos), "out")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert [p.name for p in tmp_path.rglob("*.new")] == [f"{name}.new"]
        assert protect(ue_bench, str(photos), "out").code == 1
        assert list(tmp_path.rglob("*.new")) == []
        seed = json.loads(Path("out.record.json").read_text(encoding="utf-8"))["settings"]["seed"]
        protect(ue_bench, str(photos), "straight", "--seed", str(seed))
        for name in NEW_NAMES:
            assert (Path("out") / name).read_bytes() == (Path("straight") / name).read_bytes()
        assert Path("out.key.safetensors").read_bytes() == Path("straight.key.safetensors").read_bytes()

    def test_what_changed_meanwhile_is_not_overwritten(
        self, ue_bench: Command, photos: Path, interrupted: Path
    ) -> None:
        write(interrupted / "cat" / "1.png", random_image())
        found = protect(ue_bench, str(photos), "out")
        assert found.code == 1
        assert "cat/1.png exists already and is something else" in found.err
        assert np.array_equal(load(interrupted / "cat" / "1.png"), random_image())
        assert protect(ue_bench, str(photos), "out", "--force").code == 1
        assert load(interrupted / "cat" / "1.png").shape == (8, 8, 3)

    def test_images_that_change_meanwhile_are_noticed(
        self, ue_bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write(tmp_path / "in" / "a" / "1.png", random_image())
        begin = recording.begin

        def begin_late(*arguments: Any) -> Any:
            write(file, random_image(seed=1))
            return begin(*arguments)

        monkeypatch.setattr(recording, "begin", begin_late)
        found = protect(ue_bench, "in", "out")
        assert found.code == 2
        assert "a/1.png: changed while the command ran" in found.err
        assert tree(tmp_path / "out") == []

    def test_other_images_are_refused(self, ue_bench: Command, photos: Path, interrupted: Path) -> None:
        write(photos / "cat" / "new.png", random_image())
        assert "holds other images" in protect(ue_bench, str(photos), "out").err


def test_a_folder_that_cannot_be_written(ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    found = protect(ue_bench, str(photos), "out")
    assert found.code == 3
    assert "cannot write" in found.err
    assert "Permission denied" in found.err


def test_a_full_disk_is_one_line_and_the_command_continues(
    ue_bench: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "猫.png":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        found = protect(ue_bench, str(photos), "out")
    assert found.code == 3
    assert found.err.splitlines()[-2].endswith("猫.png: No space left on device")
    assert not list(Path().rglob("*.new"))
    assert protect(ue_bench, str(photos), "out").code == 1
    assert (Path("out") / "dog" / "猫.png").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_source(ue_bench: Command, photos: Path) -> None:
    for path in [photos, *photos.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert protect(ue_bench, str(photos), "out").code == 1
    finally:
        for path in [photos, *photos.rglob("*")]:
            path.chmod(0o755)
