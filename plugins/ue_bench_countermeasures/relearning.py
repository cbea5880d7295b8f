"""Purifiers whose diffusion model an adversary trains on clean images of their own: LE-JCDP and ECLIPSE."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ue_bench.api import Context, EnvironmentProblem, ImageSet, UserError, first_line

from .diffusion.recipe import PRESETS, Recipe
from .diffusion.weights import Weights, locate
from .policies import constant
from .presets import WithPreset
from .purifiers import DiffusionModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LUMA = (0.299, 0.587, 0.114)
SMALLEST_FOR_LPIPS = 31  # pixels: below, nothing is left for AlexNet's second pooling


class OwnDiffusionModel(WithPreset):
    """Base of countermeasures whose model is trained on clean images, unless one is given."""

    cache_purified: ClassVar[bool] = True

    model: DiffusionModel | None = Field(
        None, description="a folder with UNet and scheduler, or a hub id; by default one is trained on the clean images"
    )
    clean: int = Field(2000, ge=1, description="clean images that the adversary owns, for the diffusion model")
    train_steps: int | None = Field(None, ge=1, description="of the diffusion model; the preset's by default")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        idle = {"clean", "preset", "train_steps"} if self.model is not None else set()
        if not self.deepest:
            idle = {"model", "clean", "preset", "train_steps"}
        self.refuse_idle(idle, "t=0" if not self.deepest else "a model that is given")
        return self

    @property
    def deepest(self) -> int:
        """Steps of noise that are added and taken away."""
        raise NotImplementedError

    @property
    def clean_images(self) -> int:
        return self.clean if self.deepest and self.model is None else 0

    @property
    def recipe(self) -> Recipe:
        recipe = Recipe(**self.PRESETS[self.preset])
        if self.preset == "micro":
            recipe = replace(recipe, deepest=self.deepest)
        return recipe if self.train_steps is None else replace(recipe, steps=self.train_steps)

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        if self.deepest and self.model is not None:
            identity["parameters"]["model"] = locate(self.model).identity
        return identity

    def weights(self, data: ImageSet, ctx: Context) -> Weights:
        """Return the weights given, or those trained on clean images. Raises EnvironmentProblem when there are none."""
        if self.model is not None:
            return locate(self.model)
        from .diffusion import training

        recipe = self.recipe
        side = -(-max(data.size) // recipe.multiple) * recipe.multiple
        return training.own_weights(ctx.clean_data, replace(recipe, size=side), ctx)

    def purify_key(self, weights: Weights, data: ImageSet, ctx: Context) -> dict[str, Any]:
        return {
            "purify": self.identity(), "weights": weights.checksum, "images": data.fingerprint, "seed": ctx.seed,
        }  # fmt: skip


def _presets(paper: dict[str, Any], micro: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return both recipes in full, so that the record of defaults holds every number of them."""
    return {"paper": asdict(Recipe(**paper)), "micro": asdict(Recipe(**micro))}


