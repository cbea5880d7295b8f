"""``ue-bench reproduce`` on toy tables: lines of cheap protectors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ue_bench.catalogue import tables
from ue_bench.catalogue.registry import Registry, registry
from ue_bench.cli.reproduce import _names
from ue_bench.contract.registration import Register
from ue_bench.contract.table import Ask, Line, Setting, Table

from .conftest import Command
from .stripes import SETTING as STRIPES
from .stripes import write_stripes

VICTIM = "resnet9[width=4]"
DEMO = "demo[train_per_class=4,test_per_class=3]"
SETTING = ["-V", VICTIM, "-D", DEMO, "--protocol", "smoke", "--devices", "cpu", "--precision", "fp32", "--out", "out"]
WITHOUT_VICTIM = SETTING[2:]
NATURAL, PATCH = Setting("natural", "a file"), Setting("patch", "a size", "8", ("4", "8"))


def hidden(natural: str | None = None) -> Table:
    """One line that can be measured at once, one that needs a file."""
    plain = {column: Ask("none", (column,)) for column in ("gray", "vanilla")}
    photographs = {c: Ask(f"precomputed[path={natural}]", (c,)) for c in plain} if natural else {}
    return Table(
        "hidden",
        "what is hidden",
        "A paper, Table 1",
        ("row",),
        (
            Line(("plain",), {"gray": 92.8, "vanilla": 94.6}, plain, notes=("gray: misprinted.",)),
            Line(("photographs",), {"gray": 1.0, "vanilla": 2.0}, photographs),
        ),
        settings=(NATURAL,),
    )


def patches(patch: str = "8") -> Table:
    ask = Ask(f"lsp[patch={patch}]", ("vanilla",))
    line = Line(("noisy",), {"vanilla": 10.0}, {"vanilla": ask})
    return Table("patches", "a title", "A paper", ("row",), (line,), settings=(PATCH,))


def cosines() -> Table:
    asks = {value: Ask("none", ("vanilla",), of="features", value=value) for value in ("intra", "inter")}
    line = Line(("clean",), {"intra": 0.5, "inter": 0.25}, asks, unit="cosine")
    return Table("cosines", "a title", "A paper", ("row",), (line,))


def shares() -> Table:
    """Victims and shares that the table varies itself."""
    asks = {
        "0 %": Ask("ops", ("vanilla",), victim="linear", fraction=0.0),
        "100 %": Ask("ops", ("vanilla",), fraction=1.0),
    }
    return Table("shares", "a title", "A paper", ("row",), (Line(("pixel",), {"0 %": 94.0, "100 %": 10.0}, asks),))


def own(net: str = "linear") -> Table:
    asks = {"0 %": Ask("none", ("vanilla",), victim=net, fraction=0.5)}
    lines = (Line(("pixel",), {"0 %": 94.0}, asks), Line(("text",), {}, {"0 %": replace(asks["0 %"], victim="lost")}))
    return Table("own", "a title", "A paper", ("row",), lines, settings=(Setting("net", "a victim", "linear"),))


def two() -> Table:
    """Lines of two datasets."""
    ask = Ask("none", ("vanilla",))
    lines = tuple(Line((data, "clean"), {"vanilla": 90.0}, {"vanilla": ask}, dataset=data) for data in ("demo", "svhn"))
    return Table("two", "a title", "A paper", ("dataset", "row"), lines)


def shown() -> Table:
    """Everything at once: the mean over two treatments of test images, a victim of its own, training."""
    evade = Ask("noise", ("gray", "vanilla"), of="evasion")
    lines = (
        Line(("defended",), {"paper": 10.0}, {"here": evade}),
        Line(("unseen",), {"paper": 20.0}, {"here": Ask("noise", ("vanilla",), of="evasion", victim="linear")}),
        Line(("psnr",), {"paper": 30.0}, {"here": Ask("none", ("vanilla",), of="evasion", value="psnr")}, unit="dB"),
        Line(("trained",), {"paper": 40.0}, {"here": Ask("@clean", ("@plain",))}),
        Line(("elsewhere",), {"paper": 50.0}, {"here": Ask("not-there", ("vanilla",))}),
    )
    return Table("shown", "a title", "A paper", ("row",), lines)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    made = (hidden, patches, cosines, shares, own, two, shown)
    module = ModuleType("toy_tables")
    names = Registry()
    for function in made:
        setattr(module, function.__name__, function)
        Register(names, "toys 1.0").table(function.__name__, f"toy_tables:{function.__name__}", "a summary")
    monkeypatch.setitem(sys.modules, "toy_tables", module)
    monkeypatch.setattr(registry(), "tables", names.tables)


def measured(found: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Means by line and column, of the one victim."""
    return {
        (row["row"][-1], column): next(iter(numbers.values()))["mean"]
        for row in found["rows"]
        for column, numbers in row["measured"].items()
    }


