"""The page of evasion results, its CSV file and its part of README.md."""

from __future__ import annotations

import csv
import io
import random
import re
import shlex
from dataclasses import replace
from pathlib import Path

import click

from ue_bench.cli.main import cli
from ue_bench.leaderboard import build, tables
from ue_bench.leaderboard.evasion_page import CSV, command, ordered, render_evasion

from .factory import BOARD, evaded, evasion, grid
from .folders import write_evasion


def test_rows_are_in_order_of_protection_behind_the_clean_one() -> None:
    [panel] = ordered(reversed(evaded()), BOARD)

    assert list(panel.numbers) == ["none", "raeg", "rae-igsm"]
    assert list(panel.columns) == ["vanilla", "jpeg[quality=50]"]
    assert panel.share("raeg", "vanilla", "none") == 25.0  # (28 - 10) / (82 - 10)
    assert panel.share("rae-igsm", "jpeg[quality=50]", "none") == 90.0


def test_the_same_results_give_the_same_text_in_any_order() -> None:
    results = evaded() + evaded(seed=1) + evaded(victim="vgg11") + evaded(transfer=True)
    shuffled = random.Random(1).sample(results, len(results))

    pages, said = render_evasion(BOARD, results)

    assert render_evasion(BOARD, shuffled) == (pages, said)
    assert pages["evasion.html"].count('id="panel-') == 3


def test_classifiers_stand_beside_one_another() -> None:
    pages, _ = render_evasion(BOARD, [*evaded(), evasion("raeg", "vanilla", 64.0, victim="vgg11", transfer=True)])
    [table] = re.findall(r'<section id="classifiers-1".*?</section>', pages["evasion.html"], flags=re.S)

    assert "resnet18<wbr><small>the seed of surrogates</small>" in table
    assert "vgg11<wbr><small>a seed of its own</small>" in table
    [raeg] = [line for line in table.splitlines() if ">raeg<" in line]
    assert "28.0<small>25 %</small>" in raeg
    assert "64.0<small></small>" in raeg  # no clean images for that classifier
    assert "classifiers-1" not in render_evasion(BOARD, evaded() + evaded(seed=1))[0]["evasion.html"]


def test_page_shows_accuracies_shares_and_the_command() -> None:
    pages, said = render_evasion(BOARD, evaded())
    text = pages["evasion.html"]

    assert "28.0<small>25 %</small>" in text
    assert "1,000 test images, n = 1." in text
    assert "--protector &#39;raeg,rae-igsm&#39; --countermeasure &#39;vanilla,jpeg[quality=50]&#39;" in text
    assert "<script" not in text
    assert "| `raeg`" in said
    assert "## Evasion" in said
    assert "### resnet18" in said


def test_the_command_parses_and_names_what_is_not_the_boards() -> None:
    [panel] = ordered(evaded(victim="vgg11", transfer=True, seed=3), replace(BOARD, name="demo"))

    words = shlex.split(command(replace(BOARD, name="demo"), panel))

    assert words[:2] == ["ue-bench", "evade"]
    evade = cli.get_command(click.Context(cli), "evade")
    assert evade is not None
    given = evade.make_context("evade", words[2:]).params
    assert (given["victims"], given["seeds"], given["images"], given["transfer"]) == (("vgg11",), "3", 1000, True)
    assert given["protectors"] == ("raeg,rae-igsm",)


def test_numbers_have_the_columns_of_training_results() -> None:
    pages, _ = render_evasion(BOARD, evaded() + evaded(seed=1))
    rows = list(csv.DictReader(io.StringIO(pages["evasion.csv"])))

    alike = [name for name in tables.CSV if name in CSV]
    assert {"dataset", "fingerprint", "victim", "protector", "countermeasure", "n", "accuracy", "ci95_low"} <= {*alike}
    assert [name for name in CSV if name in alike] == alike  # in the same order
    [row] = [r for r in rows if (r["protector"], r["countermeasure"]) == ("raeg", "vanilla")]
    assert (row["n"], row["seeds"], row["accuracy"], row["ci95_of"]) == ("2", "0 1", "28.0", "seeds and test set")


def test_the_newest_result_of_a_cell_and_seed_is_shown() -> None:
    old = evasion("raeg", "vanilla", 90.0, finished="2025-01-01T00:00:00Z")

    [panel] = ordered([old, *evaded()], BOARD)

    assert panel.numbers["raeg"]["vanilla"].mean == 28.0
    assert panel.numbers["raeg"]["vanilla"].n == 1


def test_a_board_has_the_page_where_there_are_results_and_else_not(tmp_path: Path) -> None:
    names = [path.name for path in build.build(grid({"em": (10.0, 20.0)}), BOARD, tmp_path)]
    assert "evasion.html" not in names
    write_evasion(tmp_path, evaded())

    assert "evasion.html is missing" in build.check(grid({"em": (10.0, 20.0)}), BOARD, tmp_path)
    names = [path.name for path in build.build(grid({"em": (10.0, 20.0)}), BOARD, tmp_path)]

    assert names[-2:] == ["evasion.html", "evasion.csv"]
    assert "## Evasion" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert build.check(grid({"em": (10.0, 20.0)}), BOARD, tmp_path) == []
