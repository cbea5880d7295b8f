"""``ue-bench reproduce raeg-table1`` to 4, with a tiny generator on stripes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ue_bench.store.evasion import EvasionStore
from ue_bench_raeg import generator
from ue_bench_raeg.keys import write_generator
from ue_bench_raeg.tables import paper

from .conftest import Command
from .stripes import SETTING, VICTIM, write_stripes

WEIGHTS = ["--set", "weights=tiny.safetensors"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripes, and a generator that changes images a little."""
    write_stripes(tmp_path / "stripes.npz")
    monkeypatch.setattr(generator, "BLOCKS", 1)
    network = generator.Generator(2, spectral=False)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, generator.SubNetwork):
                module.last.weight.copy_(torch.randn(module.last.weight.shape, generator=source) * 0.002)
    write_generator(tmp_path / "tiny.safetensors", network.plain_weights(), network.settings, {})


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {" ".join(row["row"]): row for row in found["rows"]}


def means(found: dict[str, Any], victim: str = VICTIM) -> dict[str, float]:
    """What was measured, by line."""
    numbers = {label: row["measured"].get("here", {}) for label, row in rows(found).items()}
    return {label: by_victim[victim]["mean"] for label, by_victim in numbers.items() if victim in by_victim}


def test_recovery_is_measured(ue_bench: Command, computed: list[str]) -> None:
    command = ["reproduce", "raeg-table2", *WEIGHTS, *SETTING]
    done = ue_bench(*command)
    assert done.code == 0
    assert "printed" in done.out
    found = ue_bench(*command, "--json").json
    assert [task.split()[0] for task in computed].count("train") == 1
    assert len(computed) == 7  # 1 classifier, 3 sets, 3 cells, once
    measured = means(found)
    results = {r.protector.partition("[")[0]: r for r in EvasionStore(Path("out")).results()}
    assert measured["acc_original"] == results["none"].accuracy > 90
    assert measured["acc_protected"] == results["raeg"].accuracy
    assert measured["acc_recovered"] == results["recovered"].accuracy > 90
    assert measured["psnr_protected"] == results["raeg"].psnr
    assert results["raeg"].psnr is not None
    assert measured["psnr_recovered"] == results["recovered"].psnr
    assert measured["psnr_recovered"] > results["raeg"].psnr + 10
    assert measured["ssim_recovered"] == results["recovered"].ssim > results["raeg"].ssim
    assert rows(found)["acc_protected"]["printed"]["Mini-ImageNet row 2"] == 6.8
    # Cells are those of ``evade``.
    again = ue_bench("evade", "-P", "raeg[weights=tiny.safetensors]", "-C", "vanilla", "--json", *SETTING).json
    assert [r["accuracy"] for r in again] == [measured["acc_original"], measured["acc_protected"]]
    assert len(computed) == 7


