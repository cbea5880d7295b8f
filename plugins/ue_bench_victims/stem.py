"""What convolutional victims share: first layers that depend on the size of the images."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ue_bench.api import EnvironmentProblem, UserError, Victim, first_line


class Stemmed(Victim):
    """A victim with a first layer for small images and another for large ones."""

    stem: Literal["auto", "cifar", "imagenet"] = Field("auto", description="first layers")

    def small(self, image_size: tuple[int, int]) -> bool:
        """Return whether the first layers are for small images: with ``auto``, below 64 px on the shorter side."""
        return min(image_size) < 64 if self.stem == "auto" else self.stem == "cifar"


def check_side(victim: Victim, image_size: tuple[int, int], least: int) -> None:
    """Raise UserError for images of fewer than ``least`` pixels a side, of which halving after halving leaves none."""
    if min(image_size) < least:
        height, width = image_size
        raise UserError(f"{victim.selector} takes images of {least} px or more a side, not {width}x{height}")


def torchvision_models(victim: str) -> Any:
    """Import torchvision's models, for large images. Raises EnvironmentProblem when torchvision does not work."""
    try:
        from torchvision import models
    except Exception as error:  # one built for another torch fails with RuntimeError, AttributeError or OSError
        reason = first_line(error)
        raise EnvironmentProblem(
            f"{victim} for large images needs torchvision, which cannot be imported: {reason}",
            "install the torchvision that belongs to this torch; 'ue-bench doctor' shows both",
        ) from error
    return models