class Eclipse(OwnDiffusionModel):
    """A diffusion model of a few clean images takes away light noise; training adds gray images and noise of its own.

    The model is trained on ``clean`` images, with random crops and flips. Noise of ``t`` of its 4000 cosine steps is
    added, 6.4 gray levels for t = 100, and taken away by ancestral sampling. In training, after crop and flip, every
    image turns gray with probability ``gray``; then Gaussian noise of standard deviation ``noise`` is added and clipped
    to 0..255. ``t=0`` leaves this last part, which needs no clean images. Purified images and every batch are brought
    to whole gray levels: ``rounding=truncate`` cuts fractions off, as the release does when it makes pictures of them,
    which darkens both by half a level.

    The paper's network has 128 channels, three residual blocks a level, attention at 16 and 8 pixels, and is trained
    for 250,000 steps: ``preset=paper``. The release shuffles images while it purifies them, and its checkpoint has seen
    2,000 test images; here order and test set are left alone. Deviations: the network does not learn the variance of
    its steps, that of the posterior is taken, save where the released network is given, as ``ue-bench purifier import``
    writes it; crops and flips are fresh, where the paper has four copies of an image.
    The paper trains victims for 80 epochs without weight decay; the protocol decides here.

    Raises EnvironmentProblem when diffusers or a given model cannot be had, UserError for images or ``t`` beyond it.

    Published with ResNet-18 on CIFAR-10: EM 82.80 %, LSP 84.58 %, AR 87.32 %, clean 90.43 %.
    """

    name: ClassVar[str] = "eclipse"
    revision: ClassVar[int] = 2
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "ECLIPSE: Expunging Clean-label Indiscriminate Poisons via Sparse Diffusion Purification, 2024"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = _presets(
        PRESETS["eclipse"], {**PRESETS["micro"], "timesteps": 4000, "schedule": "cosine", "pad": 4}
    )

    t: int = Field(100, ge=0, description="steps of noise to add and take away; 0 leaves the stored images as they are")
    gray: float = Field(0.4, ge=0, le=1, description="probability that an image turns gray")
    noise: float = Field(0.05, ge=0, le=1, description="standard deviation of noise on a training batch, of [0, 1]")
    rounding: Literal["truncate", "round"] = Field("truncate", description="how values become whole gray levels")

    @property
    def deepest(self) -> int:
        return self.t

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        if not self.t:
            return data
        from .diffusion import denoiser, process

        weights = self.weights(data, ctx)
        size = denoiser.check(weights, self.t, data.size, self.selector)
        loaded = denoiser.load(weights, ctx.device, "large" if weights.released else "small")
        down = process.steps_down(self.t)

        def clean(x: Tensor, random: process.Streams) -> Tensor:
            noisy = process.noised(loaded.scheduler, x, down[0], random)
            return process.ancestral(loaded.predict, loaded.scheduler, noisy, down, random)

        finish = process.cut_levels if self.rounding == "truncate" else process.to_levels
        return denoiser.purify(data, ctx, self.purify_key(weights, data, ctx), size, clean, self.selector, finish)

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        on: dict[str, Any] = {"generator": generator, "device": x.device}
        levels = (255 * x.float()).round()  # of the pictures; bfloat16 is precise enough to tell them
        luma = (levels * constant(LUMA, x.device).float()[:, None, None]).sum(1, keepdim=True).round()
        gray = torch.rand(len(x), 1, 1, 1, **on) < self.gray
        levels = torch.where(gray, luma, levels) + 255 * self.noise * torch.randn(x.shape, **on)
        levels = levels.floor() if self.rounding == "truncate" else levels.round()
        # channels-last as the batch was
        return torch.empty_like(x).copy_(levels.clamp(0, 255) / 255), y


