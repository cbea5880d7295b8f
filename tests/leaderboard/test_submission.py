"""Results from elsewhere: added, reproduced, taken back, and never by halves."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ue_bench import load_results
from ue_bench.errors import ValidationError
from ue_bench.keys import digest
from ue_bench.leaderboard.badges import REPORTED
from ue_bench.leaderboard.front_page import BEGIN, END
from ue_bench.leaderboard.submission import FILE, badges_in, carry, submissions
from ue_bench.store.merging import merge
from ue_bench.store.results import ResultStore
from ue_bench.store.schema import Result, record_text

from .factory import evaded
from .folders import write_evasion
from .forging import (
    Run,
    changed,
    on_board,
    plain,
)


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    for name in ("vanilla", "gray", "at"):
        (folder / f"{name}.json").write_text(json.dumps(plain(countermeasure=name)), encoding="utf-8")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_submitting_adds_and_undoing_takes_back(run: Run, board: Path, incoming: Path) -> None:
    before = content(board)
    code, _, err = run("submit", *on_board(incoming, "--author", "A. Person", out=board))
    assert (code, "3 results added, 0 reproduced" in err) == (0, True)
    added = [r for r in ResultStore(board).results() if r.author == "A. Person"]
    assert len(added) == 3
    assert {r.key for r in added} == {
        json.loads(path.read_text(encoding="utf-8"))["key"] for path in incoming.iterdir()
    }
    assert run("check", *on_board(out=board))[0] == 0
    assert "self-reported" in (board / "README.md").read_text(encoding="utf-8")

    assert run("submit", *on_board("--undo", out=board))[0] == 0
    assert content(board) == before
    assert run("submit", *on_board("--undo", out=board))[0] == 2


def test_whose_results_are_is_known_wherever_they_go(run: Run, board: Path, incoming: Path, tmp_path: Path) -> None:
    run("submit", *on_board(incoming, "--author", "A. Person", out=board))
    worst = load_results(board, "cifar10-micro").worst()
    assert set(worst.loc[worst.protector == "em[preset=micro]", "source"]) == {REPORTED}

    merged = tmp_path / "merged"
    assert merge([board], merged, carry).added == 6
    assert badges_in(merged) == badges_in(board) != {}
    assert all((merged / "results" / name).is_file() for one in submissions(merged) for name in one.added.values())
    assert merge([board], merged, carry).known == 6  # and nothing is recorded again
    assert len(submissions(merged)) == 1

    # What the target measured itself stays its own.
    other = tmp_path / "other"
    for place in next(iter(submissions(board))).added.values():
        (other / "results" / place).parent.mkdir(parents=True, exist_ok=True)
        (other / "results" / place).write_bytes((board / "results" / place).read_bytes())
    merge([board], other, carry)
    assert badges_in(other) == {}


@pytest.mark.parametrize("place", ["../victim.json", "./x.json", "a/../x.json", "a/.json"])
def test_a_list_of_submissions_names_files_of_its_board_alone(board: Path, place: str) -> None:
    (board / FILE).write_text(json.dumps([{"received": "now", "added": {"0" * 64: place}}]), encoding="utf-8")
    with pytest.raises(ValidationError, match="no list of submissions"):
        submissions(board)


def test_one_refused_file_keeps_all_out(run: Run, board: Path, incoming: Path) -> None:
    before = content(board)
    (incoming / "bad.json").write_text(changed(finished="9999-01-01T00:00:00+00:00"), encoding="utf-8")
    assert run("submit", *on_board(incoming, out=board))[0] == 4
    assert content(board) == before


def test_another_author_reproduces_and_the_same_one_does_not(run: Run, board: Path, incoming: Path) -> None:
    assert run("submit", *on_board(incoming, "--author", "A. Person", out=board))[0] == 0
    again = incoming / "vanilla.json"
    assert run("submit", *on_board(again, "--author", "A. Person", out=board))[0] == 4
    assert run("submit", *on_board(again, out=board))[0] == 4
    code, _, err = run("submit", *on_board(again, "--author", "B. Other", out=board))
    assert (code, "is a copy of the result that the board has" in err) == (4, True)
    for path in (again, incoming / "gray.json"):
        measured_again(path)
    code, _, err = run("submit", *on_board(again, incoming / "gray.json", "--author", "B. Other", out=board))
    assert (code, "0 results added, 2 reproduced" in err) == (0, True)
    assert len(submissions(board)) == 2
    assert "reproduced (2 of 3 results)" in (board / "README.md").read_text(encoding="utf-8")


def measured_again(path: Path) -> None:
    """Write the result of another run of that cell, which ended in the same numbers."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["finished"] = "2026-01-01T00:00:00+00:00"
    fields["cost"]["train_seconds"] += 1.5
    path.write_text(json.dumps(fields), encoding="utf-8")


@pytest.mark.parametrize("name", ["finished", "cost"])
def test_a_copy_does_not_reproduce_what_the_board_measured(run: Run, board: Path, tmp_path: Path, name: str) -> None:
    [path] = (board / "results" / "none").glob("gray-*.json")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    measured_again(copy)
    fields = json.loads(copy.read_text(encoding="utf-8"))
    fields[name] = json.loads(path.read_text(encoding="utf-8"))[name]
    copy.write_text(json.dumps(fields), encoding="utf-8")
    code, _, err = run("submit", *on_board(copy, "--author", "A. Person", out=board))
    assert (code, "is a copy of the result" in err) == (4, True)


