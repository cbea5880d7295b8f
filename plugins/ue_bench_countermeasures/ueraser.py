"""UEraser: strong augmentations, and the worst of several of them for every image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ue_bench.api import Countermeasure, TrainContext

from .policies import equalize, like, only, smoothed, warp

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OPERATIONS = (
    *("auto contrast", "equalize", "rotate", "posterize", "solarize", "contrast", "brightness", "sharpness"),
    *("shear x", "shear y", "translate x", "translate y"),
)


class UEraser(Countermeasure):
    """Cross-entropy of the worst of ``copies`` random augmentations of each image, averaged over the batch.

    Every copy goes through fractal brightness and fractal contrast, each with probability ``plasma``, a shuffle of
    the channels with probability 0.5, and one operation of TrivialAugment, all on floats in [0, 1] and drawn for every
    image. The copies pass through the network one after the other, each with batch statistics of its own; of the
    losses of an image the largest counts. The variants differ in how long that lasts; afterwards there is one copy:

    - ``lite``: one copy from the start.
    - ``standard``: the worst copy in the first quarter of the epochs, rounded up; 50 of 200 in the authors' code.
    - ``max``: the worst copy to the end.

    Fractal maps (diamond-square, one for each channel) and the twelve operations with their ranges are those of
    kornia, which the authors use: rotation up to 30 degrees, 0 to 4 bits, solarisation above any level, contrast,
    brightness and sharpness of 0.1 to 1.9, shear up to 54 degrees, translation up to half the side, bilinear with
    black outside. Kornia's contrast is a factor on the pixels, its brightness a shift, as here.

    Sources disagree on ``plasma``: 0.5 in the authors' main file, 1 in their notebook for EM and in APBench, 0.8 in
    another variant of APBench. Deviations: kornia draws one operation of TrivialAugment for a whole batch, which
    ``trivial=batch`` does; by default each image has its own. The number of worst-case epochs is a share, because
    protocols differ in length. JPEG, which the authors' main file adds at the end and APBench switches on for two
    protectors only, is not part of it.

    Published for UEraser-Max on CIFAR-10 protected by EM, with ResNet-18: 93.61 % (APBench).
    """

    name: ClassVar[str] = "ueraser"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Learning the Unlearnable: Adversarial Augmentations Suppress Unlearnable Example Attacks, 2023"
    )
    uses_labels: ClassVar[bool] = True

    variant: Literal["lite", "standard", "max"] = Field(
        "standard", description="the worst copy counts never, in the first quarter of training, or always"
    )
    copies: int = Field(5, ge=1, le=64, description="augmentations of an image of which the worst counts")
    plasma: float = Field(0.5, ge=0, le=1, description="probability of fractal brightness, and of fractal contrast")
    trivial: Literal["image", "batch"] = Field(
        "image", description="whether each image has its own operation of TrivialAugment or a batch shares one"
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.variant == "lite":
            self.refuse_idle({"copies"}, "variant=lite")
        return self

    @property
    def passes(self) -> float:
        return 1 + (self.copies - 1) * {"lite": 0.0, "standard": 0.25, "max": 1.0}[self.variant]

    def worst_case_epochs(self, epochs: int) -> int:
        """Return in how many epochs, the first ones of so many, the worst copy counts."""
        return {"lite": 0, "standard": -(-epochs // 4), "max": epochs}[self.variant]

    def phase(self, epoch: int, epochs: int) -> bool:
        return epoch < self.worst_case_epochs(epochs)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        import torch
        import torch.nn.functional as F

        losses = []
        for _ in range(self.copies if self.phase(ctx.epoch, ctx.epochs) else 1):
            copy = self.transform(x, ctx.generator)  # in float32: coordinates in half precision miss pixels
            with ctx.autocast():
                logits = model(copy)
            losses.append(F.cross_entropy(logits.float(), y, reduction="none"))
        return torch.stack(losses).max(dim=0).values.mean()

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return one augmented copy of the batch, in [0, 1]."""
        import torch

        count = len(x)
        on: dict[str, Any] = {"generator": generator, "device": x.device}

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, 1, 1, 1, **on)

        result = x
        acts, intensity, roughness = torch.rand(count, **on) < self.plasma, uniform(0.5, 1), uniform(0.3, 0.7)
        fractal = fractals(x, roughness, generator)
        result = only(acts, lambda x, i, f: (x + i * (2 * f - 1)).clamp(0, 1), result, intensity, fractal)
        acts, roughness = torch.rand(count, **on) < self.plasma, uniform(0.3, 0.7)
        fractal = fractals(x, roughness, generator)
        result = only(acts, lambda x, f: ((x - 0.5) * 4 * f + 0.5).clamp(0, 1), result, fractal)
        acts, order = torch.rand(count, **on) < 0.5, torch.rand(count, 3, **on).argsort(dim=1)
        result = only(acts, lambda x, o: x.gather(1, o[:, :, None, None].expand_as(x)), result, order)
        which = torch.randint(len(OPERATIONS), (count if self.trivial == "image" else 1,), **on).expand(count)
        strength, sign = torch.rand(count, **on), 1 - 2 * torch.randint(2, (count,), **on)
        return like(x, trivial_augment(result, which, strength, sign))


