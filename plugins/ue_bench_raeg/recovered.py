"""What comes back from protected images, as a row of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, WithJsonSchema

from ue_bench.api import Context, ImageSet, NetworkCost, Protector, UserError, find_protector

BATCH = 100


def _reversible(value: Any) -> Any:
    """Return the protector that a selector stands for. Raises ValueError when it cannot recover."""
    try:
        protector = find_protector(value) if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(error.message) from error
    if isinstance(protector, Protector) and not protector.recovers():
        raise ValueError(f"{protector.selector} has no way back")
    return protector


class Recovered(Protector):
    """The images that another protector's ``recover`` brings back: a row for what an authorised user gets.

    Trained on, they should serve as well as the originals (RAEG, Table 3); shown to classifiers, too (Table 2). The
    measured perturbation is what recovery misses. Images are protected anew and recovered without sidecars. An image
    that has no way back, because it did not fit into it, stays protected.

    Raises UserError when no image comes back.

    Expect for ``raeg`` 80 to 97 % of models trained on recovered images, 38 to 48 dB (RAEG, Tables 2 and 3).
    """

    name: ClassVar[str] = "recovered"
    changes_images: ClassVar[bool] = False  # the aim is that all come back
    paper: ClassVar[str] = "Invertible Image Dataset Protection, ICME 2022, arXiv 2112.14420"

    of: Annotated[Protector, BeforeValidator(_reversible), WithJsonSchema({"type": "string"})] = Field(
        description="selector of a protector that recovers images, in quotes"
    )

    @property
    def selector(self) -> str:
        inner = self.of.selector
        quote = "'" if '"' in inner and "'" not in inner else '"'
        quoted = inner if inner == self.of.name else quote + inner.replace(quote, 2 * quote) + quote
        return f"{self.name}[of={quoted}]"

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "revision": self.revision, "parameters": {"of": self.of.identity()}}

    @property
    def uses_networks(self) -> bool:
        return self.of.uses_networks

    @property
    def largest_image(self) -> int:
        return self.of.largest_image  # and recovery takes no more

    @property
    def one_size(self) -> bool:
        return self.of.one_size

    @property
    def classes_needed(self) -> int:
        return self.of.classes_needed

    def cost(self, images: int) -> NetworkCost | None:
        """Return the cost of the protector; recovery is not counted."""
        return self.of.cost(images)

    @property
    def answers_queries(self) -> bool:
        return self.of.answers_queries

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Return the images as they come back, rounded to 8 bits."""
        protected = self.of.protect(data, ctx)
        ctx = replace(ctx, recovery_key=self.of.recovery_key(data, ctx))
        back = 0

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            nonlocal back
            try:
                originals = self.of.recover(images, ctx)
            except UserError as error:
                originals = images.copy()
                for index in range(len(images)):
                    try:
                        originals[index] = self.of.recover(images[index : index + 1], ctx)[0]
                        back += 1
                    except UserError:
                        if back == 0 and where.start + index == len(data) - 1:
                            raise error from None
            else:
                back += len(images)
            return originals

        return ctx.map_images(protected, change, "recover", BATCH)
