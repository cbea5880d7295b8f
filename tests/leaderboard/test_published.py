from __future__ import annotations

from dataclasses import replace

import pytest

from ue_bench.catalogue import tables
from ue_bench.catalogue.registry import Registry, registry
from ue_bench.contract.registration import Register
from ue_bench.leaderboard.published import Published, beside, published
from ue_bench.leaderboard.statistics import panels

from .factory import BOARD, result

# Means of the 13 columns of Deep Hiding's Table 1, as the paper prints them. The two it prints wrongly are below.
PRINTED = {
    "cifar10": {"none": 87.78, "em": 37.87, "rem": 45.46, "entf": 79.23, "lsp": 42.70, "ar": 33.82, "ops": 45.38}
    | {"deephiding[mode=sample]": 27.54, "deephiding": 16.31},
    "cifar100": {"em": 41.17, "rem": 26.06, "tap": 32.77, "entf": 57.97, "lsp": 20.62, "ar": 23.47, "ops": 30.43}
    | {"deephiding[mode=sample]": 15.40, "deephiding": 6.47},
    "imagenet100": {"none": 55.31, "em": 33.69, "rem": 22.89, "tap": 27.14, "lsp[patch=32]": 28.64}
    | {"deephiding[mode=sample]": 11.32, "deephiding": 8.15},
}


def main(dataset: str) -> Published:
    """Deep Hiding's Table 1 for a dataset."""
    found = published(tables.table("table1"), dataset, "none")
    assert found is not None
    return found


@pytest.mark.parametrize("dataset", PRINTED)
def test_recomputed_means_are_the_printed_ones(dataset: str) -> None:
    table = main(dataset)
    means = {row.protector: row.mean for row in table.rows if row.protector in PRINTED[dataset]}
    assert means == pytest.approx(PRINTED[dataset], abs=0.0051)
    assert {len(row.accuracies) for row in table.rows} == {13}


@pytest.mark.parametrize(
    ("dataset", "protector", "note", "mean"),
    [
        ("cifar10", "tap", "mean: the paper prints 56.39, its columns give 54.05.", 54.048),
        ("cifar100", "none", "mean: the paper prints 62.44, its columns give 63.47.", 63.470),
    ],
)
def test_wrongly_printed_means_are_recomputed_and_noted(dataset: str, protector: str, note: str, mean: float) -> None:
    table = main(dataset)
    [row] = [row for row in table.rows if row.protector == protector]
    assert row.mean == pytest.approx(mean, abs=0.0005)
    assert row.notes[0] == note


def test_clean_first_then_the_best_mean() -> None:
    table = main("imagenet100")
    assert [row.method for row in table.rows] == ["Clean", "Ours(C)", "Ours(S)", "REM", "TAP", "LSP", "EM"]
    assert table.title == "Published (Deep Hiding, Table 1; ResNet-18, 8,000 steps)"


def test_nothing_for_other_datasets() -> None:
    assert published(tables.table("table1"), "svhn", "none") is None
    assert published(tables.table("table2"), "cifar10", "none") is None  # is not meant for pages
    assert beside(panels([result(selector="demo")], BOARD)) == []


def test_a_parameter_of_the_dataset_does_not_hide_the_table() -> None:
    found = beside(panels([result(selector="cifar10[subset=1000]"), result(selector="cifar10")], BOARD))
    assert {table.dataset for table in found} == {"cifar10"}
    assert len({table.title for table in found}) == len(found)  # each once


def test_a_board_of_a_folder_is_known_by_its_name() -> None:
    found = beside(panels([result(selector="imagefolder[path=x]")], replace(BOARD, name="imagenet100")))
    assert [table.dataset for table in found] == ["imagenet100"]


def test_a_broken_table_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Registry(tables={"table1": registry().tables["table1"]})
    Register(names, "toys 1.0").table("broken", "no_such_module:table", "broken")
    for module in ("ue_bench.catalogue.tables", "ue_bench.leaderboard.published"):
        monkeypatch.setattr(f"{module}.registry", lambda: names)
    for _ in range(2):
        assert [table.dataset for table in beside(panels([result(selector="cifar10")], BOARD))] == ["cifar10"]
        assert [problem.distribution for problem in names.problems] == ["toys 1.0"]
