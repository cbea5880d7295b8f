"""What the kit says of protectors that answer queries."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from ue_bench.api import Context, ImageSet, Protector
from ue_bench.testing import check_plugin, pictures


class Mean(Protector):
    """Mixes every image with the mean of the set; ``fault``: of what is asked for, or nothing at all for that."""

    name: ClassVar[str] = "mean"
    fault: str = ""
    answers: bool = True

    @property
    def answers_queries(self) -> bool:
        return self.answers

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        if self.fault == "silent" and ctx.learn_from is not None:
            return data
        learnt = data if self.fault == "forgets" else ctx.learning(data)[0]
        mean = learnt.images.mean(axis=0).astype(np.uint8)
        return data.with_images(data.images // 2 + mean // 2)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("", ""),
        ("forgets", "learns from the images that it is asked for"),
        ("silent", "leaves images that come later as they are"),
    ],
)
def test_answers(fault: str, text: str, ctx: Context) -> None:
    findings = check_plugin(Mean(fault=fault), pictures(24, (12, 12)), ctx, seconds=None)
    faults = [f for f in findings if f.stage == "query" and f.state == "fail"]
    assert [f.check for f in faults] == (["answers"] if fault else [])
    assert all(text in f.text for f in faults)
    if not fault:
        [share] = [f for f in findings if f.stage == "query" and f.check == "like the set"]
        assert share.values["share"] == pytest.approx(1)


def test_who_does_not_answer_is_not_asked(ctx: Context) -> None:
    findings = check_plugin(Mean(fault="forgets", answers=False), pictures(24, (12, 12)), ctx, seconds=None)
    assert not [f for f in findings if f.stage == "query"]
