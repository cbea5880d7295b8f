"""``new``: what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path

from .conftest import Command


def test_files_go_to_stdout_and_what_is_next_to_stderr(ue_bench: Command, tmp_path: Path) -> None:
    found = ue_bench("new", "dataset", "my-images")
    assert found.code == 0
    written = [tmp_path / line for line in found.out.splitlines()]
    assert all(path.is_file() for path in written)
    assert tmp_path / "ue-bench-my-images/ue_bench_my_images/plugin.py" in written
    assert found.err == "ue-bench: next: pip install -e ue-bench-my-images && ue-bench check my-images\n"


def test_a_folder_with_a_space_is_quoted(ue_bench: Command, tmp_path: Path) -> None:
    found = ue_bench("new", "victim", "mine", "my folder", "--smallest")
    assert sorted(p.name for p in (tmp_path / "my folder").iterdir()) == ["pyproject.toml", "ue_bench_mine.py"]
    assert "pip install -e 'my folder'" in found.err


def test_mistakes_are_one_line_and_a_hint(ue_bench: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, code, line in (
        (("protektor", "x"), 2, "nothing called 'protektor' to make\n  hint: did you mean protector?"),
        (("protector", "zwölf"), 2, "'zwölf' cannot be the name of a protector\n  hint: use at most 60 of a-z"),
        (("protector", "mine", "file"), 2, "file is there already\n  hint: give another folder"),
        (("protector", "mine", "file/new"), 3, "Not a directory\n  hint: give a folder that you may write to"),
    ):
        found = ue_bench("new", *words)
        assert (found.code, found.out) == (code, "")
        assert line in found.err
        assert "Traceback" not in found.err
