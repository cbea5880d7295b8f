"""What readers find in folders: hidden files, links to nothing, loops of links, pointers of Git LFS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ue_bench.contract.plugin import digest_path
from ue_bench.errors import EnvironmentProblem, UserError, ValidationError
from ue_bench.files import check_file, class_folders, visible_files
from ue_bench.grid.data import _stamp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a/c.PNG", "a/notes.txt", "a/deep/d.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(name.encode())
    return tmp_path / "set"


def names(folder: Path, below: bool = True) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in visible_files(folder, {".png"}, below)]


def test_files_come_by_path_and_suffix(folder: Path) -> None:
    assert names(folder) == ["a/c.PNG", "a/deep/d.png", "b.png"]
    assert names(folder, below=False) == ["b.png"]


@pytest.mark.parametrize("name", ["._b.png", ".hidden/x.png", "__MACOSX/b.png", "a/@eaDir/c.png"])
def test_what_systems_put_beside_files_is_left_out(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"no image")

    assert names(folder) == ["a/c.PNG", "a/deep/d.png", "b.png"]


def test_links_to_folders_are_not_followed_and_links_to_files_are(folder: Path) -> None:
    (folder / "a" / "up").symlink_to("..")
    (folder / "e.png").symlink_to("b.png")

    assert names(folder) == ["a/c.PNG", "a/deep/d.png", "b.png", "e.png"]


@pytest.mark.parametrize(
    ("target", "message"), [("../gone.png", "x.png is a link to nothing"), ("x.png", "x.png is a link to itself")]
)
def test_a_link_that_leads_nowhere_is_named(folder: Path, target: str, message: str) -> None:
    (folder / "a" / "x.png").symlink_to(target)

    with pytest.raises(ValidationError, match=message) as caught:
        names(folder)
    assert "a/x.png" in caught.value.hint
    with pytest.raises(ValidationError, match=message):
        check_file(folder / "a" / "x.png")
    with pytest.raises(ValidationError, match=message):
        digest_path(folder / "a" / "x.png")


@pytest.mark.timeout(20)
def test_a_pipe_is_named_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "p.png")

    with pytest.raises(ValidationError, match=r"p\.png is not a file to read"):
        names(folder)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder at") as caught:
        names(tmp_path / "nowhere")
    assert caught.value.exit_code == 2


def test_a_folder_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> object:  # root may read whatever its mode says
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for read in (names, _stamp):
        with pytest.raises(EnvironmentProblem, match=r"cannot read .*deep: Permission denied"):
            read(folder)


def test_class_folders_are_real_and_visible(folder: Path) -> None:
    (folder / "__MACOSX").mkdir()
    (folder / "e\u0301").mkdir()

    assert list(class_folders(folder)) == ["a", "\u00e9"]


@pytest.mark.parametrize(
    ("target", "message"), [("a", "is a link to a folder"), ("gone", "a link to nothing"), ("k", "a link to itself")]
)
def test_a_class_that_is_a_link_is_named(folder: Path, target: str, message: str) -> None:
    (folder / "k").symlink_to(target)

    with pytest.raises(ValidationError, match=f"set/k .*{message}"):
        class_folders(folder)


@pytest.mark.parametrize(
    ("content", "tool"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "Git LFS"),
        ("/annex/objects/MD5E-s5--00.png\n", "git-annex"),
    ],
)
def test_a_pointer_in_the_place_of_a_file_is_named(folder: Path, content: str, tool: str) -> None:
    (folder / "b.png").write_text(content)

    with pytest.raises(ValidationError, match=rf"b\.png is a pointer of {tool}"):
        check_file(folder / "b.png")


class TestStamp:
    def test_changes_with_a_file(self, folder: Path) -> None:
        before = _stamp(folder)
        (folder / "a" / "c.PNG").write_bytes(b"longer than it was")

        assert _stamp(folder) != before

    def test_changes_with_the_file_behind_a_link(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "other.png").write_bytes(b"1")
        (folder / "x.png").symlink_to(tmp_path / "other.png")
        before = _stamp(folder)
        (tmp_path / "other.png").write_bytes(b"12")
        grown = _stamp(folder)
        (tmp_path / "other.png").unlink()

        assert len({str(before), str(grown), str(_stamp(folder))}) == 3

    def test_does_not_follow_loops_of_links(self, folder: Path) -> None:
        (folder / "a" / "up").symlink_to("..")
        (folder / "a" / "self").symlink_to("self")

        assert ["up", "link to a folder"] in _stamp(folder)[1][0][1]
        assert ["self", None] in _stamp(folder)[1][0][1]

    def test_of_what_is_not_there(self, tmp_path: Path) -> None:
        assert _stamp(tmp_path / "gone") == ["gone", None]

    def test_of_folders_and_files_is_what_it_was(self, folder: Path) -> None:
        """Sets that lie in caches stay valid."""
        status = (folder / "b.png").stat()

        assert _stamp(folder)[0] == "set"
        assert _stamp(folder)[1][1] == ["b.png", status.st_size, status.st_mtime_ns]
