"""What RAEG printed, and what stands for it here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ue_bench.catalogue.registry import registry
from ue_bench.leaderboard import raeg
from ue_bench.leaderboard.raeg import ATTACKS, TITLES, Ask, Line, Table
from ue_bench.leaderboard.raeg_comparison import Comparison, average
from ue_bench.leaderboard.statistics import Estimate

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {selector.partition("[")[0]: False for selector in ATTACKS.values()}
ALL = PLAIN | {"comdefend": True}


def lines(name: str, preset: str = "micro", weights: str | None = None) -> dict[tuple[str, ...], Line]:
    return {line.label: line for line in raeg.table(name, preset, weights, ALL).lines}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_printed_numbers_are_those_of_the_transcript(number: int) -> None:
    transcript = ROOT.parent / "shared" / "reference" / f"raeg_table{number}.csv"
    if not transcript.exists():
        pytest.skip(f"no transcript at {transcript}")
    assert (ROOT / "ue_bench" / "reference" / transcript.name).read_bytes() == transcript.read_bytes()


def test_every_printed_number_has_its_place() -> None:
    counts = {name: sum(len(line.printed) for line in lines(name).values()) for name in TITLES}
    assert counts == {"raeg-table1": 3 * 4 * 8 * 2, "raeg-table2": 9 * 7, "raeg-table3": 3 * 2 * 3, "raeg-table4": 20}


def test_numbers_are_in_percent_and_at_their_place() -> None:
    first, second, third, fourth = (lines(name) for name in TITLES)
    assert first["RAEG", "JPEG_QF50"].printed["Mini-ImageNet DenseNet-121"] == 18.3
    assert first["RIT-IGSM", "none"].printed["CelebA-100 ResNet-50"] == 11.4
    assert second["acc_protected",].printed["Caltech-101 row 3"] == 16.6
    assert second["psnr_recovered",].printed["CelebA-100 row 2"] == 48.042
    assert second["ssim_protected",].printed["Mini-ImageNet row 1"] == 0.893
    assert third["recovered",].printed["Caltech-101 DenseNet-121"] == 96.7
    assert third["originals",].printed == third["protected",].printed == {}
    assert fourth["w/o VGG loss", "acc_defended"].printed == {"Mini-ImageNet ResNet-50": 34.3}
    assert fourth["Full Implementation", "psnr_recovered"].printed == {"Mini-ImageNet ResNet-50": 40.14}


@pytest.mark.parametrize("preset", ["micro", "paper"])
@pytest.mark.parametrize("weights", [None, "x.safetensors", "'a, b.safetensors'"])
@pytest.mark.parametrize("name", TITLES)
def test_what_is_measured_is_built(name: str, preset: str, weights: str | None) -> None:
    asks = [line.ask for line in lines(name, preset, weights).values() if line.ask]
    own = {ask.protector for ask in asks}
    for text in own:
        [protector] = registry().resolve("protector", text)
        assert protector.name in ("none", "raeg", "recovered", "rae-igsm", "rae-cw", "rit-igsm")
    given = [text for text in own if weights is not None and weights in text]
    assert len(given) == (0 if weights is None else 1 if name == "raeg-table1" else 2)
    for countermeasure in {c for ask in asks for c in ask.countermeasures}:
        bare = countermeasure.partition("[")[0]
        if ("countermeasure", bare) in registry().entries:
            [found] = registry().resolve("countermeasure", countermeasure)
            assert found.name == bare


def test_a_row_for_every_question() -> None:
    asked = {label: line.ask for label, line in lines("raeg-table4").items()}
    whole = "raeg[preset=micro]"
    assert asked["Full Implementation", "acc_protected"] == Ask(whole)
    assert asked["Full Implementation", "acc_transfer"] == Ask(whole, unseen=True)
    assert asked["Full Implementation", "psnr_recovered"] == Ask(f'recovered[of="{whole}"]', value="psnr")
    defended = asked["w/o discriminator", "acc_defended"]
    assert defended is not None
    assert defended.protector == "raeg[preset=micro,gan=off]"
    assert len(defended.countermeasures) == 7
    assert "vanilla" not in defended.countermeasures
    for setting in ("G using Enc-Dec architecture", "w/o VGG loss"):  # the first is not built, micro has no VGG loss
        assert asked[setting, "acc_protected"] is None
    full = lines("raeg-table4", "paper")
    assert full["w/o VGG loss", "acc_protected"].ask == Ask("raeg[perceptual=off]")


def test_what_is_not_installed_is_not_asked_for() -> None:
    without = raeg.table("raeg-table1", "micro", None, {k: v for k, v in PLAIN.items() if k != "comdefend"})
    asked = {line.label: line.ask for line in without.lines}
    assert asked["RAEG", "ComDefend"] is None
    assert asked["RAEG", "DIPDefend"] is not None
    assert without.notes[-1] == "Not measured, because it is not installed: comdefend"
    assert without.lines[0].label == ("clean images", "none")
    few = {"vanilla": False, "jpeg": False, "median": False}
    mean = {x.label: x.ask for x in raeg.table("raeg-table4", "micro", None, few).lines}
    ask = mean["Full Implementation", "acc_defended"]
    assert ask is not None
    assert ask.countermeasures == ("jpeg[quality=90]", "jpeg[quality=50]", "median")


def test_what_is_trained_has_the_preset() -> None:
    small, large = (lines("raeg-table3", preset)["protected_then_ComDefend",].ask for preset in ("micro", "paper"))
    assert small == Ask("raeg[preset=micro]", ("comdefend[preset=micro]",), trained=True)
    assert large == Ask("raeg", ("comdefend",), trained=True)


class TestComparison:
    table = Table(
        "raeg-table2",
        ("quantity",),
        (
            Line(("acc",), {"paper A": 91.25, "paper B": 92.0}, Ask("none")),
            Line(("psnr",), {"paper A": 40.0}, Ask("none", value="psnr")),
            Line(("ssim",), {"paper A": 0.9}, None),
        ),
        ("a note",),
    )
    found = Comparison(
        table,
        "Measured: here.",
        {("acc",): "none", ("psnr",): "none"},
        {"net": {("acc",): Estimate(50.0, 3, 1.5), ("psnr",): Estimate(math.inf, 1, None)}, "other": {}},
    )

    def test_printed_and_measured_are_columns_of_their_own(self) -> None:
        assert [line.split() for line in self.found.text().splitlines()][-5:-2] == [
            ["acc", "91.2", "92.0", "50.0", "±", "1.5", "–"],
            ["psnr", "40.0", "–", "∞", "–"],
            ["ssim", "0.900", "–", "–", "–"],
        ]

    def test_markdown_names_the_selector(self) -> None:
        text = " ".join(self.found.markdown().split())
        assert "| quantity | selector | paper A | paper B | measured: `net` | measured: `other` |" in text
        assert "| acc | `none` | 91.2 | 92.0 | 50.0 ± 1.5 | – |" in text
        assert "- a note" in text

    def test_json_can_be_read(self) -> None:
        rows = self.found.plain()["rows"]
        assert rows[0]["measured"] == {"net": {"mean": 50.0, "n": 3, "ci95_half_width": 1.5}}
        assert rows[1]["measured"]["net"]["mean"] is None  # nothing was lost
        assert rows[2]["protector"] is None

    def test_tables_fit_a_terminal(self) -> None:
        for name in TITLES:
            wide = Comparison(raeg.table(name, "micro", None, ALL), "Measured: here.", {}, {"resnet9[blocks=1]": {}})
            assert max(map(len, wide.text().splitlines())) <= 112


def test_an_infinite_psnr_has_no_interval() -> None:
    assert average([math.inf, 40.0]) == Estimate(math.inf, 2, None)
    assert average([39.0, 41.0]).mean == 40
    assert average([39.0, 41.0]).half_width is not None