def fractals(x: Tensor, roughness: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a fractal map in [0, 1] for every image and channel of ``x``."""
    count, channels, height, width = x.shape
    maps = diamond_square(height, width, roughness.flatten().repeat_interleave(channels), generator)
    return maps.view(count, channels, height, width)


def diamond_square(height: int, width: int, roughness: Tensor, generator: torch.Generator) -> Tensor:
    """Draw maps N x ``height`` x ``width`` in [0, 1], one a number in ``roughness``, as kornia's ``diamond_square``.

    A grid of 3 x K nodes is refined until it covers the image. A new node is ``(1 - s) * mean + s * u``, the mean of
    its neighbours mixed with a uniform draw, where ``s = roughness^k`` at level k.
    """
    import torch

    def draw(*shape: int) -> Tensor:
        return torch.rand(len(roughness), *shape, generator=generator, device=roughness.device)

    cells_down, cells_across = (2 ** math.ceil(math.log2(max(n, 3) - 1)) for n in (height, width))
    levels = int(math.log2(min(cells_down, cells_across))) - 1
    upright = cells_across <= cells_down  # three columns, not three rows
    long = max(cells_down, cells_across) // 2**levels + 1
    grid = torch.zeros(len(roughness), 3, long, device=roughness.device)
    grid[:, ::2, ::2] = draw(2, (long + 1) // 2)
    refine(grid, torch.zeros(1, 1, 1, device=grid.device), torch.zeros_like(grid))
    if upright:
        grid = grid.transpose(1, 2)
    share = torch.ones_like(roughness)[:, None, None]
    for _ in range(levels):
        share = share * roughness[:, None, None]
        finer = torch.zeros(len(grid), 2 * grid.shape[1] - 1, 2 * grid.shape[2] - 1, device=grid.device)
        finer[:, ::2, ::2] = grid
        refine(finer, share, draw(*finer.shape[1:]) * share)
        grid = finer
    return grid[:, :height, :width]


def refine(grid: Tensor, share: Tensor, noise: Tensor) -> None:
    """Fill in the centres of cells, then the middles of their sides, from neighbours and ``noise``. In place."""
    import torch
    import torch.nn.functional as F

    corners = grid[:, :-1:2, :-1:2] + grid[:, :-1:2, 2::2] + grid[:, 2::2, :-1:2] + grid[:, 2::2, 2::2]
    grid[:, 1::2, 1::2] = (1 - share) * corners / 4 + noise[:, 1::2, 1::2]
    padded = F.pad(grid, (1, 1, 1, 1))
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    present = torch.full(grid.shape[1:], 4.0, device=grid.device)
    for border in (present[0], present[-1], present[:, 0], present[:, -1]):
        border.fill_(3.0)  # corners are not new
    middles = (1 - share) * around / present + noise
    grid[:, ::2, 1::2] = middles[:, ::2, 1::2]
    grid[:, 1::2, ::2] = middles[:, 1::2, ::2]


def trivial_augment(x: Tensor, which: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Apply operation number ``which`` to each image, at ``strength`` of 0..1 of its range, signed by ``sign``."""
    import torch

    def chosen(*names: str) -> Tensor:
        mask = torch.zeros_like(which, dtype=torch.bool)
        for name in names:
            mask |= which == OPERATIONS.index(name)
        return mask

    def signed(name: str, most: float) -> Tensor:
        return torch.where(chosen(name), sign * strength * most, 0.0)

    height, width = x.shape[2:]
    angle = signed("rotate", math.radians(30))
    across, down = signed("shear x", 0.3 * math.pi).tan(), signed("shear y", 0.3 * math.pi).tan()
    first = torch.stack([angle.cos(), across - angle.sin(), signed("translate x", width / 2)], dim=1)
    second = torch.stack([down + angle.sin(), angle.cos(), signed("translate y", height / 2)], dim=1)
    level = strength[:, None, None, None]
    factor = 0.1 + 1.8 * level
    moving = chosen("rotate", "shear x", "shear y", "translate x", "translate y")
    x = only(moving, lambda x, m: warp(x, m, "bilinear"), x, torch.stack([first, second], dim=1))
    x = only(chosen("auto contrast"), stretch, x)
    x = only(chosen("equalize"), lambda x: equalize((255 * x).trunc(), 255 * x) / 255, x)
    x = only(chosen("posterize"), posterize, x, 2 ** (8 - (4 * level).round()))
    x = only(chosen("solarize"), lambda x, least: torch.where(x < least, x, 1 - x), x, level)
    x = only(chosen("contrast"), lambda x, f: (x * f).clamp(0, 1), x, factor)
    x = only(chosen("brightness"), lambda x, f: (x + (f - 1)).clamp(0, 1), x, factor)
    return only(chosen("sharpness"), sharpen, x, factor)


def stretch(x: Tensor) -> Tensor:
    """Spread each channel over [0, 1]; a constant one becomes black, as in kornia."""
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    return ((x - low) / (high - low + 1e-6)).clamp(0, 1)


def posterize(x: Tensor, step: Tensor) -> Tensor:
    """Cut levels of 0..255 to multiples of ``step``."""
    return ((255 * x).trunc() / step).floor() * step / 255


def sharpen(x: Tensor, factor: Tensor) -> Tensor:
    """Move between the smoothed image (``factor`` 0) and the image (1) or beyond; the outermost pixels stay."""
    height, width = x.shape[2:]
    if height < 3 or width < 3:
        return x
    smooth, result = smoothed(x), x.clone()
    result[:, :, 1:-1, 1:-1] = (smooth + (x[:, :, 1:-1, 1:-1] - smooth) * factor).clamp(0, 1)
    return result
