"""Files and checkpoints that are whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ue_bench.atomic import (
    claim_checkpoint,
    kept_images,
    load_arrays,
    load_checkpoint,
    publish,
    replacing,
    save_arrays,
    save_checkpoint,
)
from ue_bench.atomic import write_atomically as write
from ue_bench.errors import Unwritable, UserError, disk_problem

STATE: dict[str, Any] = {"weights": torch.arange(5.0), "step": 3, "random": torch.get_rng_state()}


def test_a_checkpoint_survives(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "state.pt", STATE)
    found = load_checkpoint(tmp_path / "state.pt")
    assert found is not None
    assert (found["step"], found["weights"].tolist()) == (3, [0, 1, 2, 3, 4])
    assert torch.equal(found["random"], STATE["random"])
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_there_may_be_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_checkpoint(tmp_path / "state.pt") is None
    assert load_arrays(tmp_path / "part.npz") is None
    assert caplog.text == ""


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    """Replace a checkpoint with something that torch and NumPy would load."""
    torch.save({"other": 1}, path)


@pytest.mark.parametrize("harm", [cut, empty, flip, foreign])
@pytest.mark.parametrize("kind", ["state", "arrays"])
def test_a_checkpoint_that_is_not_what_was_written_is_not_used(
    tmp_path: Path, harm: Callable[[Path], None], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.npz"
    if kind == "state":
        save_checkpoint(path, STATE)
    else:
        save_arrays(path, {"a": np.arange(100)})
    harm(path)
    assert (load_checkpoint if kind == "state" else load_arrays)(path) is None
    assert f"{path} is not used" in caplog.text
    assert not path.exists()


def test_a_checkpoint_of_another_work_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine, theirs = (tmp_path / "unfinished" / key / "state.pt" for key in ("a", "b"))
    save_checkpoint(theirs, STATE)
    mine.parent.mkdir()
    shutil.copy(theirs, mine)
    assert load_checkpoint(mine) is None
    assert "of another training" in caplog.text
    assert load_checkpoint(theirs) is not None


def test_a_folder_that_its_user_moves_keeps_its_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "before" / "state.pt", STATE)
    (tmp_path / "before").rename(tmp_path / "after")
    assert load_checkpoint(tmp_path / "after" / "state.pt") is not None


def test_a_part_of_long_work_is_made_once_or_again_when_damaged(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> np.ndarray[Any, Any]:
        made.append(1)
        return np.full((2, 3, 3, 3), 7, np.uint8)

    path = tmp_path / "0-2.npz"
    for _ in range(2):
        assert (kept_images(path, make) == 7).all()
    assert len(made) == 1
    flip(path)
    assert (kept_images(path, make) == 7).all()
    assert len(made) == 2


def test_a_folder_is_that_of_one_training(tmp_path: Path) -> None:
    claim_checkpoint(tmp_path / "new.unfinished", {"gamma": 1})
    claim_checkpoint(tmp_path / "new.unfinished", {"gamma": 1})  # continued
    with pytest.raises(UserError, match=r"new\.unfinished holds an unfinished training with other settings"):
        claim_checkpoint(tmp_path / "new.unfinished", {"gamma": 2})


@pytest.mark.parametrize("content", ["Käse\n", b"\x00\xff"])
def test_text_and_bytes_are_written_as_they_are(tmp_path: Path, content: str | bytes) -> None:
    write(tmp_path / "new folder" / "x", content)
    found = (tmp_path / "new folder" / "x").read_bytes()
    assert found == (content.encode() if isinstance(content, str) else content)


def test_half_of_a_character_does_not_stop_writing(tmp_path: Path) -> None:
    write(tmp_path / "x", "name \udcff")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "name \\udcff"


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    def half() -> None:
        with replacing(tmp_path / "x.png") as new:
            assert new.suffix == ""  # nobody who looks for images finds half of one
            new.write_text("half", encoding="utf-8")
            raise ValueError("no luck")

    write(tmp_path / "x.png", "old")
    with pytest.raises(ValueError, match="no luck"):
        half()
    assert (tmp_path / "x.png").read_text(encoding="utf-8") == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("how", ["write", "publish", "mkdir"])
def test_what_may_not_be_written_is_told_from_other_files(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    path = tmp_path / "deep" / "x.json"
    if how != "mkdir":
        path.parent.mkdir()
    monkeypatch.setattr(Path, {"write": "open", "publish": "mkdir", "mkdir": "mkdir"}[how], denied)
    with pytest.raises(Unwritable) as caught:
        write(path, "1") if how != "publish" else publish(path, lambda folder: None)
    assert caught.value.filename == str(path)  # and not that of a temporary file
    problem = disk_problem(caught.value)
    assert problem is not None
    assert str(problem).startswith(f"Permission denied ({path})")
    monkeypatch.undo()
    for other in ("/elsewhere/key", str(tmp_path / "read.json")):
        with pytest.raises(PermissionError) as caught_other, replacing(tmp_path / "y.json"):
            raise PermissionError(errno.EACCES, "Permission denied", other)
        assert not isinstance(caught_other.value, Unwritable)
        assert caught_other.value.filename == other
