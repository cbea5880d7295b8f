"""``ue-bench reproduce`` on toy tables: rows of cheap protectors under the names of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from ue_bench.leaderboard import printed, raeg
from ue_bench.leaderboard.printed import COSINES, PrintedRow, PrintedTable

from .conftest import Command

SETTING = [
    *("-D", "demo[train_per_class=4,test_per_class=3]", "-V", "resnet9[width=4]", "--protocol", "smoke"),
    *("--devices", "cpu", "--precision", "fp32", "--out", "out"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        "tableD": PrintedTable(
            "tableD",
            ("gray", "vanilla"),
            (
                PrintedRow("plain", "none", {"gray": 92.8, "vanilla": 94.6}, ("gray: misprinted",)),
                PrintedRow("photographs", "precomputed[path={natural}]", {"gray": 1.0, "vanilla": 2.0}),
            ),
        ),
        "tableA": PrintedTable("tableA", ("vanilla",), (PrintedRow("noisy", "lsp[patch={steps}]", {"vanilla": 10.0}),)),
        "tableJ": PrintedTable("tableJ", COSINES, (PrintedRow("clean", "none", {"intra": 0.5, "inter": 0.25}),)),
    }
    monkeypatch.setattr(printed, "table", tables.__getitem__)


def test_printed_and_measured_stand_side_by_side(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    done = ue_bench("reproduce", "tableD", *SETTING)
    assert done.code == 0
    assert sorted(task.rsplit("/", 3)[0] for task in computed if not task.startswith("protect")) == [
        "demo[train_per_class=4,test_per_class=3]/none/gray",
        "demo[train_per_class=4,test_per_class=3]/none/vanilla",
    ]  # the noise row of the board is no part of the table
    assert "not computed without --natural: photographs" in done.err
    assert "plain, gray: misprinted." in done.out
    found = ue_bench("reproduce", "tableD", "--json", *SETTING).json
    assert len(computed) == 3  # nothing was computed again
    [plain, photographs] = found[0]["rows"]
    assert plain["printed"] == {"gray": 92.8, "vanilla": 94.6}
    assert photographs == {
        "row": "photographs",
        "protector": None,
        "printed": {"gray": 1.0, "vanilla": 2.0},
        "measured": {},
    }
    [accuracy] = [plain["measured"]["gray"]]
    assert accuracy["n"] == 1
    line = next(line.split() for line in done.out.splitlines() if line.startswith("gray"))
    assert line == ["gray", "92.8", f"{accuracy['mean']:.1f}", "1.0", "–"]
    # The same cell as that of ``run``.
    again = ue_bench("run", "-P", "none", "-C", "gray", *SETTING, "--json")
    assert plain["measured"]["gray"]["mean"] in [r["metrics"]["accuracy_last"] for r in again.json]


def test_photographs_fill_their_rows(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "with, comma [and] ümlaut"
    folder.mkdir()
    done = ue_bench("reproduce", "tableD", "--dry-run", "--natural", str(folder / "x.npz"), *SETTING)
    assert "no file" in done.err or "x.npz" in done.err  # it is looked for
    assert done.code == 2
    assert "not computed" not in done.err


def test_steps_of_training_are_filled_in(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "tableA", "--train-steps", "4", "--json", *SETTING)
    assert done.code == 0
    assert done.json[0]["rows"][0]["protector"] == "lsp[patch=4]"
    assert done.json[0]["rows"][0]["measured"]["vanilla"]["n"] == 1


def test_cosines_are_measured_and_kept(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "tableJ", "--markdown", *SETTING)
    assert done.code == 0
    assert [task.split()[0] for task in computed] == ["protect", "features"]
    [found] = ue_bench("reproduce", "tableJ", "--json", *SETTING).json
    measured = {c: e["mean"] for c, e in found["rows"][0]["measured"].items()}
    assert 0 < measured["inter"] <= 1
    assert 0 < measured["intra"] <= 1
    assert f"| clean | `none`     | 0.5000 / {measured['intra']:.4f} | 0.2500 / {measured['inter']:.4f} |" in done.out
    assert len(computed) == 2


def test_a_plan_computes_nothing(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "tableJ", "--dry-run", *SETTING)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[:-1]] == ["protected", "features"]
    assert computed == []


def test_tables_are_listed(ue_bench: Command) -> None:
    titles = printed.TITLES | raeg.TITLES
    assert ue_bench("reproduce", "--json").json == titles
    assert [line.split()[0] for line in ue_bench("reproduce").out.splitlines()] == list(titles)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tableJ", "--natural", "x"], "--natural has no part in tableJ"),
        (["tableD", "--train-steps", "5"], "--train-steps has no part in tableD"),
        (["tableD", "--json", "--markdown"], "exclude each other"),
    ],
)
def test_mistakes_are_one_line(ue_bench: Command, arguments: list[str], message: str) -> None:
    done = ue_bench("reproduce", *arguments)
    assert done.code == 2
    assert message in done.err.splitlines()[0]
