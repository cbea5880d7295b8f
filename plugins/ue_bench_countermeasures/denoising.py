"""Countermeasures that take stored images for noisy ones: total variation, wavelets and principal components."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, Countermeasure, EnvironmentProblem, ImageSet, Preprocessing, UserError

from .preprocessing import BATCH_BYTES, Images

Planes = NDArray[np.float64]
TOLERANCE, ITERATIONS = 2e-4, 200  # where Chambolle's iteration ends, as in scikit-image
TIE = 1e-7  # of a level: means of a few levels, as wavelets make them, end in one half often
UNIT = 1 / 255  # a factor, as in scikit-image: a quotient would not be zero in the same details
GAUSSIAN_QUARTILE = 0.6744897501960817  # half of a standard Gaussian's draws are smaller in absolute value
LARGEST_DIMENSION = 3 * 64 * 64  # of a covariance matrix: 1.2 GB


class TotalVariation(Preprocessing):
    """Images of little total variation near the stored ones (Chambolle's algorithm), per channel, rounded.

    Solves ``min_u |u - x|^2 / 2 + weight * TV(u)`` on the [0, 1] scale for each channel by itself. The same as
    ``denoise_tv_chambolle`` of scikit-image: at most 200 iterations, fewer where the energy moves by less than 2e-4 of
    its first value, each channel of each image judged by itself.

    Deviation: by default Guo et al. drop half of the pixels at random and minimise over the others with a split-Bregman
    solver, whose compiled code is not published in full; that variant is not built. ``weight=0.03`` and this solver,
    which knows no mask, are among the choices of their code.
    """

    name: ClassVar[str] = "tvm"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Countering Adversarial Images using Input Transformations, ICLR 2018, arXiv 1711.00117"
    cache_purified: ClassVar[bool] = True

    weight: float = Field(0.03, gt=0, le=10, description="weight of the total variation: larger is smoother")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        def change(images: Images, where: slice) -> Images:
            planes = np.moveaxis(images, 3, 1).reshape(-1, *images.shape[1:3]).astype(np.float64)
            smooth = chambolle(planes * UNIT, self.weight).reshape(len(images), 3, *images.shape[1:3])
            return to_levels(np.moveaxis(smooth, 1, 3))

        # some ten float64 arrays of a batch's size are in use at a time
        height, width = data.size
        return ctx.map_images(data, change, self.selector, max(1, BATCH_BYTES // (12 * height * width)))


class Wavelet(Preprocessing):
    """Wavelet coefficients shrunk towards zero (BayesShrink, soft threshold), per channel, rounded.

    For each channel of each image the noise is estimated from the finest diagonal details (median of those that are
    not zero, over 0.6745), and every band of details is shrunk by ``noise^2 / sqrt(max(power - noise^2, eps))``. As
    many levels as fit less three, one at least. The same as ``denoise_wavelet(channel_axis=-1)`` of scikit-image with
    its defaults. Deviation: where there are no diagonal details, as on a constant image, scikit-image's estimate is
    undefined; here it is zero and the image stays.

    No paper on unlearnable examples fixes the parameters; these are the library's. Needs PyWavelets. Raises
    EnvironmentProblem without it, UserError for images too small for the wavelet.
    """

    name: ClassVar[str] = "wavelet"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Adaptive wavelet thresholding for image denoising and compression, IEEE TIP 2000"
    cache_purified: ClassVar[bool] = True

    wavelet: str = Field(
        "db1",
        pattern=r"^(db([1-9]|[12]\d|3[0-8])|sym([2-9]|1\d|20)|coif([1-9]|1[0-7]))$",
        description="an orthogonal wavelet: db1 to db38, sym2 to sym20, coif1 to coif17",
    )

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        pywt = pywavelets()
        most = pywt.dwtn_max_level(data.size, self.wavelet)
        if most < 1:
            height, width = data.size
            raise UserError(f"images of {height} x {width} are too small for wavelet {self.wavelet}", "choose db1")

        def change(images: Images, where: slice) -> Images:
            coarse, *details = pywt.wavedecn(images * UNIT, self.wavelet, level=max(most - 3, 1), axes=(1, 2))
            variance = noise(details[-1]["dd"]) ** 2
            shrunk = [{band: shrink(values, variance) for band, values in level.items()} for level in details]
            clean = pywt.waverecn([coarse, *shrunk], self.wavelet, axes=(1, 2))
            return to_levels(clean[:, : images.shape[1], : images.shape[2]])  # odd sides come back with one more

        height, width = data.size
        return ctx.map_images(data, change, self.selector, max(1, BATCH_BYTES // (3 * height * width)))


class PrincipalComponents(Countermeasure):
    """Each image replaced by its projection on the leading principal components of the training set, rounded.

    The components are those of the images to purify, flattened to ``3 * H * W`` numbers and centred: the leading
    eigenvectors of their covariance in float64, from exact sums. As many components as numbers change nothing.

    No published defence fixes the number of components; 16, 64 and 256 are usual. There is no ``apply_to_test``: the
    components belong to the training set. Raises UserError for images above 64 x 64 (or as many pixels), whose
    covariance would not fit in memory, and for more components than numbers in an image.
    """

    name: ClassVar[str] = "pca"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Enhancing Robustness of Machine Learning Systems via Data Transformations, arXiv 1704.02654"
    cache_purified: ClassVar[bool] = True

    components: int = Field(64, ge=1, le=LARGEST_DIMENSION, description="principal components to keep")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        height, width = data.size
        if 3 * height * width > LARGEST_DIMENSION:
            raise UserError(f"pca cannot take images of {height} x {width}", "images of 64 x 64 are the largest")
        if self.components > 3 * height * width:
            raise UserError(
                f"images of {height} x {width} have {3 * height * width} principal components", "ask for fewer"
            )
        mean, basis = self.fit(data, ctx)

        def change(images: Images, where: slice) -> Images:
            centred = images.reshape(len(images), -1) - mean
            return to_levels((mean + centred @ basis @ basis.T).reshape(images.shape) / 255)

        return ctx.map_images(data, change, self.selector)

    def fit(self, data: ImageSet, ctx: Context) -> tuple[Planes, Planes]:
        """Return mean image and components, as D and D x ``components``, in levels."""
        from scipy.linalg import eigh

        size = 3 * data.size[0] * data.size[1]
        total, products = np.zeros(size), np.zeros((size, size))
        parts = list(data.chunks(at_most=2000))
        for part in ctx.progress(parts, f"{self.selector}: fit"):
            flat = data.images[part].reshape(-1, size).astype(np.float64)
            total += flat.sum(axis=0)
            products += flat.T @ flat  # integers below 2^53: exact, in whatever order they are added
        mean = total / len(data)
        products /= len(data)
        products -= np.outer(mean, mean)
        _, basis = eigh(products, subset_by_index=(size - self.components, size - 1), overwrite_a=True)
        return mean, basis


def pywavelets() -> ModuleType:
    """Import PyWavelets. Raises EnvironmentProblem when it is not installed."""
    try:
        import pywt
    except ImportError as error:
        raise EnvironmentProblem("wavelet needs PyWavelets", "pip install 'ue-bench[wavelets]'") from error
    library: ModuleType = pywt
    return library


def to_levels(images: Planes) -> Images:
    """Convert [0, 1] to 0..255, rounded and clipped; halves go up, also those that rounding errors put just below."""
    return np.floor(255 * images.clip(0, 1) + (0.5 + TIE)).astype(np.uint8)


def chambolle(planes: Planes, weight: float) -> Planes:
    """Return planes P x H x W of little total variation, each as if it were alone.

    Chambolle's fixed-point iteration on the dual field (``down``, ``right``), whose divergence is what is added to the
    plane. A plane that has come to rest leaves the batch.
    """
    result = np.empty_like(planes)
    active = np.arange(len(planes))
    image = smooth = planes
    down, right, slope_down, slope_right = (np.zeros_like(planes) for _ in range(4))
    first = previous = np.zeros(len(planes))
    step = 0.25  # the largest for which the iteration converges in two dimensions
    for iteration in range(ITERATIONS):
        change = -(down + right)
        change[:, 1:] += down[:, :-1]
        change[:, :, 1:] += right[:, :, :-1]
        smooth = image + change
        slope_down[:, :-1] = np.diff(smooth, axis=1)
        slope_right[:, :, :-1] = np.diff(smooth, axis=2)
        length = np.sqrt(slope_down**2 + slope_right**2)
        energy = ((change**2).sum(axis=(1, 2)) + weight * length.sum(axis=(1, 2))) / image[0].size
        length *= step / weight
        length += 1
        down -= step * slope_down
        down /= length
        right -= step * slope_right
        right /= length
        if iteration == 0:
            first = previous = energy
            continue
        moving = np.abs(previous - energy) >= TOLERANCE * first
        previous = energy
        if not moving.all():
            result[active[~moving]] = smooth[~moving]
            active, image, smooth, first, previous = (a[moving] for a in (active, image, smooth, first, previous))
            down, right, slope_down, slope_right = (a[moving] for a in (down, right, slope_down, slope_right))
            if not len(active):
                return result
    result[active] = smooth
    return result


def noise(details: Planes) -> Planes:
    """Estimate the deviation of Gaussian noise, N x 1 x 1 x 3, from details N x H x W x 3 that are not zero."""
    magnitude = np.abs(details).reshape(len(details), -1, 3)
    present = np.count_nonzero(magnitude, axis=1)[:, None]
    magnitude = np.sort(np.where(magnitude == 0, np.inf, magnitude), axis=1)
    lower, upper = (np.take_along_axis(magnitude, at.clip(0), axis=1) for at in ((present - 1) // 2, present // 2))
    median = np.where(present == 0, 0, (lower + upper) / 2)
    return np.asarray(median[:, :, None] / GAUSSIAN_QUARTILE)


def shrink(details: Planes, variance: Planes) -> Planes:
    """Shrink details N x H x W x 3 towards zero where they hold little but noise, by BayesShrink."""
    power = np.square(details).mean(axis=(1, 2), keepdims=True)
    threshold = variance / np.sqrt(np.maximum(power - variance, np.finfo(np.float64).eps))
    return np.asarray(np.sign(details) * np.maximum(np.abs(details) - threshold, 0))
