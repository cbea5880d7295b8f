from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest

from ue_bench.errors import UserError
from ue_bench.owner import folders


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def names(listing: folders.Listing) -> list[str]:
    return [file.name for file in listing.files]


class TestClassFolders:
    def test_are_listed_by_class_and_path(self, tmp_path: Path) -> None:
        touch(tmp_path, "b/2.png", "b/10.JPG", "a/x/1.png", "a/Ü ber.webp", "b/.hidden.png", ".git/c.png")
        found = folders.scan(tmp_path)
        assert names(found) == ["a/x/1.png", "a/Ü ber.webp", "b/10.JPG", "b/2.png"]
        assert [file.label for file in found.files] == ["a", "a", "b", "b"]
        assert found.classes == ("a", "b")
        assert (found.refused, found.ignored) == ({}, [])

    def test_nothing_is_lost(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/1.png", "a/notes.txt", "a/2.heic", "stray.png", "readme.md")
        found = folders.scan(tmp_path)
        assert found.refused == {"stray.png": "in no class folder", "a/2.heic": ".heic files cannot be read"}
        assert sorted(found.ignored) == ["a/notes.txt", "readme.md"]

    @pytest.mark.skipif(os.name != "posix", reason="pipes and links are of POSIX systems")
    def test_what_is_no_file_is_named_and_never_opened(self, tmp_path: Path) -> None:
        touch(tmp_path / "in", "a/1.png", "a/.hidden/1.png")
        touch(tmp_path / "elsewhere", "2.png")
        os.mkfifo(tmp_path / "in" / "a" / "pipe.png")
        os.mkfifo(tmp_path / "in" / "stray.png")
        (tmp_path / "in" / "a" / "more").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in" / "a" / "loop").symlink_to("..")
        (tmp_path / "in" / "b").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in" / "a" / "3.png").symlink_to(tmp_path / "elsewhere" / "2.png")
        found = folders.scan(tmp_path / "in")
        assert names(found) == ["a/1.png", "a/3.png"]
        assert found.classes == ("a",)
        pipe, link = "not a file but a pipe, a socket or a device", "a link to a folder, which is not followed"
        assert found.refused == {"a/pipe.png": pipe, "stray.png": pipe, "a/more": link, "a/loop": link, "b": link}

    @pytest.mark.skipif(os.name != "posix", reason="links are of POSIX systems")
    def test_links_to_folders_are_no_classes(self, tmp_path: Path) -> None:
        touch(tmp_path / "elsewhere", "1.png")
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=r"no class folders and no labels\.csv, but links, which are not followed"):
            folders.scan(tmp_path / "in")
        assert names(folders.scan(tmp_path / "in", classes_needed=False)) == []
        (tmp_path / "link").symlink_to(touch(tmp_path / "real", "a/1.png"))
        assert names(folders.scan(tmp_path / "link")) == ["a/1.png"]  # what is asked for by name is followed

    @pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="there both are one folder")
    def test_both_forms_of_a_name_are_one_class_of_two_folders(self, tmp_path: Path) -> None:
        composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
        touch(tmp_path, f"{composed}/1.png", f"{decomposed}/2.png")
        found = folders.scan(tmp_path)
        assert sorted(names(found)) == sorted([f"{composed}/1.png", f"{decomposed}/2.png"])
        assert found.classes == (composed,)

    def test_names_in_decomposed_form_are_the_same_class(self, tmp_path: Path) -> None:
        touch(tmp_path, f"{unicodedata.normalize('NFD', 'é')}/1.png")
        [file] = folders.scan(tmp_path).files
        assert file.label == unicodedata.normalize("NFC", "é")
        assert file.path.is_file()

    def test_splits_are_no_classes(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/a/1.png", "test/a/1.png")
        with pytest.raises(UserError, match="holds test and train, which are no classes"):
            folders.scan(tmp_path)
        assert folders.scan(tmp_path / "train").classes == ("a",)
        touch(tmp_path / "flat", "train/1.png", "test/1.png")
        assert folders.scan(tmp_path / "flat").classes == ("test", "train")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_cannot_be_read_is_an_error(self, tmp_path: Path) -> None:
        (touch(tmp_path, "a/x/1.png") / "a" / "x").chmod(0)
        with pytest.raises(UserError, match="cannot read"):
            folders.scan(tmp_path)

    def test_none_at_all(self, tmp_path: Path) -> None:
        touch(tmp_path, "1.png")
        with pytest.raises(UserError, match=r"has no class folders and no labels\.csv"):
            folders.scan(tmp_path)
        found = folders.scan(tmp_path, classes_needed=False)
        assert names(found) == ["1.png"]
        assert found.classes == ("",)
        with pytest.raises(UserError, match="no folder at"):
            folders.scan(tmp_path / "nowhere")


class TestLabels:
    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("labels.csv", "file,class,by\nb.png,10,me\nsub/a.png,9,you\n"),
            ("labels.csv", "\ufeffb.png;10\n./sub/a.png;9\n"),
            ("labels.tsv", "b.png\t10\r\nsub\\a.png\t9\r\n"),
            ("labels.txt", "b.png 10\n\n sub/a.png   9 \n"),
        ],
    )
    def test_of_any_usual_form(self, tmp_path: Path, file: str, text: str) -> None:
        touch(tmp_path / "in", "b.png", "sub/a.png")
        (tmp_path / file).write_text(text, encoding="utf-8")
        found = folders.scan(tmp_path / "in", tmp_path / file)
        assert [(f.name, f.label) for f in found.files] == [("b.png", "10"), ("sub/a.png", "9")]
        assert found.classes == ("9", "10")
        assert found.refused == {}

    def test_are_found_in_a_flat_folder(self, tmp_path: Path) -> None:
        touch(tmp_path, "b c.png", "a.png", "c.png", "notes.md")
        (tmp_path / "labels.csv").write_text("b c.png,dog\na.png,cat\ngone.png,cat\n../out.png,cat\n", encoding="utf-8")
        found = folders.scan(tmp_path)
        assert names(found) == ["b c.png", "a.png"]
        assert found.classes == ("cat", "dog")
        assert found.refused == {
            "c.png": "not named in labels.csv",
            "gone.png": "named in labels.csv, but not there",
            "../out.png": "named in labels.csv, but not there",
        }
        assert found.ignored == ["notes.md"]

    def test_names_match_in_any_composed_form(self, tmp_path: Path) -> None:
        touch(tmp_path, unicodedata.normalize("NFD", "é.png"))
        (tmp_path / "labels.csv").write_text(unicodedata.normalize("NFC", "é.png,1\n"), encoding="utf-8")
        [file] = folders.scan(tmp_path).files
        assert file.path.is_file()

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "it names no file"),
            ("a.png\n", "no class in"),
            ("a.png,\n", "no class in"),
            ("a.png,1\nb.png,1\na.png,2\n", "names a.png 2 times"),
        ],
    )
    def test_that_cannot_be_read(self, tmp_path: Path, text: str, reason: str) -> None:
        touch(tmp_path, "a.png")
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=reason):
            folders.scan(tmp_path)

    @pytest.mark.parametrize(
        ("file", "text", "written"),
        [
            ("labels.csv", 'file,class\nb.jpg,"x, y"\ngone.png,c\na.gif,z\n', 'file,class\nb.png,"x, y"\na.png,z\n'),
            ("labels.txt", "b.jpg x\na.gif z\n", "b.png x\na.png z\n"),
        ],
    )
    def test_are_written_with_other_names(self, tmp_path: Path, file: str, text: str, written: str) -> None:
        touch(tmp_path, "b.jpg", "a.gif")
        (tmp_path / file).write_text(text, encoding="utf-8")
        found = folders.scan(tmp_path)
        assert found.table is not None
        assert found.table.renamed(folders.renamed(names(found), ".png")) == written


class TestNewNames:
    def test_replace_the_suffix(self) -> None:
        assert folders.renamed(["a/x.jpg", "b.PNG", "c.tar.gif", "v1.2/d.webp"], ".png") == {
            "a/x.jpg": "a/x.png", "b.PNG": "b.PNG", "c.tar.gif": "c.tar.png", "v1.2/d.webp": "v1.2/d.png",
        }  # fmt: skip

    def test_never_collide(self) -> None:
        given = ["x.jpg", "x.png", "x.gif", "X.bmp", "x.jpg.png", "y.jpg", "y.JPEG", "sub/x.jpg"]
        found = folders.renamed(given, ".png")
        assert found["x.png"] == "x.png"
        assert found["x.jpg.png"] == "x.jpg.png"
        assert found["x.jpg"] == "x.jpg.png.png"
        assert found["y.jpg"] == "y.jpg.png"
        assert found["sub/x.jpg"] == "sub/x.png"
        assert len({name.casefold() for name in found.values()}) == len(given)
        assert list(found) == given
