from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ue_bench.leaderboard.badges import REPORTED
from ue_bench.leaderboard.findings import findings, main_panel
from ue_bench.leaderboard.front_page import verdicts
from ue_bench.leaderboard.statistics import Panel, panels
from ue_bench.store.schema import Result

from .factory import BOARD, grid, result

THREE = replace(BOARD, countermeasures=("vanilla", "jpeg[quality=10]", "gray"), reference=("none",))
CLEAN = (90.0, 70.0, 50.0)  # chance is 10: tops of 80, 60 and 40


def rows(accuracies: Mapping[str, tuple[float, ...]], **changes: object) -> list[Result]:
    return [
        result(protector, column, value, **changes)
        for protector, values in accuracies.items()
        for column, value in zip(THREE.countermeasures, values, strict=True)
    ]


def panel(*results: list[Result]) -> Panel:
    [found] = panels([r for some in results for r in some], THREE)
    return found


def texts(*results: list[Result]) -> list[str]:
    return [finding.text for finding in findings(panel(*results))]


def test_what_an_adversary_gets_most_with() -> None:
    [first, *_] = texts(rows({"none": CLEAN, "em": (10.0, 64.0, 30.0), "ar": (90.0, 70.0, 10.0)}))

    # JPEG: mean accuracy 67, shares 90 and 100 %; vanilla: 50 in the mean
    assert first.startswith(
        "An adversary gets most with jpeg[quality=10]: 67.0 % accuracy in the mean of 2 protectors, where clean images "
        "give 70.0 %. That is a recovered share of 95 % (n = 1; 95 % interval of the test set alone "
    )
    assert first.endswith("and breaks 2 of 2.")


def test_a_row_that_somebody_reported_is_in_no_finding() -> None:
    reported = rows({"em": (10.0, 10.0, 10.0)})
    results = [*rows({"none": CLEAN, "ar": (90.0, 70.0, 10.0)}), *reported]
    [found] = panels(results, THREE, {r.key: REPORTED for r in reported})
    assert "em" not in {piece for finding in findings(found) for piece, is_name in finding.pieces if is_name}
    assert verdicts(found).kept.keys() == {"ar"}


def test_a_row_of_one_cell_does_not_choose_the_column() -> None:
    whole = rows({"none": CLEAN, "em": (10.0, 64.0, 30.0), "ar": (90.0, 70.0, 10.0)})
    [first, *_] = texts(whole, [result("tap", "vanilla", 20.0)])
    assert first.startswith("An adversary gets most with jpeg[quality=10]: 67.0 % accuracy in the mean of 2 protectors")


def test_which_row_with_a_bound_leaves_least_and_an_unbounded_one_never() -> None:
    best = rows({"em": (10.0, 64.0, 30.0)})
    unbounded = rows({"cuda": (10.0, 10.0, 10.0)}, declared="none")
    found = texts(rows({"none": CLEAN, "ar": (90.0, 70.0, 10.0)}), best, unbounded)

    # shares of em: 0, 90 and 50 %
    assert found[1].startswith(
        "Of 2 protectors with a bound em (Linf 8/255, PSNR 32.5 dB, rank 1–2 of 2 in its class) leaves an adversary "
        "least: a recovered share of 47 % (n = 1; "
    )
    assert found[1].endswith("in the mean of 3 countermeasures. In the worst one, jpeg[quality=10], it is 90 %.")


def test_none_withstands_all() -> None:
    found = texts(rows({"none": CLEAN, "em": (10.0, 64.0, 30.0), "ar": (90.0, 70.0, 10.0)}))

    assert found[2] == (
        "None of 2 protectors with a bound withstands all 3 countermeasures: each is broken by 1 or more, which give "
        "back 80 % of the clean accuracy above chance. Most, 2 of 2, are broken by jpeg[quality=10]."
    )


def test_those_that_withstand_all_are_named() -> None:
    found = texts(rows({"none": CLEAN, "em": (10.0, 20.0, 30.0), "ar": (90.0, 70.0, 10.0)}))

    assert found[2] == (
        "1 of 2 protectors with a bound withstand all 3 countermeasures: em. No column gives back 80 %."
    )


def test_countermeasures_that_break_as_many_are_named_up_to_three() -> None:
    columns = ("vanilla", "jpeg[quality=10]", "gray", "mean", "median")
    board = replace(THREE, countermeasures=columns)
    results = [result(p, c, v) for p, v in (("none", 90.0), ("em", 88.0)) for c in columns]

    [found] = panels(results, board)

    assert findings(found)[2].text.endswith("Most, 1 of 1, are broken by vanilla, jpeg[quality=10], gray and 2 more.")


def test_several_seeds_give_an_interval_over_them() -> None:
    both = [rows({"none": CLEAN, "em": (10.0, 64.0, 30.0 + 2 * seed)}, seed=seed) for seed in (0, 1)]

    found = texts(*both)

    assert " ± " in found[1]
    assert "(n = 2)" in found[1]


def test_references_are_no_findings() -> None:
    assert texts(rows({"none": CLEAN})) == []
    assert texts(rows({"none": CLEAN, "em": (10.0, 64.0, 30.0)}))[1].startswith("Of protectors with a bound em (")


def test_a_board_that_is_hardly_filled_says_what_it_can() -> None:
    alone = [result("none", "vanilla", 90.0), result("em", "vanilla", 10.0)]

    [only] = texts(alone)

    assert only.startswith("An adversary gets most with vanilla: 10.0 %")
    assert texts([result("em", "vanilla", 10.0)]) == []  # no clean row, no shares


def test_names_are_told_from_text() -> None:
    [first, *_] = findings(panel(rows({"none": CLEAN, "em": (10.0, 64.0, 30.0)})))

    assert [text for text, is_name in first.pieces if is_name] == ["jpeg[quality=10]"]


def test_the_main_panel_has_most_results() -> None:
    few = grid({"em": (10.0, 20.0)}, victim="vgg11")
    many = grid({"none": (90.0, 70.0), "em": (10.0, 20.0)})

    found = main_panel(panels(few + many, BOARD))

    assert found is not None
    assert found.victim == "resnet18"
    assert main_panel([]) is None
