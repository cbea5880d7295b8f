"""Rotation, RandAugment and AutoAugment: a draw of its own for every image, and no waiting for the device.

The operations of RandAugment and AutoAugment are those of torchvision's transforms v2 on 8-bit images, to the bit on a
CPU. Which one an image gets is a row of numbers (``ROW``), so that a whole batch with different operations is changed
by the same few tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ue_bench.api import Countermeasure

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ROW = (
    *("from x to x", "from y to x", "shift of x", "from x to y", "from y to y", "shift of y"),
    *("brightness", "color", "contrast", "sharpness", "step", "threshold", "stretch", "equalize"),
)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 256.0, 0.0, 0.0)
OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
    *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
GREEN, BLUE = 0.5870000123977661, 0.11400000005960464  # 0.587 and 0.114 in float32
SIGNED = frozenset(OPERATIONS[1:10])

Step = tuple[str, float, int]
# AutoAugment, table 7: 25 pairs of (operation, probability, magnitude of 0..9; 0 where there is none)
CIFAR10_POLICY: tuple[tuple[Step, Step], ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)


class Rotation(Countermeasure):
    """Every image turned about its centre by an angle of its own, uniform in [-``degrees``, ``degrees``].

    Nearest pixel, black outside, same size: torchvision's ``RandomRotation``. The code of EM trains CIFAR-100 with 20
    degrees; the strong augmentation of Orthogonal Projection has 10.
    """

    name: ClassVar[str] = "rotation"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "Unlearnable Examples: Making Personal Data Unexploitable, ICLR 2021, arXiv 2101.04898"

    degrees: float = Field(20.0, gt=0, le=180, description="largest angle to either side")

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        draw = torch.rand(len(x), generator=generator, device=x.device)
        return like(x, warp(x, rotations((2 * draw - 1) * math.radians(self.degrees)))), y


class RandAugment(Countermeasure):
    """``ops`` operations in a row on every image, each drawn uniformly from fourteen, all of one magnitude.

    Identity, shear and translation along x and y, rotation, brightness, colour, contrast, sharpness, posterize,
    solarize, auto-contrast and equalize; the sign of a magnitude is a fair coin where it has one. Magnitudes are 0..30;
    the default 9 is a rotation of 9 degrees, a shear of 0.09, a translation by 13.6 % of the side cut to whole pixels,
    an enhancement factor of 0.73 or 1.27, and 7 bits. Nearest pixel, black outside.

    Operations and magnitudes are those of torchvision's ``RandAugment`` on 8-bit images, where the paper's code has
    other ranges. Batches are rounded to 8 bits first, which changes nothing unless a countermeasure before it left
    other values.
    """

    name: ClassVar[str] = "randaugment"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "RandAugment: Practical automated data augmentation, NeurIPS 2020, arXiv 1909.13719"

    ops: int = Field(2, ge=1, le=14, description="operations in a row")
    magnitude: int = Field(9, ge=0, le=30, description="strength of every operation, of 0..30")

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        height, width = x.shape[2:]
        signs = (1, -1)
        table = constant(
            tuple(tuple(row(o, magnitude(o, self.magnitude, 31, height, width) * sign_of(o, s), height, width))
                  for o in OPERATIONS for s in signs),
            x.device,
        )  # fmt: skip
        levels = to_levels(x)
        for _ in range(self.ops):
            drawn = torch.randint(len(table), (len(x),), generator=generator, device=x.device)
            levels = change(levels, table[drawn])
        return like(x, levels / 255), y


class AutoAugment(Countermeasure):
    """One of the 25 sub-policies found for CIFAR-10, drawn for every image: two operations with their probabilities.

    Sub-policies of the paper's table 7 with the operations and magnitudes (ten steps, signs from a fair coin) of
    torchvision's ``AutoAugment(CIFAR10)`` on 8-bit images, also on other datasets. Nearest pixel, black outside.
    Batches are rounded to 8 bits first. Deviation: the code of EM and AVATAR has 493 sub-policies of Fast
    AutoAugment, before crop and flip; here the policy comes after them.
    """

    name: ClassVar[str] = "autoaugment"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019, arXiv 1805.09501"

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        count, (height, width) = len(x), x.shape[2:]
        policy = torch.randint(len(CIFAR10_POLICY), (count,), generator=generator, device=x.device)
        levels = to_levels(x)
        for step in range(2):
            steps = [pair[step] for pair in CIFAR10_POLICY]
            rows = [
                tuple(row(o, magnitude(o, strength, 10, height, width) * sign_of(o, sign), height, width))
                for sign in (1, -1)
                for o, _, strength in steps
            ]
            table = constant((*rows, IDENTITY), x.device)
            probability = constant(tuple(p for _, p, _ in steps), x.device)
            acts = torch.rand(count, generator=generator, device=x.device) < probability[policy]
            negative = torch.randint(2, (count,), generator=generator, device=x.device)
            levels = change(levels, table[torch.where(acts, policy + len(steps) * negative, len(rows))])
        return like(x, levels / 255), y


def sign_of(operation: str, sign: int) -> int:
    """Return ``sign`` for an operation that has one, else 1."""
    return sign if operation in SIGNED else 1


@cache
def magnitude(operation: str, strength: int, bins: int, height: int, width: int) -> float:
    """Return what ``strength`` of 0..``bins - 1`` means: angle, shear, pixels, factor's change, bits, share of white.

    Rounded to float32 as in torchvision: an enhanced pixel may lie exactly between two levels.
    """
    import torch

    if operation == "Posterize":
        return round(8 - strength / ((bins - 1) / 4))
    side = {"TranslateX": width, "TranslateY": height}.get(operation, 0)
    first, last = {
        "ShearX": (0, 0.3),
        "ShearY": (0, 0.3),
        "TranslateX": (0, 150 / 331 * side),
        "TranslateY": (0, 150 / 331 * side),
        "Rotate": (0, 30),
        "Brightness": (0, 0.9),
        "Color": (0, 0.9),
        "Contrast": (0, 0.9),
        "Sharpness": (0, 0.9),
        "Solarize": (1, 0),
    }.get(operation, (0, 0))
    return torch.linspace(first, last, bins)[strength].item()


def row(operation: str, amount: float, height: int, width: int) -> list[float]:
    """Return ``operation`` as the numbers that ``change`` takes. A matrix leads from a result's pixel to its origin."""
    numbers = list(IDENTITY)
    match operation:
        case "ShearX" | "ShearY":  # about the upper left corner
            shear = math.tan(math.radians(math.degrees(math.atan(amount))))  # torchvision's way, to the last bit
            if operation == "ShearX":
                numbers[1], numbers[2] = shear, shear * height / 2
            else:
                numbers[3], numbers[5] = shear, shear * width / 2
        case "TranslateX":
            numbers[2] = -int(amount)
        case "TranslateY":
            numbers[5] = -int(amount)
        case "Rotate":
            cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
            numbers[:6] = cosine, -sine, 0.0, sine, cosine, 0.0
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            numbers[ROW.index(operation.lower())] = 1 + amount
        case "Posterize":
            numbers[ROW.index("step")] = 2 ** (8 - amount)
        case "Solarize":
            numbers[ROW.index("threshold")] = 255 * amount
        case "Invert":
            numbers[ROW.index("threshold")] = 0.0
        case "AutoContrast":
            numbers[ROW.index("stretch")] = 1.0
        case "Equalize":
            numbers[ROW.index("equalize")] = 1.0
    return numbers


