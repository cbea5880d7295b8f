"""Two-dimensional autoregressive processes, the signals behind AR perturbations.

Sandoval-Segura et al., "Autoregressive Perturbations for Data Poisoning", NeurIPS 2022.

A process is a 3 x 3 kernel ``b`` a colour channel, in an array channel x row x column whose (2, 2) entry is 0 and whose
eight others sum to 1. Every value of a signal is the sum of its eight neighbours up and to the left, weighted by ``b``;
there is no innovation noise, so all randomness lies in the first two rows and columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TAPS = [(u, v) for u in range(3) for v in range(3) if (u, v) != (2, 2)]


def draw_start(generator: np.random.Generator, height: int, width: int) -> Floats:
    """Draw a start signal, 3 x height x width: standard normal in the first two rows and columns, 0 elsewhere."""
    start = np.zeros((3, height, width), dtype=np.float32)
    start[:, :2] = generator.standard_normal((3, 2, width), dtype=np.float32)
    start[:, 2:, :2] = generator.standard_normal((3, height - 2, 2), dtype=np.float32)
    return start


def run(coefficients: NDArray[np.floating], start: Floats) -> Floats:
    """Generate n processes' signals, n x H x W x 3, from ``coefficients`` n x 3 x 3 x 3 and ``start`` n x 3 x H x W.

    Only the first two rows and columns of ``start`` are read. The recurrence looks up and left only, so all positions
    of one anti-diagonal are computed at once. Every operation is elementwise: a signal does not depend on its batch.
    """
    count, _, height, width = start.shape
    lanes = count * 3
    values = start.reshape(lanes, height, width)
    weights = [np.ascontiguousarray(coefficients[:, :, u, v], dtype=np.float32).reshape(lanes) for u, v in TAPS]
    # skewed[d, i] holds position (i, d - i): neighbours on one anti-diagonal lie beside each other
    skewed = np.empty((height + width - 1, height, lanes), dtype=np.float32)
    rows, columns = np.arange(height), np.arange(width)
    for i in (0, 1):
        skewed[i + columns, i] = values[:, i, :].T
        skewed[rows + i, rows] = values[:, :, i].T
    term = np.empty((height, lanes), dtype=np.float32)
    for d in range(4, height + width - 1):
        first, last = max(2, d - width + 1), min(height - 1, d - 2)
        target = skewed[d, first : last + 1]
        product = term[: len(target)]
        target[:] = 0
        for (u, v), weight in zip(TAPS, weights, strict=True):
            np.multiply(skewed[d - 4 + u + v, first - 2 + u : last - 1 + u], weight, out=product)
            target += product
    signal = np.empty((height, width, lanes), dtype=np.float32)
    for i in range(height):
        signal[i] = skewed[i + columns, i]
    return np.ascontiguousarray(signal.reshape(height, width, count, 3).transpose(2, 0, 1, 3))


def l2_norms(signals: Floats) -> NDArray[np.float64]:
    """Return the L2 norm of each of n signals over all pixels and channels."""
    flat = signals.reshape(len(signals), int(np.prod(signals.shape[1:]))).astype(np.float64)
    norms: NDArray[np.float64] = np.sqrt((flat * flat).sum(axis=1))
    return norms


def scale(signals: Floats, p: str, eps: float) -> Floats:
    """Scale each of ``signals``, n x H x W x 3, to p-norm ``eps`` over all pixels and channels; p is "2" or "inf"."""
    norms = l2_norms(signals) if p == "2" else np.abs(signals).max(axis=(1, 2, 3)).astype(np.float64)
    scaled: Floats = signals * (eps / norms).astype(np.float32)[:, None, None, None]
    return scaled


def responses(signal: Floats, coefficients: NDArray[np.floating]) -> NDArray[np.float64]:
    """Measure how badly each of k processes predicts ``signal`` (H x W x 3): k sums, 0 for the process it came from.

    The paper's filter of a process is its kernel with -1 at (2, 2). The signal is correlated with it (no flip, valid
    positions, summed over channels), and the positive part is summed.
    """
    filters = np.array(coefficients, dtype=np.float64)
    filters[:, :, 2, 2] = -1
    windows = np.lib.stride_tricks.sliding_window_view(signal.astype(np.float64), (3, 3), axis=(0, 1))
    residual = windows.reshape(-1, 27) @ filters.reshape(len(filters), 27).T
    sums: NDArray[np.float64] = np.maximum(residual, 0).sum(axis=0)
    return sums
