from __future__ import annotations

from pathlib import Path

import pytest

from ue_bench.catalogue.registry import registry
from ue_bench.errors import UserError
from ue_bench.leaderboard.comparison import Comparison
from ue_bench.leaderboard.printed import COSINES, TITLES, table
from ue_bench.leaderboard.published import deephiding
from ue_bench.leaderboard.statistics import Estimate

# Means of the 13 columns as the paper prints them, by row; two are not the mean of their row, which is here instead.
PRINTED = {
    "table4": [88.17, 38.93, 29.67, 88.306, 27.54, 16.73, 18.56, 16.49, 13.97, 16.31],
    "tableA": [33.83, 27.54, 32.51, 27.61, 18.75, 16.31, 16.46, 19.03],
    "tableB": [28.02, 27.54, 34.03, 34.20, 16.68, 16.31, 18.545, 17.40],
    "tableC": [28.66, 50.29, 27.54, 39.86, 17.01, 17.98, 16.31, 20.68],
    "tableD": [14.69, 13.97, 16.49, 16.31, 76.04, 88.38, 29.67, 27.54],
    "tableH": [70.38, 55.78],
    "tableK": [87.78, 86.84, 16.31],
}


@pytest.mark.parametrize("name", PRINTED)
def test_means_are_the_printed_ones(name: str) -> None:
    assert sorted(row.mean for row in table(name).rows) == pytest.approx(sorted(PRINTED[name]), abs=0.0051)
    assert {len(row.values) for row in table(name).rows} == {13}


@pytest.mark.parametrize("name", TITLES)
def test_every_row_is_a_protector(name: str, tmp_path: Path) -> None:
    """Two rows of a table are two protectors, and columns are countermeasures."""
    found = table(name)
    photos = tmp_path / "photos"
    photos.mkdir()
    texts = [row.selector(7, str(photos)) for row in found.rows]
    assert len({text for text in texts if text}) == len(found.rows)
    for text in texts:
        assert text is not None
        [plugin] = registry().resolve("protector", text)
        assert ("retrain=true,train_steps=7" in plugin.selector) is (
            "{steps}" in "".join(row.protector for row in found.rows if row.selector(7, str(photos)) == text)
        )
    if found.columns != COSINES:
        columns = registry().resolve("countermeasure", found.columns)
        assert tuple(c.selector for c in columns) == found.columns
    assert all(set(row.values) == set(found.columns) for row in found.rows)


def test_default_rows_are_those_of_table_1() -> None:
    main = deephiding("cifar10")
    assert main is not None
    in_print = {row.protector: row.accuracies for row in main.rows}
    rows = {row.protector: row.values for row in table("tableD").rows}
    assert rows["deephiding"] == in_print["deephiding"]
    assert rows["deephiding[mode=sample]"] == in_print["deephiding[mode=sample]"]
    assert table("tableK").rows[0].values == in_print["none"]


def test_what_a_table_needs() -> None:
    assert table("tableD").natural
    assert not table("tableD").trains
    assert table("tableA").trains
    assert not table("tableA").natural
    photographs = next(row for row in table("tableD").rows if "{natural}" in row.protector)
    assert photographs.selector(5, None) is None
    assert photographs.selector(5, "here") == "deephiding[hidden=natural,hidden_images=here]"


def test_an_unknown_table_is_a_mistake() -> None:
    with pytest.raises(UserError, match="no table 'tableX'"):
        table("tableX")


def test_a_comparison_averages_complete_rows_only() -> None:
    found = table("tableK")
    whole = {c: Estimate(50.0 + i, 3, 1.5) for i, c in enumerate(found.columns)}
    part = dict(list(whole.items())[:2])
    names = [row.label for row in found.rows]
    done = Comparison(found, "Measured: here.", dict.fromkeys(names[:2], "none"), {names[0]: whole, names[1]: part})
    assert done.mean(names[0]) == 56
    assert done.mean(names[1]) is None
    assert not done.complete
    text = done.text()
    assert max(map(len, text.splitlines())) <= 100
    lines = {line.split("  ")[0]: line.split()[1:] for line in text.splitlines() if "  " in line}
    assert lines["vanilla"][:4] == ["94.6", "50.0", "±", "1.5"]
    assert lines["mean"] == ["87.8", "56.0", "86.8", "–", "16.3", "–"]
    markdown = " ".join(done.markdown().split())
    assert "| L_total | – | 16.3 / – |" in markdown
    assert "- L_hide only, gaussian-filter: equal to the median filter, a copy error perhaps." in markdown