def test_training_is_that_of_run(ue_bench: Command, computed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(paper.ATTACKS, "ComDefend", "gray")  # in its place
    found = ue_bench("reproduce", "raeg-table3", *WEIGHTS, "--json", *SETTING)
    by_row = means(found.json)
    assert set(by_row) == {"originals", "protected", "protected_then_ComDefend", "recovered"}
    again = ue_bench("run", "-P", "raeg[weights=tiny.safetensors]", "-C", "vanilla,gray", "--json", *SETTING).json
    [defended] = [r for r in again if (r["protector"].startswith("raeg"), r["countermeasure"]) == (True, "gray")]
    assert by_row["protected_then_ComDefend"] == defended["metrics"]["accuracy_last"]
    assert by_row["protected"] in [r["metrics"]["accuracy_last"] for r in again]
    assert by_row["originals"] in [r["metrics"]["accuracy_last"] for r in again]
    assert by_row["originals"] > 90
    assert abs(by_row["recovered"] - by_row["originals"]) < 15
    [recovered] = rows(found.json)["recovered"]["protectors"]
    assert re.sub("#[0-9a-f]{8}", "", recovered) == 'recovered[of="raeg[weights=tiny.safetensors]"]'


def test_a_row_for_each_attack_and_a_note_where_one_is_not_there(
    ue_bench: Command, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "METHODS", {"RAEG": "raeg"})
    attacks = {"none": "vanilla", "JPEG_QF50": "jpeg[quality=50]", "ComDefend": "not-there"}
    monkeypatch.setattr(paper, "ATTACKS", attacks)
    done = ue_bench("reproduce", "raeg-table1", *WEIGHTS, "--images", "6", "--json", *SETTING)
    assert done.code == 0
    found = rows(done.json)
    assert found["RAEG JPEG_QF50"]["measured"]["here"][VICTIM]["n"] == 1
    assert found["clean images JPEG_QF50"]["printed"] == {}
    assert found["RAEG ComDefend"]["measured"] == {}
    assert found["RAEG ComDefend"]["printed"]["Mini-ImageNet ResNet-50"] == 9.9
    assert "not-there" in done.json["notes"][-1]
    assert {r.images for r in EvasionStore(Path("out")).results()} == {6}


def test_an_unseen_classifier(ue_bench: Command, computed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(paper.PARTS, "micro", {"Full Implementation": ""})
    monkeypatch.setattr(paper, "ATTACKS", {"none": "vanilla", "resize": "resize", "median_filter": "median"})
    command = ["reproduce", "raeg-table4", *WEIGHTS, *SETTING]
    done = ue_bench(*command, "--json")
    assert "Full Implementation, acc_transfer" in done.err
    assert done.code == 0
    assert rows(done.json)["Full Implementation acc_transfer"]["measured"] == {}
    done = ue_bench(*command, "--set", "unseen=linear", "--json")
    assert done.code == 0
    results = {
        (r.victim, r.protector.partition("[")[0], r.countermeasure): r for r in EvasionStore(Path("out")).results()
    }
    assert means(done.json) == {
        "Full Implementation psnr_recovered": results[VICTIM, "recovered", "vanilla"].psnr,
        "Full Implementation acc_protected": results[VICTIM, "raeg", "vanilla"].accuracy,
        "Full Implementation acc_defended": pytest.approx(
            (results[VICTIM, "raeg", "resize"].accuracy + results[VICTIM, "raeg", "median"].accuracy) / 2
        ),
    }
    assert means(done.json, "linear") == {
        "Full Implementation acc_transfer": results["linear", "raeg", "vanilla"].accuracy
    }
    several = ue_bench(*command, "--set", "unseen=linear,mlp")
    assert several.code == 2
    assert "'linear,mlp' is 2 victims" in several.err


def test_a_plan_computes_nothing(ue_bench: Command, computed: list[str]) -> None:
    done = ue_bench("reproduce", "raeg-table2", *WEIGHTS, "--dry-run", *SETTING)
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("3 of 3 cells to compute, 7 stages")
    assert computed == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raeg-table2", "--set", "natural=x"], "raeg-table2 has no setting 'natural'"),
        (["raeg-table2", "--fraction", "0.5"], "--fraction has no part in raeg-table2"),
        (["raeg-table2", "--set", "unseen=linear"], "raeg-table2 has no setting 'unseen'"),
        (["raeg-table3", "--images", "5"], "--images has no part in raeg-table3"),
        (["raeg-table3", "--transfer"], "--transfer has no part in raeg-table3"),
        (["raeg-table2", *WEIGHTS, "--set", "preset=paper"], "preset has no part in raeg-table2"),
        (["tableD", *WEIGHTS], "tableD has no setting 'weights'"),
        (["raeg-table5"], "no table 'raeg-table5'"),
        (["raeg-table2", "--set", "weights=nowhere"], "no file or folder at"),
    ],
)
def test_mistakes_are_one_line(ue_bench: Command, arguments: list[str], message: str) -> None:
    done = ue_bench("reproduce", *arguments, *SETTING)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