class LeJcdp(OwnDiffusionModel):
    """Light noise is added and taken away several times, each step guided towards the protected image.

    ``t`` steps of noise, 10 gray levels for 20, are added and taken away by ancestral sampling with the large variance,
    ``repeats`` times, each time from what came out before. To the mean of step i is added ``var_i * s_i * g``, where
    ``var_i`` is beta_i and for the last step, i = 0, the variance of the posterior of step 1, as in the release; g is
    the negative gradient of a distance between the image of the step and a freshly noised copy of the protected one,
    and ``s_i = sqrt(1 - abar_i) / (m * sqrt(abar_i))``, ``m = 16 / 255 / 3 / 70000``. The distance is the mean
    squared error for i > t / 2 and LPIPS with AlexNet below. ``guidance=0`` is ``avatar[t=20]`` four times.

    The network is that of DDPM for CIFAR-10, trained on ``clean`` images. The release trains or fine-tunes
    it on unprotected images; their number and the 100,000 steps are our choice. A model trained elsewhere can be given.

    Deviations: the release averages distances over batches of 500 images, so that guidance depends on the size of the
    batch; here an image's distance counts 1/500 whatever the batch. The release adds the noise of step t and begins
    to take it away at t - 1; here both are t - 1. It cuts fractions of levels; here they are rounded.

    LPIPS needs the package lpips and torchvision's AlexNet weights, which are fetched when they are not there;
    ``distance=pixels`` needs neither. Raises EnvironmentProblem when one of them, diffusers or a given model cannot be
    had, UserError for images or ``t`` beyond the model.
    """

    name: ClassVar[str] = "le-jcdp"
    revision: ClassVar[int] = 2
    paper: ClassVar[str] = "Unlearnable Examples Give a False Sense of Data Privacy: Understanding and Relearning, 2023"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = _presets({**PRESETS["ddpm"], "steps": 100_000}, PRESETS["micro"])
    BATCH: ClassVar[int] = 500  # of the release
    M: ClassVar[float] = 16 / 255 / 3 / 70_000

    clean: int = Field(5000, ge=1, description="clean images that the adversary owns, for the diffusion model")
    t: int = Field(20, ge=1, description="steps of noise to add and take away")
    repeats: int = Field(4, ge=1, le=100, description="how often that is done")
    guidance: float = Field(1.0, ge=0, description="factor on the pull towards the protected image")
    distance: Literal["lpips", "pixels"] = Field("lpips", description="what guides the lower half of the steps")

    @model_validator(mode="after")
    def _distance_counts(self) -> Self:
        if not self.guidance:
            self.refuse_idle({"distance"}, "guidance=0")
        return self

    @property
    def deepest(self) -> int:
        return self.t

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        from .diffusion import denoiser, process

        perceptual = lpips(ctx.device) if self.guidance and self.distance == "lpips" else None
        weights = self.weights(data, ctx)
        size = denoiser.check(weights, self.t, data.size, self.selector)
        if perceptual and min(size) < SMALLEST_FOR_LPIPS:
            raise UserError(f"images of {size[0]} x {size[1]} are too small for LPIPS", "choose distance=pixels")
        loaded = denoiser.load(weights, ctx.device, "large")
        down = process.steps_down(self.t)

        def clean(x: Tensor, random: process.Streams) -> Tensor:
            def guide(current: Tensor, step: int) -> Tensor:
                target = process.noised(loaded.scheduler, x, step, random)
                chosen = perceptual if step <= self.t // 2 else None
                factor = self.guidance * process.large_variance(loaded.scheduler, step)
                factor *= self.scale(loaded.scheduler, step)
                return factor / self.BATCH * pull(current, target, chosen)

            purified = x
            for _ in range(self.repeats):
                noisy = process.noised(loaded.scheduler, purified, down[0], random)
                purified = process.ancestral(
                    loaded.predict, loaded.scheduler, noisy, down, random, guide if self.guidance else None
                )
            return purified

        return denoiser.purify(data, ctx, self.purify_key(weights, data, ctx), size, clean, self.selector)

    def scale(self, scheduler: Any, step: int) -> float:
        """Return ``s_i``."""
        level = float(scheduler.alphas_cumprod[step])
        return math.sqrt((1 - level) / level) / self.M


def pull(x: Tensor, target: Tensor, distance: Callable[[Tensor, Tensor], Tensor] | None) -> Tensor:
    """Return the negative gradient, with respect to ``x``, of every image's distance to its ``target``.

    ``distance`` gives one number an image; None is the mean squared error.
    """
    import torch

    if distance is None:
        return 2 * (target - x) / x[0].numel()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        [gradient] = torch.autograd.grad(distance(x, target).sum(), x)
    return -gradient


def lpips(device: str) -> nn.Module:
    """Load LPIPS with AlexNet, for images in [-1, 1], frozen.

    Raises EnvironmentProblem when the package is missing or AlexNet's weights cannot be had.
    """
    try:
        import lpips as package
    except Exception as error:  # without torchvision, or with one for another torch, there are errors of many kinds
        raise EnvironmentProblem(
            "LPIPS needs lpips", "pip install 'ue-bench[diffusion]', or choose distance=pixels"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it names torchvision's weights in an old way
            network: nn.Module = package.LPIPS(net="alex", verbose=False)
    except (OSError, RuntimeError, EOFError) as error:
        import torch

        raise EnvironmentProblem(
            f"weights of AlexNet for LPIPS cannot be had: {first_line(error)}",
            f"put alexnet-owt-7be5be79.pth in {torch.hub.get_dir()}/checkpoints, or choose distance=pixels",
        ) from error
    return network.to(device).eval().requires_grad_(False)
