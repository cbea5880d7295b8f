"""Draw high-dimensional points in a plane: exact t-SNE, the same for the same points on one machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
COMPONENTS = 50  # that principal component analysis leaves, as in the paper's code
EXAGGERATION, EARLY = 12.0, 250  # of similarities, in so many first iterations (scikit-learn's values)
ITERATIONS = 750


def tsne(points: NDArray[Any], perplexity: float = 30.0, iterations: int = ITERATIONS) -> Points:
    """Return a place in the plane, N x 2, for each of N points, so that near points stay near.

    Exact: time and memory grow with the square of N. It starts from the first two principal components, not at random,
    so that there is no seed. Raises ValueError for fewer than three times ``perplexity`` points, or for points that
    are not finite.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008, algorithm 1, with early exaggeration
    and gains (section 3.4 and appendix).
    """
    if len(points) < 3 * perplexity:
        raise ValueError(f"{len(points)} points are too few for a perplexity of {perplexity:g}")
    if not np.isfinite(points).all():
        raise ValueError("points are not finite")
    reduced = principal_components(np.asarray(points, np.float64), COMPONENTS)
    similar = _similarities(reduced, perplexity)
    first = reduced[:, :2]
    place = first / max(float(first[:, 0].std()), np.finfo(np.float64).tiny) * 1e-4
    rate = max(len(points) / EXAGGERATION / 4, 50.0)  # Belkina et al., Nature Communications 2019
    step, gains = np.zeros_like(place), np.ones_like(place)
    for iteration in range(iterations):
        early = iteration < EARLY
        gradient = _gradient(place, similar * (EXAGGERATION if early else 1.0))
        gains = np.maximum(np.where(np.sign(gradient) == np.sign(step), gains * 0.8, gains + 0.2), 0.01)
        step = (0.5 if early else 0.8) * step - rate * gains * gradient
        place = place + step
        place -= place.mean(0)
    return place


def principal_components(points: Points, count: int) -> Points:
    """Return the first components of points, N x ``count`` or fewer; the sign makes the largest weight positive."""
    centred = points - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:count]
    largest = np.abs(axes).argmax(1)
    signs = np.sign(axes[np.arange(len(axes)), largest])
    found: Points = centred @ (axes * np.where(signs == 0, 1.0, signs)[:, None]).T
    return found


def _similarities(points: Points, perplexity: float) -> Points:
    """Return the joint probabilities of pairs, N x N, whose conditional ones have this perplexity."""
    squares = (points**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0.0)
    conditional = np.zeros_like(distances)
    target = math.log(perplexity)
    for i, row in enumerate(distances):
        others = np.delete(row, i)
        others = others - others.min()
        low, high, precision = 0.0, math.inf, 1.0 / (float(others.mean()) or 1.0)
        for _ in range(64):
            weights = np.exp(-others * precision)
            total = float(weights.sum())
            entropy = math.log(total) + precision * float((others * weights).sum()) / total
            if abs(entropy - target) < 1e-6:
                break
            if entropy > target:
                low, precision = precision, precision * 2 if math.isinf(high) else (precision + high) / 2
            else:
                high, precision = precision, (low + precision) / 2
        conditional[i] = np.insert(weights / total, i, 0.0)
    joint: Points = np.maximum((conditional + conditional.T) / (2 * len(points)), 1e-12)
    return joint


def _gradient(place: Points, similar: Points) -> Points:
    squares = (place**2).sum(1)
    heavy = 1 / (1 + np.maximum(squares[:, None] + squares - 2 * place @ place.T, 0.0))  # Student's t
    np.fill_diagonal(heavy, 0.0)
    pull = (similar - heavy / heavy.sum()) * heavy
    found: Points = 4 * (pull.sum(1)[:, None] * place - pull @ place)
    return found
