"""A board that is too large for one page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ue_bench.leaderboard import build, parts
from ue_bench.leaderboard.statistics import panels
from ue_bench.store.schema import Result

from .factory import BOARD, grid

ROWS = {"none": (90.0, 80.0), **{f"p{i}": (10.0 + i, 20.0 + i) for i in range(9)}}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """Ten rows of four results each, where a page holds ten results: two rows."""
    monkeypatch.setattr(parts, "MOST_RESULTS", 10)
    return grid(ROWS) + grid(ROWS, seed=1)


def data(text: str) -> dict[str, object]:
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.S)
    loaded = json.loads(found)
    assert isinstance(loaded, dict)
    return loaded


def test_every_row_is_on_one_page_and_the_overview_leads_there(results: list[Result]) -> None:
    texts = parts.pages(BOARD, panels(results, BOARD), None, evasion=False)

    assert list(texts) == ["index.html", *(f"rows-{i}.html" for i in range(1, 6))]
    for protector in ROWS:
        [home] = [name for name, text in texts.items() if f'<tr data-name="{protector}">' in text]
        assert f'<a href="{home}">{protector}<wbr></a>' in texts["index.html"]
    assert '<a href="rows-3.html">rows 5–6</a>' in texts["index.html"]


def test_pages_know_their_own_cells_and_the_ranks_among_all_rows(results: list[Result]) -> None:
    texts = parts.pages(BOARD, panels(results, BOARD), None, evasion=False)
    [whole] = panels(results, BOARD)

    found = data(texts["rows-4.html"])

    assert isinstance(found["cells"], dict)
    assert len(found["cells"]) == 4
    assert isinstance(found["panels"], list)
    ranks = {row["name"]: row["rank"] for panel in found["panels"] for row in panel["rows"]}
    assert ranks == {row.protector: whole.ranks[row.protector].text() for row in whole.rows if row.protector in ranks}


def test_pages_lead_to_one_another_and_leave_to_the_overview_what_is_of_all_rows(results: list[Result]) -> None:
    texts = parts.pages(BOARD, panels(results, BOARD), None, evasion=True)
    middle = texts["rows-2.html"]

    for link in ("index.html#panel-1", "rows-1.html", "rows-3.html", "evasion.html"):
        assert f'href="{link}"' in middle
    assert "rows-4.html" not in middle
    assert "Reproduce this board" not in middle
    assert "Published (" not in middle
    assert "--protector" in texts["index.html"]
    assert 'id="panel-1"' in texts["index.html"]


def test_a_small_board_is_one_page() -> None:
    assert list(parts.pages(BOARD, panels(grid(ROWS), BOARD), None, evasion=False)) == ["index.html"]


def test_pages_of_rows_that_are_gone_are_removed_and_named(results: list[Result], tmp_path: Path) -> None:
    build.build(results, BOARD, tmp_path)
    assert build.check(results, BOARD, tmp_path) == []
    fewer = [r for r in results if r.protector in ("none", "p0")]  # eight results

    assert "rows-5.html is a page of no rows" in build.check(fewer, BOARD, tmp_path)
    build.build(fewer, BOARD, tmp_path)

    assert [path.name for path in tmp_path.glob("rows-*.html")] == []
    assert build.check(fewer, BOARD, tmp_path) == []
