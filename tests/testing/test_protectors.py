from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench.api import Context, ImageSet, NetworkCost, Protector
from ue_bench.testing import check_protector, failures

from .helpers import broken, found


class Lifting(Protector):
    """Adds so many levels, at random places."""

    name: ClassVar[str] = "lifting"
    levels: int = 8
    declared: str = "linf 8/255"
    fault: str = ""

    @property
    def budget(self) -> str:
        return self.declared

    def cost(self, images: int) -> NetworkCost | None:
        return NetworkCost("resnet9", 12.0)

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        rng = np.random.default_rng() if self.fault == "unseeded" else ctx.rng("where")
        images = np.minimum(data.images, 255 - self.levels) + np.uint8(self.levels) * rng.integers(
            0, 2, data.images.shape, dtype=np.uint8
        )
        if self.fault == "order":
            images = np.roll(images, 1, axis=0)
        labels = np.roll(data.labels, 1) if self.fault == "labels" else data.labels
        return ImageSet(images, labels, data.class_names)

    def recover(self, images: NDArray[np.uint8], ctx: Context) -> Any:
        match self.fault:
            case "worse":
                return 255 - images
            case "floats":
                return images.astype(float)
        lifted = np.uint8(ctx.recovery_key["levels"]) * ctx.rng("where").integers(0, 2, images.shape, dtype=np.uint8)
        return images - np.minimum(images, lifted)

    def recovery_key(self, data: ImageSet, ctx: Context) -> dict[str, NDArray[Any]]:
        return {"levels": np.array(self.levels)}


class Alone(Lifting):
    recover = Protector.recover  # type: ignore[pydantic-field]  # a method, which the plugin takes for a field


@pytest.fixture
def data(data: ImageSet) -> ImageSet:
    """Of levels that protection cannot clip."""
    return data.with_images(np.clip(data.images, 30, 220))


def test_one_that_keeps_the_rules(ctx: Context, data: ImageSet) -> None:
    findings = check_protector(Lifting(), data, ctx)
    assert failures(findings) == []
    assert found(findings, "protect", "budget").values == {"declared": "linf 8/255", "measured": 8 / 255}
    assert found(findings, "protect", "randomness").values == {"random": True}
    assert found(findings, "protect", "passes").values == {"passes": 12.0}
    assert found(findings, "recover", "nearer").text.startswith("exactly the clean ones; protected ones are ")
    assert "recover" not in {f.stage for f in check_protector(Alone(), data, ctx)}


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"levels": 9}, {"protect budget"}),
        ({"levels": 9, "declared": "linf 9/255"}, set()),
        ({"declared": "l2 0.1"}, {"protect budget"}),
        ({"declared": "rms 5/255"}, {"protect budget"}),
        ({"declared": "pixels 100"}, {"protect budget"}),
        ({"declared": "none"}, set()),
        ({"declared": "a little"}, set()),
        ({"fault": "order"}, {"protect order", "protect budget", "recover nearer"}),
        ({"fault": "labels"}, {"protect labels"}),
        ({"fault": "worse"}, {"recover nearer"}),
        ({"fault": "floats"}, {"recover images"}),
    ],
)
def test_faults(changes: dict[str, Any], faults: set[str], ctx: Context, data: ImageSet) -> None:
    assert broken(check_protector(Lifting(**changes), data, ctx)) == faults


@pytest.mark.parametrize("declared", ["rms 5.2/255", "mse (5.2/255)^2", "l2 0.43"])
def test_a_norm_that_rounding_may_exceed(declared: str, ctx: Context, data: ImageSet) -> None:
    """Half of the values are lifted by 8 levels, a root mean square of some 5.6."""
    findings = check_protector(Lifting(declared=declared), data, ctx)
    assert broken(findings) == set()
    assert found(findings, "protect", "budget").text.endswith("no more than rounding to whole gray levels may add")


def test_without_a_seed(ctx: Context, data: ImageSet) -> None:
    assert broken(check_protector(Alone(fault="unseeded"), data, ctx)) == {"protect seed"}


def test_images_that_break_the_budget_are_counted(ctx: Context, data: ImageSet) -> None:
    findings = check_protector(Lifting(levels=9), data, ctx, images=7)
    assert found(findings, "protect", "budget").text == (
        "declares linf 8/255, measured 0.03529, broken by 7 of 7 images"
    )
    assert "too few to tell" in found(findings, "protect", "order").text
