"""The rounding rules of the releases; expected values follow from their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ue_bench.api import Diverged
from ue_bench_baselines.quantise import budget, keep_linf, perturb, quantise, whole_levels

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["round", "truncate"])
def test_every_byte_survives_the_way_over_the_unit_interval(rule: Any, dtype: Any) -> None:
    unit = LEVELS.astype(dtype) / dtype(255)

    assert np.array_equal(quantise(unit * dtype(255), rule), LEVELS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["round", "truncate", "integer"])
def test_no_perturbation_changes_nothing(rule: Any, dtype: Any) -> None:
    assert np.array_equal(perturb(LEVELS, np.zeros(256, dtype), rule), LEVELS)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("round", [101, 102, 99, 109, 92, 103]),  # halves up, of the sum
        ("truncate", [100, 101, 98, 108, 91, 102]),
        ("integer", [100, 102, 99, 108, 92, 102]),  # halves to even, of the perturbation
    ],
)
def test_rules(rule: Any, expected: list[int]) -> None:
    perturbation = np.array([0.5, 1.5, -1.4, 8.5, -8.2, 2.5])

    assert perturb(np.full(6, 100, np.uint8), perturbation, rule).tolist() == expected


@pytest.mark.parametrize("rule", ["round", "truncate", "integer"])
def test_sums_are_clipped(rule: Any) -> None:
    assert perturb(np.array([3, 250], np.uint8), np.array([-8.0, 8.0]), rule).tolist() == [0, 255]


def test_truncation_takes_negative_noise_one_level_further() -> None:
    assert perturb(np.array([100], np.uint8), np.array([-7.99]), "truncate").tolist() == [92]
    assert perturb(np.array([100], np.uint8), np.array([-8.01]), "truncate").tolist() == [91]


@pytest.mark.parametrize(("eps", "levels"), [(8 / 255, 8), (16 / 255, 16), (7.9 / 255, 7), (0.5 / 255, 0), (1.0, 255)])
def test_whole_levels(eps: float, levels: int) -> None:
    assert whole_levels(eps) == levels


@given(st.floats(0.1, 255), st.integers(0, 2**32))
def test_keep_linf_never_exceeds_the_bound(levels: float, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-levels, levels, 256)

    kept = keep_linf(perturb(LEVELS, noise), LEVELS, levels / 255)

    assert np.abs(kept.astype(int) - LEVELS).max() <= levels + 1e-3


def test_keep_linf_leaves_what_is_inside_alone() -> None:
    inside = perturb(LEVELS, np.full(256, 8.0))

    assert np.array_equal(keep_linf(inside, LEVELS, 8 / 255), inside)


@pytest.mark.parametrize(("eps", "text"), [(8 / 255, "linf 8/255"), (1.0, "linf 1.0"), (0.03, "linf 0.03")])
def test_budget_is_written_as_the_field_does(eps: float, text: str) -> None:
    assert budget("linf", eps) == text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", ["round", "truncate", "integer"])
def test_a_level_that_is_not_finite_is_no_byte(bad: float, rule: Any) -> None:
    images, noise = np.full((1, 2, 2, 3), 7, np.uint8), np.zeros((1, 2, 2, 3), np.float32)
    noise[0, 1, 0, 2] = bad
    with pytest.raises(Diverged, match="gray level of a perturbed image not finite"):
        perturb(images, noise, rule)
