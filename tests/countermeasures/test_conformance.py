"""Every countermeasure that needs no trained model keeps the rules that ``ue-bench check`` holds plugins to."""

from __future__ import annotations

from typing import cast

import pytest

from ue_bench.api import Context, Countermeasure
from ue_bench.catalogue.registry import registry
from ue_bench.testing import check_countermeasure, failures, pictures

SELECTORS = [
    *("@dh12", "bdr[variant=round]", "gray[variant=mean]", "colour-space[variant=[rotate,quarter,value,chroma]]"),
    *("jpeg[quality=30,subsampling=4:4:4]", "resize", "tvm", "wavelet", "pca[components=8]", "rotation"),
    *(
        "randaugment",
        "autoaugment",
        "ueraser[variant=max]",
        "coin",
        "fgsm-rs",
        *("n-fgsm", "at-l2[steps=2]", "fgsm-rs[attack_mode=train]"),
        "at[start=gauss]",
        *("mixup[variant=standard]", "cutmix[box=kornia]"),
    ),
    *("bdr+gray+jpeg[quality=10]", "median+cutout+at[steps=2]"),
]
RANDOM = {"augmentation", "noise", "training"}


def countermeasures() -> list[Countermeasure]:
    return cast(list[Countermeasure], registry().resolve("countermeasure", SELECTORS))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("countermeasure", countermeasures(), ids=lambda c: c.selector)
def test_rules_are_kept(countermeasure: Countermeasure, ctx: Context) -> None:
    findings = check_countermeasure(countermeasure, pictures(24, (12, 17)), ctx)
    assert failures(findings) == []
    stages = {f.stage for f in findings if f.stage != "declares"}
    assert bool(stages) == (countermeasure.selector != "vanilla")
    changed = {f.stage for f in findings if f.check == "changes" and f.values["max"]}
    assert changed == (stages if countermeasure.selector != "gaussian-filter" else set())
    random = {f.stage for f in findings if f.check == "randomness" and f.values["random"]}
    assert random == stages - {"purify"}
