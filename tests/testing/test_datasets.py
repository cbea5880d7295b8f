"""Datasets with one fault each, and one that has none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ue_bench.api import Context, Dataset, ImageSet
from ue_bench.testing import check_dataset, failures

from .helpers import broken, found


class Squares(Dataset):
    name: ClassVar[str] = "squares"
    fault: str = ""

    def files(self, data_dir: Path) -> list[Path]:
        return [data_dir / "nowhere"] if self.fault == "file" else []

    def load(self, split: str, ctx: Context) -> Any:
        test = split == "test"
        labels = np.arange(6) % (1 if self.fault == "empty" else 2)
        images = np.full((6, 4, 5 + (test and self.fault == "size"), 3), 10 * (test + 1), np.uint8)
        images += np.arange(6, dtype=np.uint8)[:, None, None, None]
        if self.fault == "unseeded":
            images += np.uint8(random.randrange(200))
        if self.fault == "array":
            return images
        if self.fault == "leak":
            images[0] = 255
        names = ("b", "a") if test and self.fault == "names" else ("a", "b")
        return ImageSet(images, labels, names)


def test_one_that_keeps_the_rules(ctx: Context) -> None:
    findings = check_dataset(Squares(), ctx)
    assert failures(findings) == []
    assert found(findings, "load", "train").values == {"images": 6, "size": [4, 5], "classes": 2}
    assert found(findings, "load", "shared").values == {"images": 0}


@pytest.mark.parametrize(
    ("fault", "faults"),
    [
        ("array", {"load train"}),
        ("unseeded", {"load seed", "load generators"}),
        ("empty", {"load classes"}),
        ("names", {"load names"}),
        ("size", {"load size"}),
        ("file", {"files exist"}),
    ],
)
def test_faults(fault: str, faults: set[str], ctx: Context) -> None:
    assert broken(check_dataset(Squares(fault=fault), ctx)) == faults


def test_images_of_both_splits_are_counted(ctx: Context) -> None:
    assert found(check_dataset(Squares(fault="leak"), ctx), "load", "shared").values == {"images": 1}
