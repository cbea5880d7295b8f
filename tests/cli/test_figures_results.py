"""``figures board`` and ``figures curves``: plots of results that are there."""

from __future__ import annotations

import json
import re
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from leaderboard.factory import result
from leaderboard.folders import two_boards, write_results
from PIL import Image

from ue_bench.store.results import ResultStore
from ue_bench.store.schema import Curve, as_json, json_text

from .conftest import Command

pytest.importorskip("matplotlib")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of a board with results, and with curves of two seeds under vanilla."""
    out = two_boards(tmp_path / "boards") / "demo"
    write_results(out, [result("none", "vanilla", 88.0, seed=1)])
    for r in ResultStore(out).results():
        if r.countermeasure == "vanilla" and r.protector != "lsp":
            last = r.metrics.accuracy_last
            curve = Curve(
                key=r.key, epoch=[1, 2], accuracy_test=[last / 2, last], accuracy_train=[50, 60], loss_train=[1, 0.5]
            )
            path = out / "curves" / f"{r.key}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json_text(as_json(curve)), encoding="utf-8")
    return out


def texts(path: Path) -> str:
    """The words of an SVG file: it draws letters as paths, and has them in comments."""
    return "\n".join(re.findall("<!-- (.*?) -->", path.read_text(encoding="utf-8")))


def test_a_board_shows_all_rows_and_columns(ue_bench: Command, out: Path, tmp_path: Path) -> None:
    drawn = ue_bench("figures", "board", "--results", str(out), "--out", "board.svg")
    assert drawn.code == 0, drawn.err
    assert (drawn.out, drawn.err) == ("board.svg\n", "ue-bench: 4 rows, 13 columns\n")
    words = texts(tmp_path / "board.svg")
    for name in ("none", "em", "lsp", "deephiding[mode=sample]", "vanilla", "[quality=10]", "20.0", "Linf 8/255"):
        assert name in words
    again = ue_bench("figures", "board", "--results", str(out), "--out", "again.svg")
    assert again.code == 0
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "board.svg").read_bytes()


def test_a_board_is_a_picture_as_wide_as_a_page(ue_bench: Command, out: Path, tmp_path: Path) -> None:
    assert ue_bench("figures", "board", "--results", str(out), "--out", "board.png").code == 0
    with Image.open(tmp_path / "board.png") as image:
        assert image.format == "PNG"
        assert image.width >= 2 * 830  # sharp on a display of twice the density


def test_a_damaged_curve_or_one_of_another_cell_is_not_drawn(ue_bench: Command, out: Path) -> None:
    first, second, *_ = sorted((out / "curves").glob("*.json"))
    content = json.loads(first.read_text(encoding="utf-8"))
    second.write_text(json.dumps(content), encoding="utf-8")
    first.write_text(json.dumps(content | {"epoch": content["epoch"][:-1]}), encoding="utf-8")
    store = ResultStore(out)
    assert store.curve(first.stem) is store.curve(second.stem) is None
    drawn = ue_bench("figures", "curves", "--results", str(out), "--out", "c.svg")
    assert "Traceback" not in drawn.err


def test_curves_are_those_of_the_cells_that_are_named(ue_bench: Command, out: Path, tmp_path: Path) -> None:
    drawn = ue_bench("figures", "curves", "--results", str(out), "-P", "none", "-P", "deephiding", "--out", "c.svg")
    assert drawn.code == 0, drawn.err
    assert "2 rows under 1 countermeasures; n = 1 to 2" in drawn.err
    words = texts(tmp_path / "c.svg")
    assert "deephiding[mode=sample]" in words
    assert "vanilla" in words
    assert "\nem\n" not in words
    every = ue_bench("figures", "curves", "--results", str(out), "--out", "all.pdf")
    assert "3 rows" in every.err  # lsp has none


def test_curves_of_a_board_with_another_plain_column(ue_bench: Command, out: Path, tmp_path: Path) -> None:
    text = (files("ue_bench.boards") / "demo.toml").read_text(encoding="utf-8")
    (tmp_path / "grey.toml").write_text(f"plain = 'gray'\n{text}", encoding="utf-8")
    grey = {r.key for r in ResultStore(out).results() if r.countermeasure == "gray"}
    for key in grey:
        curve = Curve(key=key, epoch=[1, 2], accuracy_test=[9, 9], accuracy_train=[9, 9], loss_train=[1, 1])
        (out / "curves" / f"{key}.json").write_text(json_text(as_json(curve)), encoding="utf-8")
    drawn = ue_bench("figures", "curves", "--board", "./grey.toml", "--results", str(out), "--out", "c.svg")
    assert drawn.code == 0, drawn.err
    words = texts(tmp_path / "c.svg").split("\n")
    assert ("gray" in words, "vanilla" in words) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["board", "--out", "x.jpg"], 2, "--out x.jpg does not end in .png or .svg or .pdf"),
        (["board", "--results", "nowhere", "--out", "x.png"], 5, "no results in nowhere"),
        (["board", "--panel", "7", "--out", "x.png"], 2, "there is no table 7, only 1"),
        (["curves", "-P", "ar", "--out", "x.png"], 5, "no result of ar"),
        (["curves", "-P", "zzz", "--out", "x.png"], 2, "no protector 'zzz'"),
        (["curves", "-P", "lsp", "--out", "x.png"], 5, "no curve of these cells in "),
    ],
)
def test_errors_are_one_line_with_a_hint(
    ue_bench: Command, out: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    where = [] if "--results" in arguments else ["--results", str(out)]
    found = ue_bench("figures", *arguments, *where)
    first, hint = found.err.splitlines()
    assert found.code == code
    assert first.startswith(f"ue-bench: {said}")
    assert hint.startswith("  hint: ")
    assert not (tmp_path / "x.png").exists()


def test_without_matplotlib(ue_bench: Command, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = ue_bench("figures", "board", "--results", str(out), "--out", "x.png")
    assert (found.code, found.err) == (
        3,
        "ue-bench: plots need matplotlib\n  hint: pip install 'ue-bench[figures]'\n",
    )
