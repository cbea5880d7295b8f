"""The search for autoregressive processes that can be told apart, one a class.

Sandoval-Segura et al., "Autoregressive Perturbations for Data Poisoning", NeurIPS 2022, and the authors' released code:
draw kernels at random, keep those whose signals stay small and which no process accepted before can predict.

    python -m ue_bench_baselines.ar_search --classes 10 --threshold 10 --seed 0

prints a table as the package ships them.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import UserError

from .ar_process import draw_start, l2_norms, responses, run, scale

MODULE = "ue_bench_baselines.ar_search"
SIZE, CROP = 36, 4  # start signal and rows and columns to drop, of the authors' code for 32 x 32 images
SAMPLES = 3  # signals a candidate is judged by, authors' code
NORM_CAP = 50.0  # bound on the L2 norm before scaling, authors' code
MAX_CANDIDATES = 1_000_000  # authors' code
BATCH = 256  # part of the result: the candidates of a batch share a random stream
DIGITS = 6  # candidates are rounded, so that a table in JSON is the very process that was tested


def candidates(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw kernels, count x 3 x 3 x 3: normal entries, 0 at (2, 2), divided by their sum a channel, then rounded."""
    kernels = generator.standard_normal((count, 3, 3, 3))
    kernels[:, :, 2, 2] = 0
    kernels /= kernels.sum(axis=(2, 3), keepdims=True)
    rounded: NDArray[np.float64] = np.round(kernels, DIGITS) + 0.0  # no negative zero
    return rounded


def search(classes: int, threshold: float, seed: int, max_candidates: int = MAX_CANDIDATES) -> dict[str, Any]:
    """Search a table of ``classes`` processes, as plain data: command, seed, threshold, candidates tried, coefficients.

    A candidate is rejected when one of three signals is not finite or exceeds the norm cap before scaling, or when the
    response of an accepted process's filter to its last signal, scaled to L2 norm 1, is below ``threshold``.

    Raises UserError when ``max_candidates`` do not yield enough processes.
    """
    accepted: list[NDArray[np.float64]] = []
    tried = 0
    while len(accepted) < classes and tried < max_candidates:
        generator = np.random.default_rng([seed, tried])
        kernels = candidates(generator, min(BATCH, max_candidates - tried))
        starts = np.stack([[draw_start(generator, SIZE, SIZE) for _ in range(SAMPLES)] for _ in kernels])
        stable = np.arange(len(kernels))
        for sample in range(SAMPLES):
            with np.errstate(over="ignore", invalid="ignore"):  # most candidates explode
                signals = run(kernels[stable], starts[stable, sample])[:, CROP:, CROP:]
                small = l2_norms(signals) <= NORM_CAP  # false when not finite
            stable, signals = stable[small], signals[small]
        for index, signal in zip(stable, scale(signals, "2", 1.0), strict=True):
            if not accepted or responses(signal, np.stack(accepted)).min() >= threshold:
                accepted.append(kernels[index])
                if len(accepted) == classes:
                    tried += int(index) + 1
                    break
        else:
            tried += len(kernels)
    if len(accepted) < classes:
        raise UserError(
            f"{tried} candidates gave {len(accepted)} of {classes} autoregressive processes at threshold {threshold:g}",
            "lower the threshold",
        )
    return {
        "command": f"python -m {MODULE} --classes {classes} --threshold {threshold:g} --seed {seed}",
        "classes": classes,
        "threshold": threshold,
        "seed": seed,
        "candidates": tried,
        "coefficients": [kernel.tolist() for kernel in accepted],
    }


def to_json(table: dict[str, Any]) -> str:
    """Return the text of a table as it is shipped: one line for each entry and each process."""
    head = "".join(
        f' "{key}": {json.dumps(value, allow_nan=False)},\n' for key, value in table.items() if key != "coefficients"
    )
    body = ",\n".join(
        f"  {json.dumps(kernel, separators=(',', ':'), allow_nan=False)}" for kernel in table["coefficients"]
    )
    return f'{{\n{head} "coefficients": [\n{body}\n ]\n}}\n'


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--threshold", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-candidates", type=int, default=MAX_CANDIDATES)
    given = parser.parse_args(arguments)
    try:
        table = search(given.classes, given.threshold, given.seed, given.max_candidates)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    sys.stdout.write(to_json(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
