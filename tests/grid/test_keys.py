from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import PROTOCOL, Brighter, Clean, Doubler, Halver, Linear, Needy, Plain, Toy, planned, toy_cell, toy_data

from ue_bench.contract.combination import combine
from ue_bench.contract.inputs import digest_path
from ue_bench.contract.protocol import Protocol
from ue_bench.errors import UserError
from ue_bench.grid.cell import Cell, cells
from ue_bench.grid.stages.protect import ProtectStage
from ue_bench.grid.stages.purify import PurifyStage
from ue_bench.grid.stages.train import TrainStage
from ue_bench.keys import canonical_json, digest
from ue_bench.seeds import derive

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_canonical_json_is_json_of_the_same_data(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert "\n" not in text


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": [1.5, None], "a": "ü"}) == '{"a":"\\u00fc","b":[1.5,null]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_digest_is_the_head_of_sha256() -> None:
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()[:32]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_have_no_key(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        digest([value])


# Golden values, from sha256 of the axes joined by unit separators, halved. They must never change: stored results
# would no longer be found, and the same command would give other numbers.
@pytest.mark.parametrize(
    ("axes", "seed"),
    [
        ((0, "protect"), 8210681758332934719),
        ((0, "train"), 2247946608620987588),
        ((1, "protect"), 2149358003514173300),
        ((0, "a", "b"), 4392146418516290042),
    ],
)
def test_seeds_are_stable(axes: tuple[Any, ...], seed: int) -> None:
    assert derive(*axes) == seed


def test_seeds_are_63_bits_and_tell_axes_apart() -> None:
    axes: list[tuple[int, *tuple[int | str, ...]]] = [
        (0,),
        (1,),
        (0, "a"),
        (0, "b"),
        (0, "a", "b"),
        (0, "ab"),
        (0, "", "ab"),
        (0, "a", 1),
        (0, "a1"),
    ]
    seeds = [derive(*a) for a in axes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)


def test_the_key_of_a_cell_is_stable() -> None:
    """A golden value: whoever changes it must raise a revision, or stored results are lost without a word."""
    assert toy_cell().key == "33f9aae43caa8133907bb5ee368d11f0"


class Revised(Toy):
    revision: ClassVar[int] = 2


class Narrow(Linear):
    def optimizer(self) -> dict[str, Any]:
        return {"learning_rate": 0.01}


CHANGES: dict[str, dict[str, Any]] = {
    "training images": {"data": toy_data(train="other")},
    "test images": {"data": toy_data(test="other")},
    "protector": {"protector": Clean()},
    "parameter of the protector": {"protector": Toy(eps="9/255")},
    "revision of the protector": {"protector": Revised()},
    "countermeasure": {"countermeasure": Plain()},
    "parameter of the countermeasure": {"countermeasure": Brighter(by=2)},
    "treatment of test images": {"countermeasure": Brighter(apply_to_test=True)},
    "combination": {"countermeasure": combine(Brighter(), Halver())},
    "order in a combination": {"countermeasure": combine(Halver(), Brighter())},
    "parameter of the victim": {"victim": Linear(width=2)},
    "optimizer of the victim": {"victim": Narrow()},
    "seed": {"seed": 1},
    "fraction": {"fraction": 0.5},
    "precision": {"precision": "bf16"},
    "protocol's version": {"protocol": PROTOCOL.model_copy(update={"version": 2})},
    "protocol's length": {"protocol": PROTOCOL.model_copy(update={"epochs": 3})},
    "protocol's optimizer": {"protocol": PROTOCOL.model_copy(update={"optimizer": "adam"})},
    "protocol's override": {"protocol": PROTOCOL.model_copy(update={"overrides": {"brighter": {"pad": 0}}})},
}


def test_every_axis_changes_the_key() -> None:
    keys = {name: toy_cell(**change).key for name, change in CHANGES.items()} | {"": toy_cell().key}
    assert len(set(keys.values())) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"protector": Toy(count=3)},
        {"protocol": PROTOCOL.model_copy(update={"summary": "other words", "source": "elsewhere"})},
        {"protocol": PROTOCOL.model_copy(update={"overrides": {"another": {"epochs": 9}}})},
    ],
    ids=["default spelled out", "words", "override of another countermeasure"],
)
def test_what_cannot_change_the_number_leaves_the_key(change: dict[str, Any]) -> None:
    assert toy_cell(**change).key == toy_cell().key


def test_a_parameter_that_was_added_leaves_old_keys_alone() -> None:
    class Grown(Toy):
        extra: int = 0

    class GrownProtocol(Protocol):
        extra: int = 0

    grown = GrownProtocol(**PROTOCOL.model_dump())
    assert toy_cell(protector=Grown(), protocol=grown).key == toy_cell().key
    assert toy_cell(protector=Grown(extra=1)).key != toy_cell().key


def test_the_id_is_readable() -> None:
    cell = toy_cell(protector=Toy(eps="16/255"), countermeasure=combine(Halver(), Brighter(by=2)), seed=3, fraction=0.5)
    assert cell.id == "files/toy[eps=16/255]@0.5/halver+brighter[by=2]/linear/toy/s3"


def test_the_content_of_an_input_enters_the_key_and_its_name_does_not(tmp_path: Path) -> None:
    first, same, other = tmp_path / "first.npz", tmp_path / "same.npz", tmp_path / "other.npz"
    first.write_bytes(b"one")
    same.write_bytes(b"one")
    other.write_bytes(b"two")
    keys = [toy_cell(protector=Needy(path=p)).key for p in (first, same, other)]
    assert keys[0] == keys[1] != keys[2]
    optional = [toy_cell(protector=Needy(path=first, other=p)).key for p in (None, first, same, other)]
    assert optional[1] == optional[2]
    assert len(set(optional)) == 3
    assert Needy(path=first).selector == f"needy[path=first.npz#{digest_path(first)[:8]}]"


