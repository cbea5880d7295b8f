"""What cells of a grid share: keys from texts that are there already, and cells that are made when asked for."""

from __future__ import annotations

import pickle
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toys import PROTOCOL, Brighter, Clean, Doubler, Halver, Linear, Needy, Plain, Toy, planned, toy_data

from ue_bench.catalogue.registry import registry
from ue_bench.contract.combination import combine, purifiers
from ue_bench.contract.plugin import Countermeasure, Protector
from ue_bench.grid.cell import Cell, Cells, cells, protocol_identity
from ue_bench.grid.evasion import REVISION, EvasionCell
from ue_bench.grid.shared import Shared
from ue_bench.grid.stages.base import Stage
from ue_bench.grid.stages.evade import EvadeStage, ProtectTestStage, PurifyTestStage
from ue_bench.grid.stages.features import FeatureStage
from ue_bench.grid.stages.protect import ProtectStage
from ue_bench.grid.stages.purify import PurifyStage
from ue_bench.grid.stages.train import TrainStage
from ue_bench.keys import digest
from ue_bench.seeds import derive


class Attack(Toy):
    @property
    def uses_networks(self) -> bool:
        return True


RECIPE = PROTOCOL.model_copy(update={"overrides": {"brighter": {"pad": 0}, "halver": {"batch": 2}}})


def grid(path: Path, **changes: Any) -> Cells:
    path.write_text("content", encoding="utf-8")
    axes: dict[str, Any] = {
        "data": toy_data(),
        "protectors": [Clean(), Toy(eps="9/255", text='"\\é\0'), Attack(), Needy(path=path)],
        "countermeasures": [Plain(), Doubler(), combine(Halver(), Brighter(by=2)), combine(Doubler(), Halver())],
        "victims": [Linear(), Linear(width=2)],
        "protocol": RECIPE,
        "seeds": [0, 12],
        "fraction": 0.3,
        "precision": "bf16",
    }
    return cells(**(axes | changes))


def identity(cell: Cell) -> dict[str, Any]:
    """What a key is the digest of, written out."""
    return {
        "engine": 1,
        "train": cell.data.train_fingerprint,
        "test": cell.data.test_fingerprint,
        "protector": cell.protector.identity(),
        "countermeasure": cell.countermeasure.identity(),
        "victim": cell.victim.identity(),
        "protocol": protocol_identity(
            cell.protocol.under([c.name for c in parts(cell.countermeasure)], cell.victim.optimizer())
        ),
        "seed": cell.seed,
        "fraction": cell.fraction,
        "precision": cell.precision,
    }


def parts(countermeasure: Countermeasure) -> tuple[Countermeasure, ...]:
    return getattr(countermeasure, "members", (countermeasure,))


def test_keys_are_digests_of_identities(tmp_path: Path) -> None:
    found = list(grid(tmp_path / "x.npz"))
    assert len(found) == 64
    for cell in found:
        assert cell.key == digest(identity(cell)) == digest(cell.identity())
        assert cell.identity() == identity(cell)
        assert FeatureStage(cell).key == digest({"features": 1, "cell": cell.key})


def test_keys_of_shared_stages_are_digests_of_what_they_depend_on(tmp_path: Path) -> None:
    for cell in grid(tmp_path / "x.npz"):
        networks = {"precision": "bf16"} if isinstance(cell.protector, Attack) else {}
        protected = digest(
            {"train": "train", "protector": cell.protector.identity(), "seed": derive(cell.seed, "protect"), **networks}
        )
        assert ProtectStage.of(cell).key == protected
        identities = [p.identity() for p in purifiers(cell.countermeasure)]
        purified = {
            "protected": protected,
            "fraction": 0.3,
            "purifiers": identities,
            "seed": derive(cell.seed, "purify"),
        }
        assert PurifyStage.of(cell).key == digest(purified)


@pytest.fixture
def evasion(tmp_path: Path) -> list[EvasionCell]:
    chosen = [c for c in grid(tmp_path / "x.npz") if not any(p.name == "procedure" for p in parts(c.countermeasure))]
    return [EvasionCell.of(c, images, transfer) for c in chosen for images in (None, 3) for transfer in (False, True)]


