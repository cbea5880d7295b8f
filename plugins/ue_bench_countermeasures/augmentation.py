"""Countermeasures that act on batches while the victim trains: fresh random numbers for every image and epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Countermeasure, Ratio, TrainContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


ROUNDING = 1e-4  # of a level, in float32


class Vanilla(Countermeasure):
    """No countermeasure: every cell trains with the crop and flip of its protocol, and this one with nothing else.

    The reference column. Published for clean CIFAR-10 with ResNet-18: 94.59 % (Deep Hiding, Table 1). The paper's body
    speaks of "random crop and resize", its appendix of flip and a padded crop; protocols follow the appendix.
    """

    name: ClassVar[str] = "vanilla"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Semantic Deep Hiding for Robust Unlearnable Examples, IEEE TIFS 2024, arXiv 2406.17349"


class Cutout(Countermeasure):
    """One square hole in every image, at a centre drawn uniformly over all pixels, the same in all channels.

    The hole covers rows and columns ``[centre - L//2, centre + L//2)`` and is clipped at the border, so it shrinks
    there; an odd ``L`` acts as ``L - 1``, as in the authors' code. It is always applied. Default ``L``: 16 at 32 px
    and 116 at 224 px (Deep Hiding, appendix; 116, not 112), half the shorter side at other sizes. On average a hole
    of 16 removes 196 of the 1024 pixels of an image of 32 px.

    Black in [0, 1] is what the code of EM, ISS and APBench fills. Deep Hiding does not say, and code that fills zero
    after its shift of -0.5 would leave mid-gray: ``fill=gray``. ``fill=mean`` takes the mean colour of each image.

    Published for clean CIFAR-10 with ResNet-18: 95.00 % (Deep Hiding, Table 1).
    """

    name: ClassVar[str] = "cutout"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "Improved Regularization of Convolutional Neural Networks with Cutout, arXiv 1708.04552"

    length: int | None = Field(
        None, ge=2, description="side of the hole in pixels; by default 16 at 32 px, 116 at 224 px, else half the image"
    )
    fill: Literal[0, "gray", "mean"] = Field(
        0, description="value in the hole: black, 0.5, or each image's mean colour"
    )

    def side(self, height: int, width: int) -> int:
        """Return the side of the unclipped hole for images of this size."""
        shorter = min(height, width)
        return self.length or (116 if shorter == 224 else round(shorter / 2))

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        height, width = x.shape[2:]
        half = self.side(height, width) // 2
        rows = window(random_centre(len(x), height, generator), half, height)
        columns = window(random_centre(len(x), width, generator), half, width)
        hole = box(rows, columns)
        if self.fill == "mean":
            colour = x.mean(dim=(2, 3), keepdim=True)
        else:
            colour = x.new_full((), 0.5 if self.fill == "gray" else 0.0)
        return torch.where(hole, colour, x), y


class Mixup(Countermeasure):
    """Every image is blended with another one of its batch: ``l * x_i + (1 - l) * x_j``.

    ``l`` is drawn from U(0, 1) = Beta(1, 1) for each image; partners are a random permutation of the batch in which
    no image stays in its place. The variants differ in the label only:

    - ``dh``: cross-entropy with the original label ``y_i``, whatever ``l`` (Deep Hiding, appendix). In expectation
      that is half ``y_i`` and half ``y_j``, because (i, j, l) and (j, i, 1 - l) give the same image.
    - ``standard``: ``l * CE(y_i) + (1 - l) * CE(y_j)`` (mixup, section 2, with alpha = 1).

    Deviations: Deep Hiding gives no law for ``l`` beyond "ranging from 0 to 1", and does not say whether partners come
    from the batch or the dataset. The code of EM, ISS and AR mixes twice, each time with probability 0.5, with partners
    from the whole dataset; that is not built.

    Published for clean CIFAR-10 with ResNet-18: 94.96 % (Deep Hiding, Table 1).
    """

    name: ClassVar[str] = "mixup"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv 1710.09412"
    uses_labels: ClassVar[bool] = True

    variant: Literal["dh", "standard"] = Field("dh", description="keep the original label, or weight both labels")

    def mix(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Mix images; return them, the index of each image's partner, and the weight N of the image itself."""
        import torch

        partner = partners(len(x), generator)
        weight = torch.rand(len(x), generator=generator, device=x.device)
        return blend(x, x[partner], weight), partner, weight

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        mixed, partner, weight = self.mix(x, ctx.generator)
        if self.variant == "dh":
            return weighted_cross_entropy(model, mixed, ctx, (y, None))
        return weighted_cross_entropy(model, mixed, ctx, (y, weight), (y[partner], 1 - weight))


class CutMix(Countermeasure):
    """A box of every image is filled with the same window of another image of its batch.

    The centre is uniform over all pixels. With ``u`` drawn from U(0, 1) for each image, the sides of the box are
    ``int(S * sqrt(1 - u))`` of the image's sides ``S`` (``size=area_ratio``, CutMix equation 2) or ``int(S * u)``
    (``size=side_ratio``), made even and clipped at the border as in the authors' code. At 32 px it covers 29.9 %
    (``side_ratio``: 20.4 %) of the image on average. The loss weights both labels by the area they cover after
    clipping (``label=area``), or keeps the image's own label (``label=original``).

    ``box=kornia`` is the box of kornia 0.6.12, which the code of APBench has: sides of ``int(S * sqrt(1 - u))``, not
    made even, that always fit into the image, with a corner at ``int(v * (S - side - 1))`` where one v is drawn for
    each axis and batch. So all boxes of a batch are at one relative place, the last row and column are never pasted,
    and 47.9 % of an image of 32 px are pasted on average (49.7 % at 224 px). Newer releases of kornia draw places anew
    for every image.

    Deviations: Deep Hiding speaks of "a randomly selected size (ranging from 0 to 1)", which fits either ``size``, and
    does not give the label rule; the defaults are those of the CutMix paper. On images that are not square the box
    has the image's proportions. No image is its own partner.

    Published for clean CIFAR-10 with ResNet-18: 94.77 % (Deep Hiding, Table 1).
    """

    name: ClassVar[str] = "cutmix"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019, arXiv 1905.04899"
    uses_labels: ClassVar[bool] = True

    size: Literal["area_ratio", "side_ratio"] = Field(
        "area_ratio", description="whether the uniform draw is the share of the area that stays or of the side pasted"
    )
    label: Literal["area", "original"] = Field("area", description="weight both labels by area, or keep the own one")
    box: Literal["clipped", "kornia"] = Field(
        "clipped", description="where boxes lie: at a random centre and clipped, or as in kornia 0.6.12 always whole"
    )

    def side_ratio(self, u: Tensor) -> Tensor:
        """Return the side of the box as a share of the image's side, for uniform numbers ``u``."""
        return u if self.size == "side_ratio" else (1 - u).sqrt()

    def mix(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Mix images; return them, the index of each image's partner, and the share N of the image that is its own."""
        import torch

        count, height, width = len(x), *x.shape[2:]
        partner = partners(count, generator)
        ratio = self.side_ratio(torch.rand((count, 1), generator=generator, device=x.device))
        span = whole_span if self.box == "kornia" else clipped_span
        rows = span((height * ratio).long(), height, generator)
        columns = span((width * ratio).long(), width, generator)
        share = 1 - rows.sum(dim=1) * columns.sum(dim=1) / (height * width)
        return torch.where(box(rows, columns), x[partner], x), partner, share

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        mixed, partner, share = self.mix(x, ctx.generator)
        if self.label == "original":
            return weighted_cross_entropy(model, mixed, ctx, (y, None))
        return weighted_cross_entropy(model, mixed, ctx, (y, share), (y[partner], 1 - share))


class GaussianNoise(Countermeasure):
    """Independent Gaussian noise on every pixel and channel of every batch, then clamped to [0, 1].

    The paper's "N(0, 0.1)" is read as a standard deviation of 0.1 on the [0, 1] scale, 25.5 of 255 levels. Read as a
    variance it would be ``std=0.316``, but the published drop of 5.9 points on clean images fits the former.
    Deviation: Deep Hiding does not say whether noise is fresh each epoch or drawn once an image; here it is fresh.

    Published for clean CIFAR-10 with ResNet-18: 88.71 % (Deep Hiding, Table 1).
    """

    name: ClassVar[str] = "gaussian-noise"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "Semantic Deep Hiding for Robust Unlearnable Examples, IEEE TIFS 2024, arXiv 2406.17349"

    std: Ratio = Field(0.1, gt=0, le=1, description="standard deviation on the [0, 1] scale")

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        # drawn in the order of N x 3 x H x W: the same noise in every memory format, and eight times as fast on a CPU
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return torch.add(x, noise, alpha=self.std).clamp_(0.0, 1.0), y


class Coin(Countermeasure):
    """Every pixel taken from a random place near it, with bilinear interpolation (COIN).

    The offsets of each pixel are uniform in (-``alpha``, ``alpha``) along x and y, the same for all channels, and fresh
    in every batch. Places outside wrap around as in SciPy's ``mode="wrap"``, which takes the first and the last pixel
    for one. The result is cut to 8 bits, not rounded, as in the authors' code, and comes after crop and flip as there.
    ``alpha=2`` is their severity 4 of 0.8, 1.2, 1.6, 2, 2.4, 2.8 and 3.2; ``alpha=0`` changes nothing.

    Deviation: the authors interpolate in float64. Here it is float32, so that one pixel in some thousands, whose value
    is next to a whole level, comes out one level away.
    """

    name: ClassVar[str] = "coin"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Detecting and Corrupting Convolution-based Unlearnable Examples, AAAI 2025, arXiv 2311.18403"
    )

    alpha: float = Field(2.0, ge=0, le=32, description="largest offset in pixels, along each axis")

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        count, channels, height, width = x.shape
        offsets = self.alpha * (2 * torch.rand(2, count, height, width, generator=generator, device=x.device) - 1)
        left, right, across = neighbours(torch.arange(width, device=x.device) + offsets[0], width)
        above, below, down = neighbours(torch.arange(height, device=x.device)[:, None] + offsets[1], height)
        levels = (255 * x).flatten(2)

        def at(row: Tensor, column: Tensor) -> Tensor:
            where = (row * width + column).flatten(1)[:, None].expand(-1, channels, -1)
            return levels.gather(2, where).view(count, channels, height, width)

        upper = torch.lerp(at(above, left), at(above, right), across[:, None])
        lower = torch.lerp(at(below, left), at(below, right), across[:, None])
        moved = torch.lerp(upper, lower, down[:, None])
        # rounding errors must not cost a level where all four neighbours are alike
        return torch.empty_like(x).copy_((moved + ROUNDING).floor_().clamp_(0, 255) / 255), y


def neighbours(place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels below and above each place along an axis, and its distance from the one below."""
    import torch

    last = size - 1
    if not last:
        return torch.zeros_like(place, dtype=torch.long), torch.zeros_like(place, dtype=torch.long), place * 0
    place = torch.where((place < 0) | (place > last), place.remainder(last), place)
    low = place.floor().clamp(max=last - 1)
    return low.long(), low.long() + 1, place - low


def random_centre(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` x 1 positions, uniform over 0..size-1."""
    import torch

    return torch.randint(size, (count, 1), generator=generator, device=generator.device)


def window(centre: Tensor, half: int | Tensor, size: int) -> Tensor:
    """Return N x ``size``, true at positions in ``[centre - half, centre + half)``. ``centre``, ``half`` are N x 1."""
    import torch

    offset = torch.arange(size, device=centre.device) - centre
    return (offset >= -half) & (offset < half)


def clipped_span(side: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw where a box of ``side`` (N x 1), made even, lies along an axis: N x ``size``, clipped at the borders."""
    return window(random_centre(len(side), size, generator), side // 2, size)


def whole_span(side: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw where a box of ``side`` (N x 1) lies along an axis so that it fits: all at one relative place."""
    import torch

    place = torch.rand(1, generator=generator, device=generator.device)
    start = ((size - side - 1).clamp(min=0) * place).long()
    at = torch.arange(size, device=side.device)
    return (at >= start) & (at < start + side)


def box(rows: Tensor, columns: Tensor) -> Tensor:
    """Return N x 1 x H x W, true where both the row (N x H) and the column (N x W) are."""
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def partners(count: int, generator: torch.Generator) -> Tensor:
    """Draw a permutation of ``count`` indices that is one cycle: nobody is their own partner if there are two."""
    import torch

    order = torch.rand(count, generator=generator, device=generator.device).argsort()
    return torch.empty_like(order).scatter_(0, order, order.roll(1))


def blend(x: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Return ``weight * x + (1 - weight) * other`` with one weight an image."""
    import torch

    return torch.lerp(other, x, weight.to(x.dtype)[:, None, None, None])


def weighted_cross_entropy(
    model: nn.Module, x: Tensor, ctx: TrainContext, *targets: tuple[Tensor, Tensor | None]
) -> Tensor:
    """Return the batch's mean of the weighted sum of cross-entropies, in float32. A weight of None means 1."""
    import torch
    import torch.nn.functional as F

    with ctx.autocast():
        logits = model(x)
    logits = logits.float()
    losses = torch.zeros_like(logits[:, 0])
    for label, weight in targets:
        of_label = F.cross_entropy(logits, label, reduction="none")
        losses = losses + (of_label if weight is None else weight * of_label)
    return losses.mean()
