from __future__ import annotations

import numpy as np
import pytest

from ue_bench.leaderboard.embedding import _similarities, principal_components, tsne


def clusters(count: int = 40, far: float = 8.0) -> np.ndarray:
    """Three clusters of points in ten dimensions."""
    rng = np.random.default_rng(0)
    centres = far * np.eye(10)[:3]
    return np.concatenate([centre + rng.normal(size=(count, 10)) for centre in centres])


def test_clusters_stay_apart() -> None:
    found = tsne(clusters(), perplexity=10, iterations=400)

    assert found.shape == (120, 2)
    middles = found.reshape(3, 40, 2).mean(1)
    spread = max(
        np.linalg.norm(part - middle, axis=1).max()
        for part, middle in zip(found.reshape(3, 40, 2), middles, strict=True)
    )
    apart = min(np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert apart > 2 * spread


def test_the_same_points_give_the_same_places() -> None:
    points = clusters(15)

    assert np.array_equal(tsne(points, 5, iterations=30), tsne(points, 5, iterations=30))


def test_neighbours_have_the_perplexity_that_is_asked_for() -> None:
    points = clusters(20)
    joint = _similarities(points, 7.0)

    assert joint.sum() == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(joint, joint.T)
    # Undo the symmetry for a point whose neighbours have it for a neighbour alike: the mean entropy is that asked for.
    conditional = joint / joint.sum(1, keepdims=True)
    entropies = -(conditional * np.log(np.maximum(conditional, 1e-300))).sum(1)
    assert np.exp(np.median(entropies)) == pytest.approx(7.0, rel=0.35)


def test_principal_components_hold_the_variance_and_have_a_sign() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(50, 6)) * np.array([9.0, 4.0, 1.0, 0.5, 0.2, 0.1])

    found = principal_components(points, 2)

    assert found.shape == (50, 2)
    assert found.mean(0) == pytest.approx([0, 0], abs=1e-9)
    assert np.corrcoef(found[:, 0], points[:, 0])[0, 1] > 0.99  # the largest weight is positive
    assert principal_components(points[:, :1], 2).shape == (50, 1)


@pytest.mark.parametrize(
    ("points", "said"),
    [(np.zeros((20, 3)), "20 points are too few"), (np.full((100, 3), np.nan), "points are not finite")],
)
def test_what_cannot_be_drawn_is_refused(points: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tsne(points, perplexity=10)


def test_points_that_are_all_the_same_have_places() -> None:
    assert np.isfinite(tsne(np.ones((40, 3)), 5, iterations=20)).all()
