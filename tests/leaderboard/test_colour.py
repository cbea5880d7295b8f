from __future__ import annotations

import pytest

from ue_bench.leaderboard.colour import DARK, LIGHT, contrast, level, levels

RAMPS = pytest.mark.parametrize("stops", [LIGHT, DARK], ids=["light", "dark"])


@RAMPS
def test_text_is_readable_on_every_level(stops: tuple[str, ...]) -> None:
    assert min(contrast(text, ground) for ground, text in levels(stops)) >= 4.5  # WCAG 2, level AA


@RAMPS
def test_lightness_is_monotone(stops: tuple[str, ...]) -> None:
    against_black = [contrast(ground, "#000000") for ground, _ in levels(stops)]
    assert against_black in (sorted(against_black), sorted(against_black, reverse=True))
    assert len(set(against_black)) == len(against_black)


def test_ends_are_the_given_colours() -> None:
    grounds = [ground for ground, _ in levels(LIGHT)]
    assert (grounds[0], grounds[-1]) == (LIGHT[0], LIGHT[-1])


def test_contrast_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


def test_levels_cover_every_accuracy() -> None:
    assert [level(a) for a in (-1.0, 0.0, 50.0, 100.0, 101.0)] == [0, 0, 25, 50, 50]
