"""What RAEG printed, and what stands for it here."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from real import REFERENCE

from ue_bench.catalogue import tables
from ue_bench.catalogue.registry import registry
from ue_bench.contract.table import Ask, Line
from ue_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"raeg-table{number}" for number in range(1, 5)]


def lines(name: str, **given: str) -> dict[tuple[str, ...], Line]:
    return {line.label: line for line in tables.table(name, given).lines}


def ask(line: Line) -> Ask | None:
    return line.asks.get("here")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_printed_numbers_are_those_of_the_transcript(number: int) -> None:
    transcript = REFERENCE / f"raeg_table{number}.csv"
    if not transcript.exists():
        pytest.skip(f"no transcript at {transcript}")
    own = ROOT / "plugins" / "ue_bench_raeg" / "tables" / transcript.name
    assert own.read_bytes() == transcript.read_bytes()


def test_every_printed_number_has_its_place() -> None:
    counts = [sum(len(line.printed) for line in lines(name).values()) for name in NAMES]
    assert counts == [3 * 4 * 8 * 2, 9 * 7, 3 * 2 * 3, 20]


def test_numbers_are_in_percent_and_at_their_place() -> None:
    first, second, third, fourth = (lines(name) for name in NAMES)
    assert first["RAEG", "JPEG_QF50"].printed["Mini-ImageNet DenseNet-121"] == 18.3
    assert first["RIT-IGSM", "none"].printed["CelebA-100 ResNet-50"] == 11.4
    assert second["acc_protected",].printed["Caltech-101 row 3"] == 16.6
    assert second["psnr_recovered",].printed["CelebA-100 row 2"] == 48.042
    assert second["ssim_protected",].printed["Mini-ImageNet row 1"] == 0.893
    assert third["recovered",].printed["Caltech-101 DenseNet-121"] == 96.7
    assert third["originals",].printed == third["protected",].printed == {}
    assert fourth["w/o VGG loss", "acc_defended"].printed == {"Mini-ImageNet ResNet-50": 34.3}
    assert fourth["Full Implementation", "psnr_recovered"].printed == {"Mini-ImageNet ResNet-50": 40.14}
    assert {line.unit for label, line in fourth.items() if label[1].startswith("psnr")} == {"dB"}


WEIGHTS = ["x.safetensors", "a, b.safetensors"]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_preset_of_what_is_not_trained_is_refused(weights: str) -> None:
    for preset in ("micro", "paper"):
        with pytest.raises(UserError, match="preset has no part in raeg-table2"):
            lines("raeg-table2", preset=preset, weights=weights)


@pytest.mark.parametrize(
    ("name", "preset", "weights"),
    [
        (name, preset, weights)
        for name, preset, weights in product(NAMES, ["shipped", "micro", "paper"], [None, *WEIGHTS])
        if name != "raeg-table2" or preset == "shipped" or weights is None
    ],
)
def test_what_is_measured_is_built(name: str, preset: str, weights: str | None) -> None:
    given = {"preset": preset} | ({} if weights is None else {"weights": weights})
    asks = [found for line in lines(name, **given).values() if (found := ask(line))]
    own = {found.protector for found in asks}
    for text in own:
        [protector] = registry().resolve("protector", text)
        assert protector.name in ("none", "raeg", "recovered", "rae-igsm", "rae-cw", "rit-igsm")
    whole = [text for text in own if weights is not None and weights in text]
    assert len(whole) == (0 if weights is None else 1 if name == "raeg-table1" else 2)
    for countermeasure in {c for found in asks for c in found.countermeasures}:
        [plugin] = registry().resolve("countermeasure", countermeasure)
        assert plugin.name == countermeasure.partition("[")[0]


def test_a_row_for_every_question() -> None:
    asked = {label: ask(line) for label, line in lines("raeg-table4", unseen="vgg16").items()}
    whole = "raeg"
    plain = ("vanilla",)
    assert asked["Full Implementation", "acc_protected"] == Ask(whole, plain, of="evasion")
    assert asked["Full Implementation", "acc_transfer"] == Ask(whole, plain, of="evasion", victim="vgg16")
    recovered = Ask(f'recovered[of="{whole}"]', plain, of="evasion", value="psnr")
    assert asked["Full Implementation", "psnr_recovered"] == recovered
    defended = asked["w/o discriminator", "acc_defended"]
    assert defended is not None
    assert defended.protector == "raeg[preset=micro,gan=off]"
    assert len(defended.countermeasures) == 7
    assert "vanilla" not in defended.countermeasures
    assert asked["w/o VGG loss", "acc_protected"] is None  # micro has none
    other = lines("raeg-table4", training="width=12,steps=600")
    assert ask(other["G using Enc-Dec architecture", "acc_protected"]) == Ask(
        "raeg[preset=micro,width=12,steps=600,generator=enc-dec]", plain, of="evasion"
    )
    trained = lines("raeg-table4", preset="micro", training="steps=600")
    assert ask(trained["Full Implementation", "acc_protected"]) == Ask(
        "raeg[preset=micro,steps=600]", plain, of="evasion"
    )
    full = lines("raeg-table4", preset="paper")
    assert ask(full["w/o VGG loss", "acc_protected"]) == Ask("raeg[preset=paper,perceptual=off]", plain, of="evasion")


def test_transfer_needs_an_unseen_victim() -> None:
    bare = tables.table("raeg-table4")
    assert {line.label[1] for line in bare.lines if line.label[0] == "Full Implementation" and not line.asks} == {
        "acc_transfer"
    }
    assert bare.notes[-1] == "acc_transfer is not measured without --set unseen=VICTIM."
    assert tables.table("raeg-table4", {"unseen": "vgg16"}).notes[-1] == "Unseen: vgg16."
    for given in ({"unseen": "resnet9"}, {"unseen": "vgg16", "preset": "paper"}):
        with pytest.raises(UserError, match=r"generators of preset=(micro|paper) see"):
            tables.table("raeg-table4", given)


def test_what_is_trained_has_the_preset() -> None:
    small, large = (ask(lines("raeg-table3", preset=p)["protected_then_ComDefend",]) for p in ("micro", "paper"))
    assert small == Ask("raeg[preset=micro]", ("comdefend[preset=micro]",))
    assert large == Ask("raeg[preset=paper]", ("comdefend",))
    assert ask(lines("raeg-table3")["protected_then_ComDefend",]) == Ask("raeg", ("comdefend[preset=micro]",))
    hiding = {found.protector for line in lines("raeg-table1").values() if (found := ask(line))}
    assert hiding == {
        "none", "raeg", "rae-igsm[preset=micro,rdh=ovt]", "rae-cw[preset=micro,rdh=ovt]",
        "rit-igsm[preset=micro,rdh=ovt]",
    }  # fmt: skip
    with pytest.raises(UserError, match="preset of raeg-table1 cannot be 'tiny'"):
        lines("raeg-table1", preset="tiny")
