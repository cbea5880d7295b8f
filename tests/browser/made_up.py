"""Boards made up for a browser: two seeds, three qualities, several budgets, a gap, a failure and a printed table."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from leaderboard.factory import BOARD as TINY
from leaderboard.factory import result

from ue_bench.leaderboard.evidence import Evidence, picture_name
from ue_bench.store.schema import Curve, Failure, Result, cell_id

COLUMNS = ("vanilla", "mixup", "jpeg[quality=10]", "jpeg[quality=30]", "jpeg[quality=50]", "at")
CLEAN = (94.5, 90.0, 85.0, 88.0, 90.0, 84.0)
ROWS: dict[str, tuple[float, ...]] = {
    "none": CLEAN,
    "em": (10.5, 20.0, 84.0, 60.0, 40.0, 83.0),
    "lsp": (19.0, 29.0, 61.0, 50.0, 41.0, 47.0),
    "ops": (16.0, 13.5, 67.0, 58.0, 50.0, 46.0),
    "ar": (21.0, 57.0, 66.0, 67.0, 68.0, 46.5),
    "cuda": (12.0, 9.5, 11.8, 12.0, 14.2, 11.5),
}
DECLARED = {"none": "none", "em": "linf 8/255", "lsp": "linf 8/255", "ops": "pixels 1", "ar": "l2 1.0", "cuda": "none"}
RMS = {"none": 0.0, "em": 7.3, "lsp": 5.9, "ops": 5.2, "ar": 4.6, "cuda": 31.7}
SECONDS = {"none": 0.0, "em": 400.0, "lsp": 0.2, "ops": 1.0, "ar": 3.0, "cuda": 12.0}
LEFT_OUT = {("lsp", "at"), ("ar", "mixup")}  # the first has no result, the second failed
TAGS = {"em": ("surrogate",), "lsp": ("surrogate-free",), "at": ("training",), "mixup": ("augmentation",)}
KEYS: dict[str, str] = {}

BOARD = replace(
    TINY,
    name="made-up",
    title="A board made up",
    countermeasures=COLUMNS,
    protectors=("none", "em", "lsp", "ops", "ar", "cuda"),
    reference=("none",),
    seeds=(0, 1),
    tags=lambda kind, selector: TAGS.get(selector.partition("[")[0], ()),
)


def results(protectors: tuple[str, ...] = tuple(ROWS), **changes: Any) -> list[Result]:
    """The cells of some rows with both seeds, which differ by less than three points."""
    return [
        result(
            protector,
            column,
            round(ROWS[protector][i] + 1.4 * math.sin(7 * seed + i + len(protector)), 2),
            seed=seed,
            declared=DECLARED[protector],
            rms=RMS[protector],
            psnr=None if protector == "none" else 30.0 + RMS[protector] / 10,
            protect_seconds=SECONDS[protector],
            **changes,
        )
        for protector in protectors
        for i, column in enumerate(COLUMNS)
        for seed in (0, 1)
        if (protector, column) not in LEFT_OUT
    ]


RESULTS = results()
PICTURE = picture_name(next(r for r in RESULTS if r.protector == "em"))
FAILURE = Failure(
    key="f" * 32,
    id=cell_id("cifar10", "ar", "mixup", "resnet18", "fast", 0, 1.0),
    attempts=2,
    kind="diverged",
    error="the loss is not finite at step 12",
    failed="2026-01-02T03:04:05Z",
)
EVIDENCE = Evidence(
    curves={
        r.key: Curve(
            key=r.key,
            epoch=[2.0, 4.0, 6.0, 8.0],
            accuracy_test=[12.0, r.metrics.accuracy_peak, 11.0, r.metrics.accuracy_last],
            accuracy_train=[50.0, 80.0, 95.0, 99.0],
            loss_train=[1.0, 0.5, 0.2, 0.1],
        )
        for r in RESULTS
    },
    failures={FAILURE.id: FAILURE},
    pictures=frozenset({PICTURE}),
    files={r.key: f"results/{r.protector}/{r.key[:16]}.json" for r in RESULTS},
)

# Three victims. Protectors that are made against one of them hold for that one, and less for the others.
VICTIMS = ("resnet18", "vgg11", "densenet121")
AGAINST: dict[str, tuple[float, ...]] = {  # accuracy of each victim in the plain column
    "none": (94.5, 91.0, 93.0),
    "em[surrogate=resnet18]": (12.0, 58.0, 88.5),
    "em[surrogate=vgg11]": (47.0, 14.0, 61.0),
    "lsp": (19.0, 22.0, 25.0),
    "cuda": (13.0, 11.0, 12.5),
}
VICTIMS_BOARD = replace(
    BOARD, countermeasures=("vanilla", "jpeg[quality=10]", "at"), victims=VICTIMS, protectors=tuple(AGAINST), seeds=(0,)
)
MISSING = ("lsp", "densenet121", "at")
THREE = [
    result(
        protector,
        column,
        round(accuracy + (0.0 if protector == "none" else 5.0 * i), 2),
        victim=victim,
        declared=DECLARED[protector.partition("[")[0]],
        rms=RMS[protector.partition("[")[0]],
    )
    for protector, of_victims in AGAINST.items()
    for victim, accuracy in zip(VICTIMS, of_victims, strict=True)
    for i, column in enumerate(VICTIMS_BOARD.countermeasures)
    if (protector, victim, column) != MISSING
]

# The same rows at three fractions, and with another victim.
MANY = [
    *(r for fraction in (1.0, 0.5, 0.25) for r in results(("none", "em", "lsp"), fraction=fraction)),
    *results(("none", "ops"), victim="vgg11"),
]

# More columns than a sheet of paper holds at the size of the others.
BROAD_COLUMNS = tuple(f"jpeg[quality={quality}]" for quality in range(10, 60))
BROAD_ROWS = ("none", *(f"em[steps={steps}]" for steps in range(1, 16)))
BROAD_BOARD = replace(BOARD, countermeasures=BROAD_COLUMNS, protectors=BROAD_ROWS, seeds=(0,))
BROAD = [
    result(protector, column, 90.0 if protector == "none" else 20.0 + i, declared=DECLARED[protector.partition("[")[0]])
    for protector in BROAD_ROWS
    for i, column in enumerate(BROAD_COLUMNS)
]
