from __future__ import annotations

from ue_bench.leaderboard.families import Family, families


def test_columns_that_differ_in_one_number_are_a_curve_in_rising_order() -> None:
    found = families(["vanilla", "jpeg[quality=50]", "jpeg[quality=9]", "jpeg[quality=10]"])
    points = ((9.0, "jpeg[quality=9]"), (10.0, "jpeg[quality=10]"), (50.0, "jpeg[quality=50]"))
    assert found == [Family("jpeg", "quality", points)]


def test_two_points_words_and_combinations_are_none() -> None:
    assert families(["jpeg[quality=10]", "jpeg[quality=50]"]) == []
    assert families([f"x[mode={mode}]" for mode in ("a", "b", "true")]) == []
    assert families([f"gray+jpeg[quality={q}]" for q in (10, 20, 30)]) == []
    assert families(["[", "a[", "b"]) == []


def test_other_parameters_keep_curves_apart() -> None:
    columns = [f"d-vae[preset=micro,rate={r}]" for r in (0.1, 0.2, 0.4)] + ["d-vae[rate=0.1]", "d-vae[rate=0.3]"]
    [found] = families(columns)
    assert (found.name, found.parameter, len(found.points)) == ("d-vae[preset=micro]", "rate", 3)