def test_keys_of_evasion_are_digests_of_identities(evasion: list[EvasionCell]) -> None:
    plain = registry().one("countermeasure", "@plain").name
    for cell in evasion:
        named = cell.protocol.model_copy(update={"name": "surrogate", "version": 1, "eval_every": 1})
        wanted = {
            "evasion": REVISION,
            **{name: value for name, value in identity(cell).items() if name not in {"protocol", "fraction"}},
            "images": cell.images,
            "recipe": protocol_identity(named.under([plain], cell.victim.optimizer())),
            "transfer": cell.transfer,
        }
        assert cell.key == digest(wanted) == digest(cell.identity())
        networks = {"precision": "bf16"} if isinstance(cell.protector, Attack) else {}
        protected = {
            "evasion": REVISION,
            "train": "train",
            "test": "test",
            "images": cell.images,
            "protector": cell.protector.identity(),
            "seed": derive(cell.seed, "protect"),
            **networks,
        }
        assert ProtectTestStage.of(cell).key == digest(protected)
        identities = [p.identity() for p in purifiers(cell.countermeasure)]
        purified = {"protected": digest(protected), "purifiers": identities, "seed": derive(cell.seed, "purify")}
        assert PurifyTestStage.of(cell).key == digest(purified)


def alone(cell: Cell) -> Cell:
    """The same cell, sharing nothing."""
    return type(cell)(**{f.name: getattr(cell, f.name) for f in fields(cell) if f.name != "shared"})


def test_a_cell_alone_has_the_keys_that_it_has_in_a_grid(tmp_path: Path, evasion: list[EvasionCell]) -> None:
    goals: list[Stage] = [TrainStage(cell) for cell in grid(tmp_path / "x.npz")]
    goals += [EvadeStage(cell) for cell in evasion]
    for stage in goals:
        lonely = type(stage)(alone(stage.cell))  # type: ignore[attr-defined, call-arg]  # stages of a cell
        assert [s.key for s in (lonely, *lonely.needs())] == [s.key for s in (stage, *stage.needs())]
        assert [s.label for s in (lonely, *lonely.needs())] == [s.label for s in (stage, *stage.needs())]
        assert lonely.cost() == stage.cost()


def test_a_cell_that_was_changed_has_a_key_of_its_own(tmp_path: Path) -> None:
    cell = grid(tmp_path / "x.npz")[0]
    before = cell.key
    for change in ({"protector": Toy()}, {"seed": 7}, {"fraction": 1.0}, {"countermeasure": Halver()}):
        changed = replace(cell, **change)
        assert changed.key == digest(identity(changed)) != before


def test_shared_texts_outlive_no_plugin_whose_place_another_takes() -> None:
    shared = Shared()
    seen = {shared.identity(Toy(count=count)).text for count in range(50)}  # each is garbage at once
    assert len(seen) == 50


def test_what_is_shared_stays_behind(tmp_path: Path) -> None:
    """A cell is sent to workers thousands of times: it must not carry the texts of the whole grid with it."""
    wanted = grid(tmp_path / "x.npz")
    cell = wanted[0]
    size = len(pickle.dumps(TrainStage(alone(cell))))
    assert len({c.key for c in wanted}) == 64
    assert len(pickle.dumps(TrainStage(cell))) < size + 200
    assert pickle.loads(pickle.dumps(cell)).key == cell.key


def test_cells_are_a_sequence(tmp_path: Path) -> None:
    wanted = grid(tmp_path / "x.npz")
    listed = list(wanted)
    assert len(wanted) == len(listed) == 64
    assert [wanted[i] for i in range(64)] == listed
    assert wanted[-1] == listed[-1]
    assert wanted[3:60:7] == listed[3:60:7]
    with pytest.raises(IndexError):
        wanted[64]


def test_an_identity_is_asked_for_once(tmp_path: Path) -> None:
    """Planning must not take the time of pydantic a cell. Counted, because seconds would depend on the machine."""

    class Counted(Clean):
        asked: ClassVar[list[str]] = []

        def identity(self) -> dict[str, Any]:
            self.asked.append(self.name)
            return super().identity()

    wanted = grid(tmp_path / "x.npz", protectors=[Counted()], seeds=range(100))
    assert len(planned(TrainStage(cell) for cell in wanted)) == 100 * (1 + 1 + 8)
    assert len(Counted.asked) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux counts it")
def test_a_million_cells_are_planned_in_a_gigabyte_and_a_half() -> None:
    protectors: list[Protector] = [Toy(count=count) for count in range(1000)]
    columns = [Doubler(), *(Brighter(by=by) for by in range(24))]
    wanted = cells(
        toy_data(), protectors, columns, [Linear(width=w) for w in (1, 2, 3, 4)], PROTOCOL, range(10), 1.0, "fp32"
    )

    def goals() -> Iterator[TrainStage]:
        return (TrainStage(cell) for cell in wanted)

    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = planned(goals())
    seconds, kilobytes = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(found) == 1_000_000 + 10_000 + 10_000
    print(f"{seconds:.1f} s, {kilobytes / 1e6:.2f} GB")
    assert kilobytes < 1.5e6
