"""Protectors that can be undone, for the commands of a data owner."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import Context, ImageSet, Protector, UserError
from ue_bench.catalogue.registry import registry
from ue_bench.contract.registration import PluginRecord

Pixels = NDArray[np.uint8]


class Shuffled(Protector):
    """Every gray level becomes another one; the table is the key."""

    name: ClassVar[str] = "shuffled"
    calls: ClassVar[list[tuple[int, ...]]] = []

    salt: int = 0

    def recovery_key(self, data: ImageSet, ctx: Context) -> dict[str, NDArray[Any]]:
        return {"table": ctx.rng("table", self.salt).permutation(256).astype(np.uint8)}

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        self.calls.append(data.images.shape)
        table = self.recovery_key(data, ctx)["table"]
        return ctx.map_images(data, lambda images, where: table[images], "shuffle levels")

    def recover(self, images: Pixels, ctx: Context) -> Pixels:
        return np.argsort(ctx.recovery_key["table"])[images].astype(np.uint8)


class Brighter(Protector):
    """Adds 40 gray levels, of which white surfaces keep nothing. Images with a black corner are not undone."""

    name: ClassVar[str] = "brighter"

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(np.minimum(data.images, 215) + np.uint8(40))

    def recover(self, images: Pixels, ctx: Context) -> Pixels:
        if (images[:, 0, 0] == 40).all(axis=1).any():
            raise UserError("a black corner", "none")
        return images - np.uint8(40)


class Fragile(Protector):
    """One whose way back has a fault: images with a corner of this level crash it."""

    name: ClassVar[str] = "fragile"

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(255 - data.images)

    def recover(self, images: Pixels, ctx: Context) -> Pixels:
        if (images[:, 0, 0] == 255).all(axis=1).any():
            raise ZeroDivisionError("corner")
        return np.asarray(255 - images, np.uint8)


class Learner(Shuffled):
    """One that learns from all images."""

    name: ClassVar[str] = "learner"

    @property
    def one_size(self) -> bool:
        return True


class Fussy(Protector):
    """One that refuses some sizes."""

    name: ClassVar[str] = "fussy"

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        if data.size[0] % 2:
            raise UserError("heights must be even")
        return data.with_images(255 - data.images)


class Idle(Protector):
    """One that leaves images as they are, without saying so."""

    name: ClassVar[str] = "idle"

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(data.images.copy())


class Careless(Protector):
    """One that leaves black images as they are, fails for sizes that it does not know, and needs two classes."""

    name: ClassVar[str] = "careless"
    calls: ClassVar[list[tuple[int, ...]]] = []

    @property
    def classes_needed(self) -> int:
        return 2

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        self.calls.append(data.images.shape)
        if data.size[0] % 2:
            raise ZeroDivisionError("odd")
        return data.with_images(data.images // 2)


def entries() -> dict[tuple[str, str], PluginRecord]:
    return {
        ("protector", p.name): PluginRecord("protector", p.name, f"{__name__}:{p.__name__}", "", (), "tests 1")
        for p in (Shuffled, Brighter, Learner, Fussy, Fragile, Idle, Careless)
    }


def register(monkeypatch: Any) -> None:
    for name, entry in entries().items():
        monkeypatch.setitem(registry().entries, name, entry)