def test_a_folder_counts_with_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    digests = set()
    for number, files in enumerate([{"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": ""}, {"sub/a": "1"}]):
        folder = tmp_path / str(number) / "images"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        digests.add(digest_path(folder))
    assert len(digests) == 5


def test_an_input_that_is_not_there_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder at"):
        _ = toy_cell(protector=Needy(path=tmp_path / "none")).key


class Surrogate(Toy):
    @property
    def uses_networks(self) -> bool:
        return self.flag


def test_the_precision_is_part_of_sets_that_networks_have_shaped() -> None:
    for flag, keys in ((False, 1), (True, 2)):
        cells = [toy_cell(protector=Surrogate(flag=flag), precision=p) for p in ("fp32", "bf16")]
        assert len({protect(cell).key for cell in cells}) == keys


def protect(cell: Cell) -> ProtectStage:
    return TrainStage(cell).protect


@pytest.mark.parametrize(
    "change",
    [
        {"countermeasure": Plain()},
        {"victim": Linear(width=2)},
        {"protocol": PROTOCOL.model_copy(update={"epochs": 9})},
        {"fraction": 0.5},
        {"precision": "bf16"},
        {"data": toy_data(test="other")},
    ],
    ids=lambda c: next(iter(c)),
)
def test_one_protected_set_serves_all_thieves(change: dict[str, Any]) -> None:
    assert protect(toy_cell(**change)).key == protect(toy_cell()).key
    assert protect(toy_cell(**change)).stage_seed == protect(toy_cell()).stage_seed


@pytest.mark.parametrize("change", [{"protector": Clean()}, {"seed": 1}, {"data": toy_data(train="other")}])
def test_a_protected_set_belongs_to_its_data_protector_and_seed(change: dict[str, Any]) -> None:
    assert protect(toy_cell(**change)).key != protect(toy_cell()).key


def test_seeds_of_stages_differ() -> None:
    stage = TrainStage(toy_cell())
    assert len({stage.protect.stage_seed, stage.purify.stage_seed, stage.cell.seed}) == 3


def test_a_purified_set_depends_on_the_purifiers_alone() -> None:
    def key(*countermeasures: Any, fraction: float = 1.0) -> str:
        joined = countermeasures[0] if len(countermeasures) == 1 else combine(*countermeasures)
        return PurifyStage(protect(toy_cell()), fraction, joined).key

    assert key(Doubler()) == key(Doubler(), Halver())
    assert len({key(Doubler()), key(Brighter()), key(Doubler(), Brighter()), key(Doubler(), fraction=0.5)}) == 4


def grid(**changes: Any) -> list[Cell]:
    axes: dict[str, Any] = {
        "data": toy_data(),
        "protectors": [Clean(), Toy()],
        "countermeasures": [Plain(), Doubler()],
        "victims": [Linear(), Linear(width=2)],
        "protocol": PROTOCOL,
        "seeds": [0, 1],
        "fraction": 1.0,
        "precision": "fp32",
    }
    return list(cells(**(axes | changes)))


def goals(cells: list[Cell]) -> list[TrainStage]:
    return [TrainStage(cell) for cell in cells]


def test_the_grid_is_whole_and_ordered_by_rows() -> None:
    found = grid()
    assert len({c.key for c in found}) == 16
    assert [c.protector.name for c in found] == ["clean"] * 8 + ["toy"] * 8
    assert [c.countermeasure.name for c in found[:4]] == ["plain", "doubler", "plain", "doubler"]


def test_stages_are_shared_and_come_before_what_needs_them() -> None:
    found = planned(goals(grid()))
    count = {kind: sum(p.stage.kind == kind for p in found) for kind in ("protected", "purified", "result")}
    assert count == {"protected": 4, "purified": 4, "result": 16}
    seen: set[str] = set()
    for p in found:
        assert set(p.needs) <= seen
        seen.add(p.stage.key)
    doubled = [p for p in found if p.stage.kind == "result" and "doubler" in p.stage.label]
    assert {len(p.needs) for p in doubled} == {2}


def test_what_exists_is_not_planned() -> None:
    wanted = grid()
    assert planned(goals(wanted), lambda kind, key: kind == "result") == []
    first = wanted[0].key
    found = planned(goals(wanted[:1] + wanted[-1:]), lambda kind, key: key == first)
    assert {p.stage.kind for p in found} == {"protected", "purified", "result"}
    assert all("clean" not in p.stage.label for p in found)
    [train] = planned(goals(wanted[:1]), lambda kind, key: kind == "protected")
    assert train.needs == ()


def test_an_input_path_may_start_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ue_bench.catalogue.registry import registry

    monkeypatch.setenv("HOME", str(tmp_path))
    [plugin] = registry().resolve("dataset", "npz[path=~/set.npz]")

    assert plugin.model_dump()["path"] == tmp_path / "set.npz"


def test_keys_that_a_grid_computes_by_row_and_column_are_those_of_its_cells() -> None:
    axes = [Toy(), Toy(count=5)], [Brighter(), Doubler()], [Linear(), Linear(width=2)]
    grid = cells(toy_data(), *axes, PROTOCOL, [0, 7], 0.5, "bf16")
    assert [cell.key for cell in grid] == [digest(cell.identity()) for cell in grid]
    assert [cell.key for cell in grid] == [grid[place].key for place in range(len(grid))]
    assert list(cells(toy_data(), [], *axes[1:], PROTOCOL, [0], 1.0, "fp32")) == []
