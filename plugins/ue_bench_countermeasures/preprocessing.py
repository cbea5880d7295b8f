"""Countermeasures that change stored images once, before crop and flip. All are deterministic, from uint8 to uint8."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ue_bench.api import Context, ImageSet, Preprocessing

Images = NDArray[np.uint8]
BATCH_BYTES = 2**18  # intermediate results then stay in a core's cache


def apply(change: Callable[[Images], Images], data: ImageSet, ctx: Context, text: str) -> ImageSet:
    """Apply ``change`` to batches of ``data``, N x H x W x 3, of a size that suits the processor's cache."""
    height, width = data.size
    batch = max(1, BATCH_BYTES // (3 * height * width))
    return ctx.map_images(data, lambda images, where: change(images), text, batch)


class Mean(Preprocessing):
    """Mean of the 3x3 neighbourhood, per channel, rounded to the nearest integer.

    Borders are mirrored without repeating the edge pixel (reflect-101), the default of OpenCV's ``blur``, which the
    code of ISS and REM calls. The filter acts on the stored image, before the crop; the released ISS code has it
    after the conversion to a tensor, where it cannot run.

    Published for clean CIFAR-10 with ResNet-18: 49.70 % (Deep Hiding, Table 1), with test images left alone.
    """

    name: ClassVar[str] = "mean"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Image Shortcut Squeezing, ICML 2023, arXiv 2301.13838"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return apply(mean_3x3, data, ctx, self.selector)


class Median(Preprocessing):
    """Median of the 3x3 neighbourhood, per channel.

    Borders repeat the edge pixel, as in Pillow's ``MedianFilter(3)`` and OpenCV's ``medianBlur``, to which the result
    is identical. It removes single changed pixels, hence the one-pixel shortcut.

    Published for clean CIFAR-10 with ResNet-18: 86.64 % (Deep Hiding, Table 1), with test images left alone.
    """

    name: ClassVar[str] = "median"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Image Shortcut Squeezing, ICML 2023, arXiv 2301.13838"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return apply(median_3x3, data, ctx, self.selector)


class BitDepthReduction(Preprocessing):
    """Fewer bits a channel. Papers mean five different things by it; here for values v in 0..255 and two bits:

    - ``posterize``: keeps the leading ``bits`` bits: 0, 64, 128, 192, so white becomes 192. What the code of ISS and
      APBench does.
    - ``squeeze``: rounds to ``2**bits`` levels spread over 0..255: 0, 85, 170, 255. Feature Squeezing.
    - ``truncate``: ``trunc(4 x) / 4`` on x in [0, 1]: five levels, 0, 64, 128, 191 and, for white alone, 255. What the
      code of D-VAE compares itself with.
    - ``round``: ``round(4 x) / 4``: five levels, 0, 64, 128, 191, 255. The code of Guo et al.
    - ``float``: ``truncate`` with white in the level below: 0, 64, 128, 191. Torchvision's posterize on floats.

    The last three are on floats in their sources; here they are rounded to 8 bits, halves up, as all stored images.
    Deep Hiding says "2 bits" only; ``posterize`` follows from its use of the ISS set.

    Published for clean CIFAR-10 with ResNet-18: 89.07 % (Deep Hiding, Table 1), with test images left alone.
    """

    name: ClassVar[str] = "bdr"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Feature Squeezing, NDSS 2018, arXiv 1704.01155; Image Shortcut Squeezing, arXiv 2301.13838"

    bits: int = Field(2, ge=1, le=8, description="bits a channel")
    variant: Literal["posterize", "squeeze", "truncate", "round", "float"] = Field(
        "posterize", description="cut the low bits, round to levels from black to white, or one of three on floats"
    )

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        table = self.table()
        return apply(lambda images: np.take(table, images), data, ctx, self.selector)

    def table(self) -> Images:
        """Return the new value of each of 0..255."""
        values, steps = np.arange(256), 2**self.bits
        match self.variant:
            case "posterize":
                return (values >> (8 - self.bits) << (8 - self.bits)).astype(np.uint8)
            case "squeeze":
                steps -= 1
                levels = (2 * values * steps + 255) // 510  # round(v * steps / 255); no ties, both are odd
            case "round":
                levels = (2 * values * steps + 255) // 510  # no ties, 255 is odd
            case "truncate":
                levels = values * steps // 255
            case "float":
                levels = np.minimum(values * steps // 255, steps - 1)
        return np.asarray((2 * levels * 255 + steps) // (2 * steps), dtype=np.uint8)


class Gray(Preprocessing):
    """One gray level in all three channels: luma, 0.299 R + 0.587 G + 0.114 B.

    Luma is computed as Pillow's ``convert("L")`` does, ``(19595 R + 38470 G + 7471 B + 32768) >> 16``, so that white
    stays 255; torchvision's path for tensors truncates and gives 254. The other variants are those of the ISS code:
    ``mean`` of the channels, cut to whole levels, or ``red``, ``green`` or ``blue`` alone.

    Published for clean CIFAR-10 with ResNet-18: 92.80 % (Deep Hiding, Table 1), with test images left alone.
    """

    name: ClassVar[str] = "gray"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Image Shortcut Squeezing, ICML 2023, arXiv 2301.13838"

    variant: Literal["luma", "mean", "red", "green", "blue"] = Field(
        "luma", description="weighted sum or mean of the channels, or one of them"
    )

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return apply(self.change, data, ctx, self.selector)

    def change(self, images: Images) -> Images:
        """Return N x H x W x 3 with the same level in all three channels."""
        if self.variant == "luma":
            return gray(images)
        if self.variant == "mean":
            level = (images.sum(axis=3, dtype=np.uint16) // 3).astype(np.uint8)
        else:
            level = images[..., ("red", "green", "blue").index(self.variant)]
        return np.repeat(level[..., None], 3, axis=3)


class ColourSpace(Preprocessing):
    """A probe of what a perturbation needs of colour: one step in a colour space, and nothing else.

    - ``rotate``: red takes the values of green, green those of blue, blue those of red (ISS code). Nothing is lost.
    - ``quarter``: values divided by four and cut to whole levels (ISS code): the two lowest bits go, and contrast.
    - ``value``: the largest of the three channels in all of them, V of HSV.
    - ``chroma``: Cb and Cr averaged over blocks of 2 x 2 pixels, Y left as it is: JPEG's 4:2:0 without its rounding of
      frequencies. To YCbCr and back as Pillow converts, which alone moves values by up to three levels.

    No paper publishes numbers for these.
    """

    name: ClassVar[str] = "colour-space"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Image Shortcut Squeezing, ICML 2023, arXiv 2301.13838"

    variant: Literal["rotate", "quarter", "value", "chroma"] = Field("rotate", description="which step")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return apply(self.change, data, ctx, self.selector)

    def change(self, images: Images) -> Images:
        """Change N x H x W x 3 images."""
        match self.variant:
            case "rotate":
                return np.roll(images, -1, axis=3)
            case "quarter":
                return images // 4
            case "value":
                return np.repeat(images.max(axis=3, keepdims=True), 3, axis=3)
            case "chroma":
                return np.stack([subsample_chroma(image) for image in images])


class GaussianFilter(Preprocessing):
    """3x3 Gaussian filter with reflect-101 borders, rounded to the nearest integer.

    The kernel is sampled and normalised: ``exp(-1 / (2 sigma^2))`` is the weight of a neighbour relative to the
    centre. At the published ``sigma=0.1`` that is 1.9e-22, and every 8-bit image is returned unchanged: the column
    repeats ``vanilla``. It is built and measured all the same, because the papers print it. ``sigma=0`` is OpenCV's
    way of asking for the kernel ``[1 2 1]/4``, the filter of REM's experiments.

    Published for clean CIFAR-10 with ResNet-18: 94.54 % (Deep Hiding, Table 1). Where published cells of this column
    differ from ``vanilla`` by more than noise, they must come from other settings than the printed ones.
    """

    name: ClassVar[str] = "gaussian-filter"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Semantic Deep Hiding for Robust Unlearnable Examples, IEEE TIFS 2024, arXiv 2406.17349"
    identity_note: ClassVar[str] = "No-op: at sigma 0.1 and kernel 3 this filter returns every 8-bit image unchanged."

    sigma: float = Field(0.1, ge=0, le=100, description="standard deviation in pixels; 0 stands for [1 2 1]/4")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        side, centre, _ = self.kernel()
        return apply(lambda images: filter_3x3(images, side, centre), data, ctx, self.selector)

    def kernel(self) -> tuple[float, float, float]:
        """Return the weights of the three rows or columns; they sum to 1."""
        if self.sigma == 0:
            return 0.25, 0.5, 0.25
        steepness = 1 / self.sigma  # squared after the division: a tiny sigma gives infinity and a weight of zero
        side = math.exp(-0.5 * steepness * steepness)
        return side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)


class Jpeg(Preprocessing):
    """JPEG compression and decompression of every image by itself, with Pillow.

    Libjpeg's tables, fancy upsampling, and Pillow's default chroma subsampling 4:2:0, which matters as much as the
    quality: 4:4:4 changes other pixels. Deep Hiding uses quality 10 and 50, ISS and APBench 10, Guo et al. 75. The
    bits depend on the JPEG library that Pillow was built with, within two levels of 255.

    Published for clean CIFAR-10 with ResNet-18: 85.22 % at quality 10, 90.89 % at 50 (Deep Hiding, Table 1), with
    test images left alone.
    """

    name: ClassVar[str] = "jpeg"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Countering Adversarial Images using Input Transformations, ICLR 2018, arXiv 1711.00117"
    cache_purified: ClassVar[bool] = True

    quality: int = Field(75, ge=1, le=100, description="JPEG quality")
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = Field("4:2:0", description="chroma subsampling")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return apply(lambda images: np.stack([self.compress(i) for i in images]), data, ctx, self.selector)

    def compress(self, image: Images) -> Images:
        """Pass one image H x W x 3 through a JPEG file in memory."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=self.quality, subsampling=self.subsampling)
        file.seek(0)
        return np.asarray(Image.open(file))


class Resize(Preprocessing):
    """Every image made smaller and brought back to its size, both with Pillow's bilinear filter.

    Sides go down to ``round(scale * side)``, halves to the even number, one pixel at least. On the way down Pillow's
    filter grows with the ratio, so that no pixel is passed over; an interpolation without that, such as torch's
    default, gives images up to 33 levels away. ``scale=1`` changes nothing. The paper names the operation without a
    ratio; one half is this suite's choice.
    """

    name: ClassVar[str] = "resize"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Invertible Image Dataset Protection, ICME 2022, arXiv 2112.14420"

    scale: float = Field(0.5, gt=0, le=1, description="side of the small image as a share of the side")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return apply(lambda images: np.stack([self.shrink(i) for i in images]), data, ctx, self.selector)

    def shrink(self, image: Images) -> Images:
        """Make one image H x W x 3 smaller and bring it back."""
        height, width = image.shape[:2]
        small = max(1, round(self.scale * width)), max(1, round(self.scale * height))
        bilinear = Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(image).resize(small, bilinear).resize((width, height), bilinear))


def pad(images: Images, mode: Literal["reflect", "edge"]) -> Images:
    """Add one row and column on every side of images N x H x W x 3."""
    return np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)


def mean_3x3(images: Images) -> Images:
    padded = pad(images, "reflect").astype(np.uint16)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return np.asarray((total + 4) // 9, dtype=np.uint8)  # round(total / 9); a ninth has no ties


def filter_3x3(images: Images, side: float, centre: float) -> Images:
    """Apply the separable filter ``[side, centre, side]``, halves rounded up as OpenCV rounds them."""
    padded = pad(images, "reflect").astype(np.float32)
    rows = np.float32(side) * (padded[:, :-2] + padded[:, 2:]) + np.float32(centre) * padded[:, 1:-1]
    total = np.float32(side) * (rows[:, :, :-2] + rows[:, :, 2:]) + np.float32(centre) * rows[:, :, 1:-1]
    return np.floor(total + np.float32(0.5)).astype(np.uint8)


def median_3x3(images: Images) -> Images:
    """Return the 3x3 median: columns of three are sorted once and shared by the three windows they lie in.

    The median of nine is then the median of three: the largest minimum, the median middle, the smallest maximum.
    """
    padded = pad(images, "edge")
    above, here, below = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    low, high = np.minimum(above, here), np.maximum(above, here)
    middle = np.maximum(low, np.minimum(high, below))
    low, high = np.minimum(low, below), np.maximum(high, below)
    return median_of_three(
        np.maximum(np.maximum(low[:, :, :-2], low[:, :, 1:-1]), low[:, :, 2:]),
        median_of_three(middle[:, :, :-2], middle[:, :, 1:-1], middle[:, :, 2:]),
        np.minimum(np.minimum(high[:, :, :-2], high[:, :, 1:-1]), high[:, :, 2:]),
    )


def median_of_three(a: Images, b: Images, c: Images) -> Images:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def gray(images: Images) -> Images:
    red, green, blue = (images[..., channel].astype(np.uint32) for channel in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # Pillow's fixed-point weights of ITU-R BT.601
    return np.repeat(luma.astype(np.uint8)[..., None], 3, axis=3)


def subsample_chroma(image: Images) -> Images:
    """Give an image H x W x 3 one Cb and one Cr for every 2 x 2 pixels; at odd sides the last blocks are smaller."""
    height, width = image.shape[:2]
    luma, *chroma = Image.fromarray(image).convert("YCbCr").split()
    coarse = [np.asarray(plane.reduce(2)).repeat(2, axis=0).repeat(2, axis=1)[:height, :width] for plane in chroma]
    return np.asarray(Image.merge("YCbCr", [luma, *map(Image.fromarray, coarse)]).convert("RGB"))