def test_a_damaged_list_of_submissions_stops_everything(run: Run, board: Path, incoming: Path) -> None:
    (board / FILE).write_text('[{"received": "", "added": {"' + "0" * 32 + '": "../../x.json"}}]', encoding="utf-8")
    for arguments in (("submit", *on_board("--undo", out=board)), ("build", *on_board(out=board))):
        code, _, err = run(*arguments)
        assert code == 4
        assert "is no list of submissions" in err


@pytest.mark.parametrize(("option", "value"), [("--author", "=1+1"), ("--link", "http://insecure.example")])
def test_authors_and_links_are_checked_before_anything_is_written(
    run: Run, board: Path, incoming: Path, option: str, value: str
) -> None:
    before = content(board)
    assert run("submit", *on_board(incoming, option, value, out=board))[0] == 4
    assert content(board) == before


def test_a_submission_is_of_one_author(run: Run, board: Path, incoming: Path) -> None:
    before = content(board)
    first, *_ = sorted(incoming.iterdir())
    first.write_text(
        json.dumps(json.loads(first.read_text(encoding="utf-8")) | {"author": "B. Other"}), encoding="utf-8"
    )
    code, _, err = run("submit", *on_board(incoming, "--author", "A. Person", out=board))
    assert (code, "the results are of several authors" in err) == (4, True)
    assert content(board) == before


def test_what_is_too_long_with_its_origin_is_refused(run: Run, board: Path, incoming: Path) -> None:
    before = content(board)
    link = f"https://example.org/{'a' * 170}"
    for path in incoming.iterdir():
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["environment"]["device"] = "Ω" * 190  # which alone fits
        path.write_text(json.dumps(fields, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    code, _, err = run("submit", *on_board(incoming, "--author", "A" * 100, "--link", link, out=board))
    assert (code, "is longer than 2,048 bytes with its author and link" in err) == (4, True)
    assert content(board) == before


def test_nothing_cannot_be_submitted(run: Run, board: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("submit", *on_board(tmp_path / "empty", out=board))[0] == 2


def test_two_numbers_for_one_cell_have_no_silent_winner(run: Run, board: Path) -> None:
    [path] = (board / "results" / "none").glob("gray-*.json")
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["metrics"] |= {"accuracy_last": 99.0, "accuracy_peak": 99.0}
    twin = path.with_name(f"zz-{fields['key'][:16]}.json")
    twin.write_text(record_text(Result.model_validate(fields)), encoding="utf-8")
    code, _, err = run("build", *on_board(out=board))
    assert code == 4
    assert "have other numbers" in err


def test_a_result_of_other_code_does_not_win_by_its_date(run: Run, board: Path) -> None:
    [path] = (board / "results" / "none").glob("gray-*.json")
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["metrics"] |= {"accuracy_last": 1.0, "accuracy_peak": 1.0}
    fields["cell"]["protector"]["revision"] = 99
    fields |= {"key": digest(fields["cell"]), "finished": "9999-01-01T00:00:00+00:00"}
    path.with_name(f"zz-{fields['key'][:16]}.json").write_text(record_text(Result.model_validate(fields)), "utf-8")
    assert run("build", *on_board(out=board))[0] == 0
    assert "| `none` (reference)" in (board / "README.md").read_text(encoding="utf-8")
    lines = (board / "leaderboard.csv").read_text(encoding="utf-8").splitlines()
    assert any(",gray,True,1,0,69." in line for line in lines)


def test_a_page_keeps_its_line_ends_permissions_and_link(run: Run, board: Path, tmp_path: Path) -> None:
    page, link = tmp_path / "page.md", tmp_path / "README.md"
    marks = f"<b>\r\n{BEGIN} -->\r\nstale\r\n{END}\r\nend é\r\n"
    page.write_bytes(marks.encode())
    page.chmod(0o664)
    link.symlink_to(page)
    code, _, err = run("summary", *on_board("--into", link, out=board))
    assert code == 0, err
    written = page.read_bytes()
    assert link.is_symlink()
    assert stat.S_IMODE(page.stat().st_mode) == 0o664
    assert written.count(b"\n") == written.count(b"\r\n") > 5
    assert written.endswith("end é\r\n".encode())
    assert b"stale" not in written

    page.write_bytes(b"\xff" + written)
    code, _, err = run("summary", *on_board("--into", link, out=board))
    assert (code, "is not text in UTF-8" in err) == (2, True), err


def test_there_is_no_summary_without_trained_cells(run: Run, tmp_path: Path) -> None:
    write_evasion(tmp_path / "cifar10-micro", evaded())
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN} -->\nold\n{END}\n", encoding="utf-8")
    code, _, _ = run("summary", *on_board("--into", page, out=tmp_path / "cifar10-micro"))
    assert code == 5
    assert "old" in page.read_text(encoding="utf-8")
