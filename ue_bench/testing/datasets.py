"""Check whether a dataset keeps the rules: both splits, their classes, and the same images every time."""

from __future__ import annotations

import contextlib
from functools import partial

import numpy as np

from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Dataset
from .findings import Finding, Findings
from .trials import Stop, fresh, trial

SPLITS = ("train", "test")


def check_dataset(dataset: Dataset, ctx: Context) -> list[Finding]:
    """Load both splits of ``dataset`` twice; ``ctx`` gives the data folder. Raises UserError."""
    findings = Findings("load")
    with contextlib.suppress(Stop):
        loaded = [_check_split(findings, dataset, split, ctx) for split in SPLITS]
        _check_pair(findings, *loaded)
    findings.stage = "files"
    with contextlib.suppress(Stop):
        named = trial(partial(dataset.files, ctx.data_dir), "cpu", 1, findings).result
        absent = [path.name for path in named if not path.exists()]
        text = f"{absent[0]} is not there" if absent else f"{len(named)}, all of them there"
        findings.check("exist", not absent, text, files=len(named))
    return findings.collected


def _check_split(findings: Findings, dataset: Dataset, split: str, ctx: Context) -> ImageSet:
    """Check one split alone."""
    first, again = (trial(partial(dataset.load, split, fresh(ctx, 0)), "cpu", run, findings) for run in (1, 2))
    data = first.result
    if not isinstance(data, ImageSet):
        findings.check(split, False, f"returns {type(data).__name__}, not an ImageSet")
        raise Stop
    height, width = data.size
    right = len(data) > 0 and height > 0 and width > 0
    findings.check(split, right, f"{len(data):,} of {height} x {width} px, {data.num_classes} classes, uint8",
                   images=len(data), size=[height, width], classes=data.num_classes)  # fmt: skip
    same = data.fingerprint == again.result.fingerprint
    findings.check(
        "seed", same, f"{split}: the same images and labels twice" if same else f"{split}: not the same twice"
    )
    text = "draws from a global generator" if again.drew else "global ones are left alone"
    findings.check("generators", not again.drew, f"{split}: {text}")
    counts = np.bincount(data.labels, minlength=data.num_classes)
    empty = [data.class_names[label] for label in np.flatnonzero(counts == 0)]
    text = f"{split}: {counts.min():,} to {counts.max():,} images each" if len(counts) else f"{split}: there are none"
    if empty:
        text = f"{split}: class {empty[0]!r} has no image"
    findings.check("classes", not empty and len(counts) > 0, text)
    return data


def _check_pair(findings: Findings, train: ImageSet, test: ImageSet) -> None:
    """Check that the splits fit together, and note images that are in both."""
    same = train.class_names == test.class_names
    findings.check("names", same, "the same classes in both splits" if same else "the splits have other classes")
    alike = train.size == test.size
    findings.check(
        "size", alike, "the same in both splits" if alike else f"{train.size} and {test.size}: give them one"
    )
    if alike:
        known = {image.tobytes() for part in train.chunks() for image in train.images[part]}
        shared = sum(image.tobytes() in known for part in test.chunks() for image in test.images[part])
        findings.note("shared", f"{shared} test images are training images too" if shared else "no image is in both",
                      images=shared)  # fmt: skip
