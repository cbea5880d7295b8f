"""Tables that differ in the victim alone, beside one another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ue_bench.leaderboard import parts
from ue_bench.leaderboard.statistics import panels
from ue_bench.leaderboard.victims import groups, named_victims
from ue_bench.store.schema import Result

from .factory import BOARD, grid, result

VICTIMS = ("vgg11", "resnet18")
ROWS = {
    "resnet18": {"none": (90.0, 80.0), "em": (10.0, 20.0), "ar": (50.0, 20.0)},
    "vgg11": {"none": (80.0, 70.0), "em": (66.0, 20.0), "ar": (24.0, 20.0)},
}
TWO = [r for victim, rows in ROWS.items() for r in grid(rows, victim=victim)]
OF_TWO = replace(BOARD, victims=VICTIMS)


def test_panels_that_differ_in_the_victim_alone_are_a_group_in_the_order_of_the_board() -> None:
    apart = grid({"em": (30.0, 40.0)}, victim="vgg11", fraction=0.5) + grid({"em": (1.0, 2.0)}, precision="bf16")
    shown = panels([*TWO, *apart], OF_TWO)
    [group] = groups(shown)

    assert group.victims == VICTIMS
    assert [shown[i].victim for i in group.numbers] == list(VICTIMS)
    assert group.setting == "2 victims, protocol fast v1, fp32, 100 % of the training set protected"
    assert groups(panels(grid(ROWS["vgg11"], victim="vgg11"), OF_TWO)) == []


def test_rows_are_sorted_by_the_share_over_victims_and_hold_what_each_recovers() -> None:
    [group] = groups(panels(TWO, OF_TWO))

    lines = {name: [(n.accuracy, n.share) for n in numbers if n] for name, numbers in group.lines()}

    assert list(lines) == ["none", "ar", "em"]  # 35 % and 40 % in the mean of both victims
    assert lines["em"] == [("66.0", "80 %"), ("10.0", "0 %")]
    assert lines["ar"] == [("24.0", "20 %"), ("50.0", "50 %")]


def test_a_row_that_lacks_a_victim_stands_last_and_has_a_gap() -> None:
    [group] = groups(panels([*TWO, *grid({"cuda": (10.0, 10.0)}, victim="vgg11")], OF_TWO))

    name, numbers = group.lines()[-1]

    assert name == "cuda"
    assert [n.accuracy if n else None for n in numbers] == ["10.0", None]


@pytest.mark.parametrize(
    ("protector", "named"),
    [
        ("em[surrogate=resnet18]", ["resnet18"]),
        ("em[preset=micro]+ar[of='resnet9[blocks=1]']", ["resnet9[blocks=1]"]),
        ("resnet18", []),
        ("em[surrogate=resnet50]", []),
        ("em[", []),
    ],
)
def test_networks_are_those_that_a_parameter_names(protector: str, named: list[str]) -> None:
    [panel] = panels([result(protector)], BOARD)

    assert named_victims(panel.rows[0], ["resnet18", "resnet9[blocks=1]", "vgg11"]) == named


def test_the_overview_of_a_large_board_shows_victims_beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_RESULTS", 4)

    def overview(results: list[Result]) -> str:
        return parts.pages(OF_TWO, panels(results, OF_TWO), None, evasion=False)["index.html"]

    assert "66.0<small>80 %</small>" in overview(TWO)
    assert 'id="victims-1"' in overview(TWO)
    assert 'id="victims-1"' not in overview(grid(ROWS["vgg11"], victim="vgg11"))
