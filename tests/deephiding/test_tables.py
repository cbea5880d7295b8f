"""What Deep Hiding printed, and what stands for it here."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
from real import REFERENCE

from ue_bench.catalogue import tables
from ue_bench.catalogue.registry import registry
from ue_bench.contract.table import Line, Table
from ue_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("table1", "table2", "table3", "table4", *(f"table{letter}" for letter in "ABCDEFGHIJK"))
# Printed numbers, without printed means.
COUNTS = dict(zip(NAMES, (351, 90, 36, 130, 104, 104, 104, 104, 130, 40, 22, 26, 12, 6, 39), strict=True))
# Means of the 13 columns as the paper prints them, by line; those it prints wrongly are below.
MEANS = {
    "table1": [
        *(87.78, 37.87, 45.46, 54.048, 79.23, 42.70, 33.82, 45.38, 27.54, 16.31),
        *(63.470, 41.17, 26.06, 32.77, 57.97, 20.62, 23.47, 30.43, 15.40, 6.47),
        *(55.31, 33.69, 22.89, 27.14, 28.64, 11.32, 8.15),
    ],
    "table4": [88.17, 38.93, 29.67, 88.306, 27.54, 16.73, 18.56, 16.49, 13.97, 16.31],
    "tableA": [33.83, 27.54, 32.51, 27.61, 18.75, 16.31, 16.46, 19.03],
    "tableB": [28.02, 27.54, 34.03, 34.20, 16.68, 16.31, 18.545, 17.40],
    "tableC": [28.66, 50.29, 27.54, 39.86, 17.01, 17.98, 16.31, 20.68],
    "tableD": [14.69, 13.97, 16.49, 16.31, 76.04, 88.38, 29.67, 27.54],
    "tableE": [27.54, 27.52, 31.33, 36.91, 33.99, 16.31, 16.81, 17.54, 16.03, 17.55],
    "tableH": [70.38, 55.78],
    "tableK": [87.78, 86.84, 16.31],
}


def made(name: str, **given: str) -> Table:
    """The table with photographs, where it hides any."""
    table = tables.table(name)
    if "natural" in {setting.name for setting in table.settings}:
        given.setdefault("natural", "ue_bench/photos")
    return tables.table(name, given)


def lines(name: str, **given: str) -> dict[str, Line]:
    return {line.name: line for line in made(name, **given).lines}


@pytest.mark.parametrize("name", NAMES)
def test_printed_numbers_are_those_of_the_transcript(name: str) -> None:
    transcript = REFERENCE / f"{name}.csv"
    if not transcript.exists():
        pytest.skip(f"no transcript at {transcript}")
    own = ROOT / "plugins" / "ue_bench_deephiding" / "tables" / transcript.name
    assert own.read_bytes() == transcript.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_every_printed_number_is_asked_for(name: str) -> None:
    table = made(name)
    assert sum(len(line.printed) for line in table.lines) == COUNTS[name]
    assert all(set(line.printed) == set(line.asks) for line in table.lines)


@pytest.mark.parametrize("name", MEANS)
def test_means_are_the_printed_ones(name: str) -> None:
    table = made(name)
    assert table.mean
    means = sorted(fmean(line.printed.values()) for line in table.lines)
    assert means == pytest.approx(sorted(MEANS[name]), abs=0.0051)
    assert {len(line.printed) for line in table.lines} == {13}


def test_wrongly_printed_means_are_noted_first() -> None:
    noted = {
        (name, line.name): line.notes[0]
        for name in MEANS
        for line in made(name).lines
        if line.notes and line.notes[0].startswith("mean:")
    }
    assert noted == {
        ("table1", "CIFAR-10, TAP"): "mean: the paper prints 56.39, its columns give 54.05.",
        ("table1", "CIFAR-100, Clean"): "mean: the paper prints 62.44, its columns give 63.47.",
        ("table4", "Ours(S), LFC on, TPC off, SD+C off"): "mean: the paper prints 88.38, its columns give 88.31.",
        ("tableB", "Ours(C), omega2=0.1"): "mean: the paper prints 19.25, its columns give 18.54.",
    }


@pytest.mark.parametrize(
    "name", ["table1", "table4", "tableA", "tableB", "tableC", "tableD", "tableH", "tableI", "tableK"]
)
def test_columns_are_countermeasures_and_lines_protectors(name: str) -> None:
    table = made(name)
    assert tuple(c.selector for c in registry().resolve("countermeasure", table.columns)) == table.columns
    own = [line for line in table.lines if line.dataset in ("", "cifar10")]
    protectors = {line.name: registry().resolve("protector", line.protectors) for line in own}
    assert all(len(found) == 1 for found in protectors.values())
    assert len({repr(found) for found in protectors.values()}) == len(own)
    assert all(ask.countermeasures == (column,) for line in own for column, ask in line.asks.items())


@pytest.mark.parametrize("name", ["table4", "tableA", "tableB", "tableC", "tableH", "tableK"])
def test_hiding_networks_are_trained_for_so_many_steps(name: str) -> None:
    protectors = [line.protectors[0] for line in made(name, steps="7").lines if line.protectors[0] != "none"]
    assert all("retrain=true,train_steps=7" in selector for selector in protectors)
    if name != "tableH":  # whose network is another
        further = [line.protectors[0] for line in made(name, start="shipped").lines]
        assert all("start=shipped" in selector for selector in further if selector != "none")
    with pytest.raises(UserError, match="steps=many is no number of steps"):
        made(name, steps="many")


def test_default_lines_are_those_of_table_1() -> None:
    main, hidden = lines("table1"), lines("tableD")
    for mode in ("Ours(C)", "Ours(S)"):
        assert hidden[f"{mode}, semantic images"] == Line(
            (mode, "semantic images"), main[f"CIFAR-10, {mode}"].printed, main[f"CIFAR-10, {mode}"].asks
        )
        assert lines("tableE")[f"{mode}, ResNet-18"].printed == main[f"CIFAR-10, {mode}"].printed
    assert lines("tableK")["clean data"].printed == main["CIFAR-10, Clean"].printed


def test_lines_of_photographs_need_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bare = tables.table("tableD")
    left_out = [line.name for line in bare.lines if not line.asks]
    assert left_out == ["Ours(C), random natural images", "Ours(S), random natural images"]
    assert bare.notes == (f"Not measured without --set natural=...: {'; '.join(left_out)}.",)
    given = lines("tableD", natural="with, comma")
    path = tmp_path / "with, comma"
    assert given[left_out[0]].protectors == (f"deephiding[hidden=natural,hidden_images='{path}']",)
    assert given[left_out[1]].protectors == (f"deephiding[mode=sample,hidden=random_natural,hidden_images='{path}']",)
    assert made("tableD", natural="x").notes == ()


def test_shares_and_victims_are_those_of_the_columns() -> None:
    third = lines("table3")["AR"].asks
    assert {column: ask.fraction for column, ask in third.items()} == {
        "20 %": 0.2,
        "40 %": 0.4,
        "60 %": 0.6,
        "80 %": 0.8,
    }
    second = lines("table2", resnet50="resnet9", dataset="cifar100")["CIFAR-100, EM"]
    assert [ask.victim for ask in second.asks.values()] == ["resnet18", "resnet9", "vgg19", "densenet121", "vit"]
    assert second.printed["DenseNet-121"] == 64.87
    assert {ask.victim for ask in lines("tableE")["Ours(C), VGG-19"].asks.values()} == {"vgg19"}
    ask = lines("tableF", vit="mlp")["Ours(S), ViT"].asks["80 %"]
    assert (ask.protector, ask.victim, ask.fraction) == ("deephiding[mode=sample]", "mlp", 0.8)
    assert lines("tableG")["Ours(C)"].asks["98 %"].fraction == 0.98
    assert lines("tableG")["Ours(C)"].printed["98 %"] == 53.0


def test_cosines_are_of_features() -> None:
    found = lines("tableJ")["Ours(S)"]
    assert found.printed == {"intra": 0.9702, "inter": 0.9030}
    assert {(ask.of, ask.value) for ask in found.asks.values()} == {("features", "intra"), ("features", "inter")}


def test_a_line_is_of_a_dataset() -> None:
    assert tables.table("table1").datasets == ("cifar10", "cifar100", "imagenet100")
    assert tables.table("table2").datasets == ("cifar10", "cifar100")
    own = made("table1", dataset="imagenet100")
    assert [line.label[1] for line in own.lines] == ["Clean", "EM", "REM", "TAP", "LSP", "Ours(S)", "Ours(C)"]
    assert own.datasets == ()  # they are measured on whatever the board has
    with pytest.raises(UserError, match="no lines of 'svhn'"):
        made("table1", dataset="svhn")


def test_others_are_trained_with_the_preset() -> None:
    assert lines("table3")["EM"].protectors == ("em",)
    assert lines("table3", preset="micro")["EM"].protectors == ("em[preset=micro]",)
    assert lines("table3", preset="micro")["AR"].protectors == ("ar",)
    with pytest.raises(UserError, match="preset of table1 cannot be 'tiny'"):
        made("table1", preset="tiny")


def test_doubtful_numbers_are_noted() -> None:
    assert lines("table3")["EM"].notes == ("40 %: printed as 03.00, read as 93.00.",)
    assert lines("table2")["CIFAR-10, AR"].notes == ("ResNet-18: Table 1 of the paper prints 13.31.",)
    assert "vanilla: Table 2 of the paper prints 17.83." in lines("tableE")["Ours(S), ViT"].notes
    assert lines("table4")["Ours(S), LFC on, TPC off, SD+C off"].notes[1:] == (
        "mixup: Table D of the paper prints 94.17.",
        "gray: Table D of the paper prints 91.81.",
    )
