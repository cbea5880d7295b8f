from __future__ import annotations

import pytest

from ue_bench.leaderboard.colour import DARK, LIGHT, STEP, Ramp, contrast, level, levels
from ue_bench.leaderboard.headline import BROKEN

RAMPS = pytest.mark.parametrize("ramp", [LIGHT, DARK], ids=["light", "dark"])


@RAMPS
def test_text_is_readable_on_every_level(ramp: Ramp) -> None:
    assert min(contrast(text, ground) for ground, text in levels(ramp)) >= 4.5  # WCAG 2, level AA


@RAMPS
def test_lightness_is_monotone(ramp: Ramp) -> None:
    against_black = [contrast(ground, "#000000") for ground, _ in levels(ramp)]
    assert against_black in (sorted(against_black), sorted(against_black, reverse=True))
    assert len(set(against_black)) == len(against_black)


def test_ends_are_the_given_colours() -> None:
    grounds = [ground for ground, _ in levels(LIGHT)]
    assert (grounds[0], grounds[-1]) == (LIGHT.kept[0], LIGHT.broken[-1])


@RAMPS
def test_what_is_broken_has_another_hue(ramp: Ramp) -> None:
    grounds = [ground for ground, _ in levels(ramp)]
    first = int(BROKEN / STEP)
    red, blue = (int(grounds[first][i : i + 2], 16) for i in (1, 5))
    assert red > blue
    red, blue = (int(grounds[first - 1][i : i + 2], 16) for i in (1, 5))
    assert red <= blue


def test_just_below_broken_is_not_shown_as_broken() -> None:
    assert level(BROKEN - 0.01) == level(BROKEN) - 1


def test_contrast_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


def test_levels_cover_every_share() -> None:
    assert [level(a) for a in (-1.0, 0.0, 50.0, 100.0, 101.0)] == [0, 0, 25, 50, 50]