def test_printed_and_measured_stand_side_by_side(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "hidden", *SETTING)
    assert done.code == 0
    assert sorted(task.rsplit("/", 3)[0] for task in computed if not task.startswith("protect")) == [
        f"{DEMO}/none/gray",
        f"{DEMO}/none/vanilla",
    ]  # the noise row of the board is no part of the table
    assert "not measured, see the notes of the table: photographs" in done.err
    assert "plain, gray: misprinted." in done.out
    found = ue_bench("reproduce", "hidden", "--json", *SETTING).json
    assert len(computed) == 3  # nothing was computed again
    [plain, photographs] = found["rows"]
    assert plain["printed"] == {"gray": 92.8, "vanilla": 94.6}
    assert plain["protectors"] == ["none"]
    assert (photographs["protectors"], photographs["measured"]) == ([], {})
    accuracy = plain["measured"]["gray"][VICTIM]
    assert accuracy["n"] == 1
    line = next(line.split() for line in done.out.splitlines() if line.startswith("gray"))
    assert line == ["gray", "92.8", f"{accuracy['mean']:.1f}", "1.0", "–"]
    # The same cell as that of ``run``.
    again = ue_bench("run", "-P", "none", "-C", "gray", *SETTING, "--json")
    assert accuracy["mean"] in [r["metrics"]["accuracy_last"] for r in again.json]


def test_columns_are_chosen(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "hidden", "--columns", "vanilla", "--json", *SETTING)
    assert done.json["columns"] == ["vanilla"]
    assert done.json["rows"][0]["printed"] == {"vanilla": 94.6}
    assert [task.rsplit("/", 3)[0] for task in computed if not task.startswith("protect")] == [f"{DEMO}/none/vanilla"]
    assert not any("gray" in note for note in done.json["notes"])
    both = ue_bench("reproduce", "hidden", "--columns", " vanilla, gray ", "--json", *SETTING).json
    assert both["columns"] == ["gray", "vanilla"]  # in the order of the table
    assert "plain, gray: misprinted." in both["notes"]


def test_lines_without_a_chosen_column_are_left_out(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "shown", "--columns", "paper", *WITHOUT_VICTIM)
    assert done.code == 2
    assert "nothing in shown can be measured" in done.err
    assert ue_bench("reproduce", "shares", "--columns", "0 %", "--json", *WITHOUT_VICTIM).json["columns"] == ["0 %"]


def test_names_of_columns_may_hold_commas() -> None:
    assert _names("a[b=1,c=d[e=1,f=2]],d, e,") == ["a[b=1,c=d[e=1,f=2]]", "d", "e"]


@pytest.mark.parametrize("columns", ["grey", "gray,,grey", ","])
def test_unknown_columns_are_refused_with_their_neighbours(columns: str, ue_bench: Command) -> None:
    found = ue_bench("reproduce", "hidden", "--columns", columns, *SETTING)
    assert found.code == 2
    assert "hidden has no column" in found.err


def test_settings_reach_the_table(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "patches", "--set", "patch=4", "--json", *SETTING)
    assert done.code == 0
    assert done.json["rows"][0]["protectors"] == ["lsp[patch=4]"]
    assert done.json["settings"] == {"patch": "4"}
    assert done.json["rows"][0]["measured"]["vanilla"][VICTIM]["n"] == 1
    missing = ue_bench("reproduce", "hidden", "--dry-run", "--set", "natural=x.npz", *SETTING)
    assert missing.code == 2
    assert "x.npz" in missing.err  # it is looked for


def test_cosines_are_measured_and_kept(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "cosines", "--markdown", *SETTING)
    assert done.code == 0
    assert [task.split()[0] for task in computed] == ["protect", "features"]
    numbers = measured(ue_bench("reproduce", "cosines", "--json", *SETTING).json)
    intra, inter = numbers["clean", "intra"], numbers["clean", "inter"]
    assert 0 < inter <= 1
    assert 0 < intra <= 1
    assert f"| clean | `none`     | 0.5000 / {intra:.4f} | 0.2500 / {inter:.4f} |" in done.out
    assert len(computed) == 2


def test_victims_and_shares_are_those_of_the_table(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "shares", "--json", *SETTING)
    assert done.code == 0
    cells = sorted(task for task in computed if not task.startswith("protect"))
    assert cells == [f"{DEMO}/ops/vanilla/{VICTIM}/smoke/s0", f"{DEMO}/ops@0/vanilla/linear/smoke/s0"]
    [row] = done.json["rows"]
    assert {column: list(found) for column, found in row["measured"].items()} == {"0 %": ["linear"], "100 %": [VICTIM]}
    run = ue_bench("run", "-P", "ops", "-C", "vanilla", "--fraction", "0", *WITHOUT_VICTIM, "-V", "linear", "--json")
    accuracies = {r["protector"]: r["metrics"]["accuracy_last"] for r in run.json}
    assert row["measured"]["0 %"]["linear"]["mean"] == accuracies["ops"]


