"""``ue-bench evade`` on stripes that a small network learns in seconds."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import planned

from ue_bench.catalogue.registry import registry
from ue_bench.contract.context import silent
from ue_bench.contract.plugin import Countermeasure, Dataset, Protector, Victim
from ue_bench.errors import UserError
from ue_bench.grid.cell import Cell, Data
from ue_bench.grid.data import stored_dataset
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.evasion import EvasionCell
from ue_bench.grid.stages.evade import EvadeStage
from ue_bench.store.evasion import EvasionStore
from ue_bench.store.results import ResultStore

from .conftest import Command
from .stripes import SETTING, VICTIM, write_stripes

ATTACK = f'rae-igsm[preset=micro,surrogate="{VICTIM}",eps=24/255]'


@pytest.fixture(autouse=True)
def stripes(tmp_path: Path) -> None:
    write_stripes(tmp_path / "stripes.npz")


def accuracies(found: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    return {(r["protector"].partition("[")[0], r["countermeasure"]): r["accuracy"] for r in found}


class TestEvade:
    def test_an_attacked_classifier_is_known_and_misled(self, ue_bench: Command, computed: list[str]) -> None:
        command = ["evade", "-P", ATTACK, "-C", "vanilla,gaussian-noise[std=1],gray", *SETTING]
        done = ue_bench(*command)
        assert done.code == 0
        kinds = [label.split()[0] for label in computed]
        assert kinds[:2] == ["protect", "train"]  # clean images need no classifier; the attack does
        assert computed[0].endswith("/none")
        attack = next(place for place, label in enumerate(computed) if label.startswith("protect") and place > 0)
        assert kinds[2].endswith("/none/vanilla/resnet9[width=4]/micro/s0/evasion")
        assert attack > 1
        found = ue_bench(*command, "--json").json
        assert len(computed) == 9  # 1 classifier, 2 sets, 6 cells: nothing was computed again
        numbers = accuracies(found)
        assert numbers["none", "vanilla"] > 90
        assert numbers["rae-igsm", "vanilla"] < 50  # white box
        assert numbers["none", "gaussian-noise[std=1.0]"] < numbers["none", "vanilla"] - 20
        # The very network that the protector attacked: there is no other in the cache.
        assert len(list(Path("cache/plugin").glob("*/weights.pt"))) == 1
        clean, protected = (next(r for r in found if r["protector"].startswith(p)) for p in ("none", "rae-igsm"))
        assert clean["psnr"] is None
        assert clean["ssim"] == 1
        assert 15 < protected["psnr"] < 30
        gray = next(r for r in found if (r["protector"], r["countermeasure"]) == ("none", "gray"))
        assert 10 < gray["psnr"] < 40  # of what the classifier is shown
        assert clean["images"] == clean["dataset"]["test"] == 30
        line = next(line.split() for line in done.out.splitlines() if line.startswith("vanilla"))
        assert line == ["vanilla", f"{numbers['none', 'vanilla']:.1f}", f"{numbers['rae-igsm', 'vanilla']:.1f}"]

        # Under a seed of its own, the classifier is another.
        moved = ue_bench("evade", "-P", ATTACK, "-C", "vanilla", "--transfer", "--json", *SETTING).json
        assert {r["classifier"] for r in moved}.isdisjoint({r["classifier"] for r in found})
        assert len(list(Path("cache/plugin").glob("*/weights.pt"))) == 2
        assert accuracies(moved)["none", "vanilla"] > 90

        # Results of training and of evasion do not meet.
        assert ResultStore(Path("out")).results() == []
        assert len(EvasionStore(Path("out")).results()) == 8

    def test_some_of_the_images(self, ue_bench: Command, computed: list[str]) -> None:
        command = ["evade", "-P", "none", "-C", "vanilla", "--json", *SETTING]
        [some] = ue_bench(*command, "--images", "9").json
        assert some["images"] == 9
        assert "@9/" in some["id"]
        assert some["accuracy"] * 9 / 100 == pytest.approx(round(some["accuracy"] * 9 / 100), abs=1e-3)
        [stored] = Path("cache/protected").iterdir()
        labels = np.load(stored / "labels.npy")
        assert np.bincount(labels).tolist() == [3, 3, 3]
        assert ue_bench(*command, "--images", "31").code == 2
        # All of them are all of them.
        assert ue_bench(*command, "--images", "30").json[0]["key"] == ue_bench(*command).json[0]["key"]

    def test_stored_steps_are_kept_and_shared(self, ue_bench: Command, computed: list[str]) -> None:
        victims = ["-V", "linear,resnet9[width=4]"]
        ue_bench("evade", "-P", "none", "-C", "jpeg[quality=10]", *SETTING, *victims)
        assert [label.split()[0] for label in computed].count("purify") == 1
        [jpeg, _] = EvasionStore(Path("out")).results()
        assert 5 < (jpeg.psnr or 0) < 40  # of what the classifier is shown

    def test_a_plan_computes_nothing(self, ue_bench: Command, computed: list[str]) -> None:
        done = ue_bench("evade", "-P", "lsp", "-C", "vanilla", "--dry-run", *SETTING)
        assert [line.split()[0] for line in done.out.splitlines()[:-1]] == [
            "plugin", "protected", "evasion", "protected", "evasion"
        ]  # fmt: skip
        assert done.out.splitlines()[0].split()[2] != "train"  # the time of the classifier's passes
        assert done.out.splitlines()[-1].startswith("2 of 2 cells to compute, 5 stages")
        assert computed == []

    def test_clean_images_are_those_of_the_board(self, ue_bench: Command) -> None:
        text = (files("ue_bench.boards") / "demo.toml").read_text(encoding="utf-8")
        Path("other.toml").write_text(f"clean = 'noise'\n{text}", encoding="utf-8")
        planned = ue_bench("evade", "-P", "lsp", "-C", "vanilla", *SETTING, "--board", "./other.toml", "--dry-run")
        assert planned.code == 0, planned.err
        assert "/noise/vanilla/" in planned.out
        assert "/none/vanilla/" not in planned.out

    def test_a_failure_is_told(self, ue_bench: Command, computed: list[str]) -> None:
        done = ue_bench("evade", "-P", "raeg[weights=stripes.npz]", "-C", "vanilla", *SETTING)
        assert done.code == 1
        assert "1 of 2 cells have results" in done.err
        assert "raeg" not in done.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["-C", "at"], "at trains networks or reads labels"),
            (["-C", "cutmix"], "cutmix trains networks"),
            (["-C", "orthogonal-projection"], "orthogonal-projection trains networks"),
            (["-C", "gray+deep-feature-reweighting[clean=30]"], "trains networks"),
            (["-V", "simclr"], "learns something of its own first"),
            (["--json", "--markdown"], "exclude each other"),
        ],
    )
    def test_what_has_no_meaning_is_refused(self, ue_bench: Command, arguments: list[str], message: str) -> None:
        done = ue_bench("evade", "-P", "none", *SETTING, *arguments)
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err


class TestCells:
    @pytest.fixture
    def cell(self, ue_bench: Command, tmp_path: Path) -> EvasionCell:
        from ue_bench.catalogue.protocols import protocol

        [data] = registry().resolve("dataset", f"npz[path={tmp_path / 'stripes.npz'}]")
        env = RunEnvironment(tmp_path / "cache", tmp_path, tmp_path / "out")
        assert isinstance(data, Dataset)
        stored: Data = stored_dataset(data, env, silent)
        parts: list[Any] = [
            registry().resolve(kind, name)[0]
            for kind, name in (("protector", "lsp"), ("countermeasure", "jpeg"), ("victim", VICTIM))
        ]
        protector, step, victim = parts
        trained = Cell(stored, protector, step, victim, protocol("micro"), 0, 1.0, "fp32")
        return EvasionCell.of(trained, None, False)

    def test_everything_that_matters_is_in_the_key(self, cell: EvasionCell) -> None:
        from dataclasses import fields, replace

        from ue_bench.catalogue.protocols import protocol

        [other] = registry().resolve("protector", "ops")
        [step] = registry().resolve("countermeasure", "gray")
        [victim] = registry().resolve("victim", "linear")
        assert isinstance(other, Protector)
        assert isinstance(step, Countermeasure)
        assert isinstance(victim, Victim)
        changed = [
            replace(cell, protector=other), replace(cell, countermeasure=step), replace(cell, victim=victim),
            replace(cell, protocol=protocol("smoke")), replace(cell, seed=1), replace(cell, precision="bf16"),
            replace(cell, images=3), replace(cell, transfer=True),
        ]  # fmt: skip
        assert len({c.key for c in [cell, *changed]}) == 9
        assert len({c.id for c in [cell, *changed]}) == 8  # precision is in no id
        trained = Cell(**{field.name: getattr(cell, field.name) for field in fields(Cell)})
        assert trained.key != cell.key  # nor is it that of a training cell

    def test_stages_wait_for_what_they_need(self, cell: EvasionCell) -> None:
        evade = EvadeStage(cell)
        waits = {p.stage.key: p.needs for p in planned([evade])}
        assert list(waits) == [s.key for s in (evade.classifier, evade.protect, evade.purify, evade)]
        assert waits[evade.key] == (evade.classifier.key, evade.protect.key, evade.purify.key)
        assert waits[evade.protect.key] == ()  # lsp asks no network
        left = planned([evade], lambda kind, key: kind in ("plugin", "protected"))
        assert [p.stage.key for p in left] == [evade.purify.key, evade.key]
        assert planned([evade], lambda kind, key: kind == "evasion") == []

    def test_a_protector_waits_for_the_classifier_that_it_may_attack(self, cell: EvasionCell) -> None:
        from dataclasses import replace

        [other] = registry().resolve("protector", ATTACK)
        assert isinstance(other, Protector)
        attacked = EvadeStage(replace(cell, protector=other))
        waits = {p.stage.key: p.needs for p in planned([attacked])}
        assert waits[attacked.protect.key] == (attacked.classifier.key,)

    def test_too_many_images(self, cell: EvasionCell) -> None:
        with pytest.raises(UserError, match="31 test images are wanted, there are 30"):
            EvasionCell.of(cell, 31, False)
