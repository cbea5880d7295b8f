"""The codes of classes for ``spots``: which of its symbols stands where."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

GRID = 4  # places a side
# Left halves of pairs that mirror each other, as row and column of the grid: those at the border, then those inside.
BORDER = ((0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (3, 1))
PLACES = (*BORDER, (1, 1), (2, 1))
SYMBOLS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # amounts of horizontal and of vertical stripes


def words(places: int, weight: int) -> int:
    """Return how many code words have ``weight`` symbols on that many places."""
    return math.comb(places, weight) * int(len(SYMBOLS) ** weight)


def smallest(classes: int) -> tuple[int, int]:
    """Return the fewest places, and the fewest symbols on them, with a word for each of so many classes.

    Places at the border come first: cut-outs and crops of other images reach them least. Raises ValueError when all
    places are too few.
    """
    for weight in range(1, len(PLACES) + 1):
        for places in (len(BORDER), len(PLACES)):
            if words(places, weight) >= classes:
                return places, weight
    raise ValueError(f"no code for {classes} classes")


def codebook(classes: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Draw a code word for each class, classes x places x 2: amounts of horizontal and vertical stripes, -1, 0 or 1.

    All words have the same number of symbols and are different. They are taken greedily in random order, each as far
    from those before it as any: its smallest squared distance to them is the largest there is.
    """
    places, weight = smallest(classes)
    table = np.zeros((words(places, weight), len(PLACES), 2), dtype=np.int8)
    choices = product(combinations(range(places), weight), product(SYMBOLS, repeat=weight))
    for word, (where, symbols) in zip(table, choices, strict=True):
        word[list(where)] = symbols
    table = rng.permutation(table)
    chosen = [0] if classes else []
    nearest = np.full(len(table), np.iinfo(np.int64).max)
    while len(chosen) < classes:
        distance = np.square(table - table[chosen[-1]], dtype=np.int64).sum(axis=(1, 2))
        nearest = np.minimum(nearest, distance)
        nearest[chosen[-1]] = -1  # 0 is a distance too
        chosen.append(int(nearest.argmax()))
    return table[chosen]