@cache
def constant(numbers: tuple[float, ...] | tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Return ``numbers`` on ``device``, in float64 where it has that. Brought there once: a step must not wait."""
    import torch

    return torch.tensor(numbers, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)


def to_levels(x: Tensor) -> Tensor:
    """Convert [0, 1] to whole levels 0..255, still floats."""
    return (x * 255).round_().clamp_(0, 255)


def like(x: Tensor, values: Tensor) -> Tensor:
    """Return ``values`` in the memory format of ``x``."""
    import torch

    return torch.empty_like(x).copy_(values)


def rotations(angles: Tensor) -> Tensor:
    """Return matrices N x 2 x 3 that turn by ``angles`` (radians), anticlockwise as seen."""
    import torch

    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)


def warp(x: Tensor, matrices: Tensor, mode: str = "nearest") -> Tensor:
    """Sample each image where its matrix N x 2 x 3 leads, in pixels from the centre; 0 outside."""
    import torch
    import torch.nn.functional as F

    height, width = x.shape[2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device) - (height - 1) / 2
    columns = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2
    ones = torch.ones(height, width, dtype=x.dtype, device=x.device)
    base = torch.stack([ones * columns, ones * rows[:, None], ones], dim=2).view(1, -1, 3)
    matrices = matrices.to(x.dtype)  # rounded before the division, as in torchvision: pixels may be equally near
    across, down = matrices[:, 0] / (0.5 * width), matrices[:, 1] / (0.5 * height)
    grid = base.expand(len(x), -1, -1).bmm(torch.stack([across, down], dim=2))
    return F.grid_sample(x, grid.view(len(x), height, width, 2), mode, "zeros", align_corners=False)


def change(levels: Tensor, rows: Tensor) -> Tensor:
    """Change images of whole levels, each by the operation of its row N x ``len(ROW)``."""
    import torch

    identity = constant(IDENTITY, levels.device)
    moved = (rows[:, :6] != identity[:6]).any(dim=1)
    brightness, color, contrast, sharpness, step, threshold, stretch, equalized = (rows != identity)[:, 6:].unbind(1)
    factors = dict(zip(ROW, rows[:, :, None, None, None].unbind(1), strict=True))
    levels = only(moved, warp, levels, rows[:, :6].view(-1, 2, 3))
    levels = only(brightness, lambda x, factor: blend(x, torch.zeros_like(x), factor), levels, factors["brightness"])
    levels = only(color, lambda x, factor: blend(x, luma(x), factor), levels, factors["color"])
    levels = only(contrast, lambda x, factor: blend(x, average(x), factor), levels, factors["contrast"])
    levels = only(sharpness, sharpen, levels, factors["sharpness"])
    levels = only(step, lambda x, step: x - x.remainder(step.float()), levels, factors["step"])
    levels = only(threshold, lambda x, least: torch.where(x >= least.float(), 255 - x, x), levels, factors["threshold"])
    levels = only(stretch, full_range, levels)
    return only(equalized, equalize, levels)


def only(chosen: Tensor, operation: Callable[..., Tensor], x: Tensor, *arguments: Tensor) -> Tensor:
    """Apply ``operation`` to the ``chosen`` images and their ``arguments``; the others stay as they are.

    On a CPU nothing is computed for the others; elsewhere to find out which they are would be to wait for the device.
    """
    import torch

    if x.device.type != "cpu":
        return torch.where(chosen[:, None, None, None], operation(x, *arguments), x)
    [where] = chosen.nonzero(as_tuple=True)
    if not len(where):
        return x
    return x.index_copy(0, where, operation(x[where], *(a[where] for a in arguments)))


def fused(a: Tensor, b: Tensor, factor: Tensor | float) -> Tensor:
    """Return ``a + factor * b`` with one rounding to float32, as processors multiply and add."""
    import torch

    wide = torch.float64 if a.device.type != "mps" else torch.float32  # Apple's devices have no float64
    return (a.to(wide) + factor * b.to(wide)).to(a.dtype)


def luma(levels: Tensor) -> Tensor:
    """Return the gray level N x 1 x H x W, cut to whole numbers; by torchvision's weights, which make 254 of white."""
    red, green, blue = levels.unbind(1)
    return fused(fused(red * 0.2989, green, GREEN), blue, BLUE).floor()[:, None]


def average(levels: Tensor) -> Tensor:
    """Return the mean gray level of each image."""
    return luma(levels).mean(dim=(2, 3), keepdim=True)


def blend(levels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return ``factor * levels + (1 - factor) * other``, cut to whole levels."""
    return fused(levels * factor.float(), other, (1 - factor).float()).clamp(0, 255).trunc()


def sharpen(levels: Tensor, factor: Tensor) -> Tensor:
    """Move away from the smoothed image for a ``factor`` above 1, towards it below; the outermost pixels stay."""
    height, width = levels.shape[2:]
    if height < 3 or width < 3:
        return levels
    inner, result = levels[:, :, 1:-1, 1:-1], levels.clone()
    smooth = smoothed(levels).round()
    result[:, :, 1:-1, 1:-1] = fused(inner, smooth - inner, (1 - factor).float()).clamp(0, 255).trunc()
    return result


def smoothed(x: Tensor) -> Tensor:
    """Return the mean of 3 x 3 pixels, the middle one counted five times; two rows and columns less than ``x``."""
    height, width = x.shape[2:]
    total = 4 * x[:, :, 1:-1, 1:-1]
    for down in range(3):
        for across in range(3):
            total = total + x[:, :, down : down + height - 2, across : across + width - 2]
    return total / 13


def full_range(levels: Tensor) -> Tensor:
    """Spread each channel over 0..255; a constant one stays."""
    import torch

    low, high = levels.amin(dim=(2, 3), keepdim=True), levels.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return ((levels - torch.where(flat, 0.0, low)) / scale).clamp(0, 255).trunc()


def equalize(levels: Tensor, otherwise: Tensor | None = None) -> Tensor:
    """Equalise each channel's histogram as Pillow does; ``otherwise`` (the levels) where too few pixels differ."""
    import torch

    pixels = levels.long().flatten(2)
    count = torch.zeros(*pixels.shape[:2], 256, dtype=torch.int64, device=levels.device)
    count.scatter_add_(2, pixels, torch.ones_like(pixels))
    # the pixels of the highest level do not count; 255 steps share the others
    step = (pixels.shape[2] - count.gather(2, pixels.amax(dim=2, keepdim=True))) // 255
    below = count.cumsum(dim=2) - count
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    equalized = table.gather(2, pixels).view(levels.shape).to(levels.dtype)
    return torch.where((step == 0)[..., None], levels if otherwise is None else otherwise, equalized)
