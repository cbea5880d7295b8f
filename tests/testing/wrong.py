"""Plugins that are right on the usual sets and wrong in one way elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ue_bench.api import (
    Context,
    Countermeasure,
    Dataset,
    ImageSet,
    Protector,
    UserError,
    Victim,
    load_arrays,
    save_arrays,
)


class Dotted(Protector):
    """Adds levels at random places, drawn once for all: ``fault`` says what it does wrong."""

    name: ClassVar[str] = "dotted"
    fault: str = Field("", description="what is wrong")

    @property
    def budget(self) -> str:
        return "linf 8/255"

    def recover(self, images: NDArray[np.uint8], ctx: Context) -> NDArray[np.uint8]:
        lifted = images - np.minimum(images, 4)
        return lifted + np.uint8(len(images)) if self.fault == "batch" else lifted

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        height, width = data.size
        if self.fault == "sides":
            data.images.reshape(len(data), width, height, 3)[:, : height - 1, : height - 1].reshape(len(data), -1, 3)
            assert height == width, "square images only"
        if self.fault == "classes":
            means = [data.images[data.labels == k].sum() // (data.labels == k).sum() for k in range(data.num_classes)]
            assert means
        if self.fault == "many" and data.num_classes > 64:
            raise IndexError("palette index out of range")
        if self.fault == "refuses" and height != width:
            raise UserError("dotted takes square images")
        if self.fault == "small" and height > 500:
            raise UserError("dotted takes small images")
        if self.fault == "gray" and (data.images[..., 0] == data.images[..., 1]).all():
            return ImageSet(data.images[:, ::-1], np.roll(data.labels, 1), data.class_names)
        self.spoil(data)
        images = self.lifted(data, ctx)
        return data.with_images(images)

    def spoil(self, data: ImageSet) -> None:
        """Change what is not its own."""
        match self.fault:
            case "inputs":
                images: Any = data.images.base
                images.flags.writeable = True
                images[0] = 0
            case "threads":
                torch.set_num_threads(torch.get_num_threads() + 1)
            case "errors":
                np.seterr(over="raise")
            case "memory":
                if data.size[0] > 500:
                    np.ones(250_000_000)

    def lifted(self, data: ImageSet, ctx: Context) -> NDArray[np.uint8]:
        where = np.random.default_rng(3) if ctx.secret and self.fault == "secret" else ctx.rng("where")
        dots = where.integers(0, 2, data.images.shape, dtype=np.uint8)
        if self.fault == "flat":  # 0 / 0 where an image has no contrast
            contrast = np.ptp(data.images.reshape(len(data), -1), axis=1).astype(np.float32)
            with np.errstate(divide="ignore"):
                dots = (dots * (contrast / contrast)[:, None, None, None]).astype(np.uint8)
        levels = np.uint8(8 if self.fault != "bold" or data.size[0] == data.size[1] else 9)
        lifted: NDArray[np.uint8] = np.minimum(data.images, 255 - levels) + levels * dots
        return lifted


class Long(Protector):
    """Adds a level in each of five steps, whose state it keeps."""

    name: ClassVar[str] = "long"
    fault: str = Field("", description="what is wrong")

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        folder = ctx.checkpoint_dir({"long": data.fingerprint, "seed": ctx.seed})
        state = load_arrays(folder / "state.npz") or {"images": data.images // np.uint8(2), "step": np.array(0)}
        images, first = state["images"], int(state["step"])
        for step in range(first, 5):
            images = images + ctx.rng(step).integers(0, 2, images.shape, dtype=np.uint8)
            done = step if self.fault == "repeats" else step + 1
            save_arrays(folder / "state.npz", {"images": images, "step": np.array(done)})
            ctx.report(step + 1, 5, "steps")
        if self.fault != "leaves":
            shutil.rmtree(folder)
        return data.with_images(images)


class Silent(Protector):
    """Works on and on, and reports nothing."""

    name: ClassVar[str] = "silent"

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        while True:
            time.sleep(0.01)


class Bright(Countermeasure):
    """Brighter images, in both ways."""

    name: ClassVar[str] = "bright"
    fault: str = Field("", description="what is wrong")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        if self.fault == "sides":
            return data.with_images(np.swapaxes(data.images, 1, 2))
        return data.with_images(np.minimum(data.images, 250) + np.uint8(5))

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.fault == "in place":
            return x.mul_(0.9).add_(0.1), y
        if self.fault == "nan":
            return x * (x.amax(dim=(1, 2, 3), keepdim=True) / x.amax(dim=(1, 2, 3), keepdim=True)), y
        return 0.9 * x + 0.1, y


class Wired(Victim):
    """One linear layer."""

    name: ClassVar[str] = "wired"
    fault: str = Field("", description="what is wrong")

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        height, width = image_size
        inputs = 3 * height * (height if self.fault == "sides" else width)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, min(num_classes, 10) if self.fault else num_classes))


class Undocumented(Dataset):
    name: ClassVar[str] = "undocumented"
    revision: ClassVar[int] = 0
    side: int = 4

    def load(self, split: str, ctx: Context) -> ImageSet:
        images = np.full((4, self.side, self.side, 3), 1 if split == "test" else 2, np.uint8)
        return ImageSet(images, np.arange(4) % 2, ("a", "b"))