def test_every_kind_of_number_comes_from_one_command(ue_bench: Command, computed: list[str]) -> None:
    command = ["reproduce", "shown", *SETTING]
    done = ue_bench(*command, "--json", "--seeds", "0,1")
    assert done.code == 0
    numbers = measured(done.json)
    trained = ue_bench("run", "-P", "none", "-C", "vanilla", "--seeds", "0,1", *SETTING, "--json").json
    clean = [r["metrics"]["accuracy_last"] for r in trained if r["protector"] == "none"]
    assert numbers["trained", "here"] == pytest.approx(sum(clean) / 2)
    evaded = ue_bench("evade", "-P", "noise", "-C", "gray,vanilla", "--seeds", "0,1", *SETTING, "--json").json
    noisy = [r["accuracy"] for r in evaded if r["protector"] == "noise"]
    assert len(noisy) == 4
    assert numbers["defended", "here"] == pytest.approx(sum(noisy) / 4)
    assert numbers["psnr", "here"] is None  # nothing was lost
    rows = {row["row"][0]: row for row in done.json["rows"]}
    assert list(rows["unseen"]["measured"]["here"]) == ["linear"]
    assert rows["defended"]["measured"]["here"][VICTIM]["n"] == 2
    assert rows["elsewhere"]["measured"] == {}
    assert "Not measured, because it is not installed: not-there." in done.json["notes"]

    # No mean of less than was asked for, and the exit code says that something is missing.
    for lost in Path("out/evasion").glob("noise/gray-resnet9*.json"):
        lost.unlink()
    count = len(computed)
    again = ue_bench(*command, "--json", "--seeds", "0,1", "--stored")
    assert again.code == 1
    assert len(computed) == count
    assert ("defended", "here") not in measured(again.json)
    assert ("unseen", "here") in measured(again.json)


def test_so_many_test_images(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "shown", "--images", "6", *SETTING)
    assert done.code == 0
    assert "6 test images" in done.out


def test_lines_of_other_datasets_are_left_out(ue_bench: Command, computed: list[str]) -> None:
    found = ue_bench("reproduce", "two", "--json", *SETTING).json
    assert [row["row"] for row in found["rows"]] == [["demo", "clean"]]
    write_stripes(Path("stripes.npz"))
    refused = ue_bench("reproduce", "two", *STRIPES)
    assert refused.code == 2
    assert "two has lines of demo, svhn, none of npz" in refused.err
    assert len(computed) == 2


def test_a_plan_computes_nothing(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "cosines", "--dry-run", *SETTING)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[:-1]] == ["protected", "features"]
    assert done.out.splitlines()[-1].startswith("1 of 1 cells to compute, 2 stages")
    assert computed == []


def test_tables_are_listed(ue_bench: Command) -> None:
    titles = tables.titles()
    assert ue_bench("reproduce", "--json").json == titles
    assert [line.split()[0] for line in ue_bench("reproduce").out.splitlines()] == list(titles)


def test_help_lists_the_settings_of_a_table(ue_bench: Command) -> None:
    shown = ue_bench("reproduce", "patches", "--help").out.splitlines()
    assert shown[-2:] == ["Settings of patches, for --set:", "  patch=8  [4|8] a size"]
    alone = ue_bench("reproduce", "--help")
    assert (alone.code, "Show this message" in alone.out, "Settings of" in alone.out) == (0, True, False), alone.err
    without = ue_bench("reproduce", "cosines", "-h")
    assert without.out.rstrip().endswith("it has no settings"), without.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cosines", "--set", "natural=x"], "cosines has no setting 'natural'\n  hint: cosines has no settings"),
        (["hidden", "--set", "naturl=x"], "hidden has no setting 'naturl'\n  hint: did you mean natural?"),
        (["hidden", "--set", "natural"], "cannot read the setting 'natural'"),
        (["hidden", "--set", "natural=x", "--set", "natural=y"], "the setting 'natural' is given twice"),
        (["patches", "--set", "patch=5"], "patch of patches cannot be '5'\n  hint: known: 4, 8"),
        (["hiden"], "no table 'hiden'\n  hint: did you mean hidden?"),
        (["hidden", "--images", "5"], "--images has no part in hidden"),
        (["hidden", "--transfer"], "--transfer has no part in hidden"),
        (["shares", "--fraction", "0.5"], "--fraction has no part in shares"),
        (["own", "--set", "net=liner"], "no victim 'liner'\n  hint: did you mean linear?"),
        (["own", "-V", "linear"], "--victim has no part in own"),
        (["hidden", "--json", "--markdown"], "exclude each other"),
        (["hidden", "--stored", "--dry-run"], "--dry-run has no part in --stored"),
        (["hidden", "--stored", "--jobs", "2"], "--jobs has no part in --stored"),
        (["hidden", "--stored", "--retry", "oom"], "--retry has no part in --stored"),
    ],
)
def test_mistakes_are_one_line(ue_bench: Command, arguments: list[str], message: str) -> None:
    done = ue_bench("reproduce", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
