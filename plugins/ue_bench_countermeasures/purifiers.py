"""Countermeasures that let a diffusion model draw images anew: DiffPure and AVATAR."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ue_bench.api import Context, Countermeasure, ImageSet
from ue_bench_victims.hub_ids import Model, folder_or_id

from .diffusion.weights import Weights, locate

CIFAR = "google/ddpm-cifar10-32"
DiffusionModel = Annotated[Model, AfterValidator(folder_or_id)]
"""A folder, or the id of a repository on the Hugging Face hub. The weights enter the key, not the folder's name."""

Reverse = Literal["sde", "vp-sde", "ddpm", "ddpm-small"]


class NoiseAndDenoise(Countermeasure):
    """Base of countermeasures that noise images and denoise them with a given model."""

    cache_purified: ClassVar[bool] = True

    model: DiffusionModel = Field(CIFAR, description="a folder with UNet and scheduler, or a hub id")
    t: int = Field(100, ge=0, description="steps of noise to add and take away, t* in the paper; 0 changes nothing")
    steps: int | None = Field(
        None, ge=2, description="network passes an image, spread evenly over the t steps; one a step by default"
    )
    reverse: Reverse = Field(
        "ddpm",
        description="how noise is taken away: Euler-Maruyama on the SDE, step by step of the network or, as released, "
        "in continuous time (vp-sde), or ancestral sampling with variance beta or, better for few steps, that of the "
        "posterior",
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if not self.t:
            self.refuse_idle({"steps", "reverse", "model"}, "t=0")
        return self

    def weights(self) -> Weights:
        """Return the weights of the given model. Raises EnvironmentProblem when there are none."""
        return locate(self.model)

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        if self.t:
            identity["parameters"]["model"] = self.weights().identity
        return identity

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        if not self.t:
            return data
        from .diffusion import denoiser, process

        weights = self.weights()
        size = denoiser.check(weights, self.t, data.size, self.selector)
        loaded = denoiser.load(weights, ctx.device, "small" if self.reverse == "ddpm-small" else "large")
        samplers = {"sde": process.euler_maruyama, "vp-sde": process.euler_maruyama_in_time}
        sample = samplers.get(self.reverse, process.ancestral)
        down = process.steps_down(self.t, self.steps)

        def clean(x: Any, random: process.Streams) -> Any:
            noisy = process.noised(loaded.scheduler, x, down[0], random)
            return sample(loaded.predict, loaded.scheduler, noisy, down, random)

        key = {"purify": self.identity(), "images": data.fingerprint, "seed": ctx.seed}
        return denoiser.purify(data, ctx, key, size, clean, self.selector, self.levels)

    def levels(self, x: Any) -> Any:
        from .diffusion.process import to_levels

        return to_levels(x)


class DiffPure(NoiseAndDenoise):
    """Noise of ``t`` steps is added in one jump, and a diffusion model takes it away; clipped and rounded.

    With z = 2x - 1 in [-1, 1]: ``sqrt(abar) * z + sqrt(1 - abar) * noise``, then the reverse process from step t to 0.
    The paper's reverse process is the variance-preserving SDE, here with one solver step for each of the ``t`` steps as
    in the release. Its t for CIFAR-10 is 100 for the Linf ball of 8/255 and 75 for the L2 ball, 150 for ImageNet.

    The paper purifies inputs at test time; here it is the training set that is purified, and the test set is left
    alone. The release has the score of a DDPM++ network in continuous time: ``reverse=vp-sde``, with a ``model`` that
    ``ue-bench purifier import avatar`` makes of its checkpoint_8.pth. Deviation: by default it is that of a discrete
    DDPM, the one of the Hugging Face hub for CIFAR-10, which is fetched when first asked for. Both saw the clean
    training images: an adversary who has one has seen them, too. Images smaller than the network's are enlarged and
    reduced again, bilinear, larger ones are refused.

    Raises EnvironmentProblem when diffusers or the weights cannot be had, UserError for images or ``t`` beyond the
    network.
    """

    name: ClassVar[str] = "diffpure"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Diffusion Models for Adversarial Purification, ICML 2022, arXiv 2205.07460"

    reverse: Reverse = Field("sde", description=NoiseAndDenoise.model_fields["reverse"].description)


class Avatar(NoiseAndDenoise):
    """Noise of ``t`` steps is added in one jump, and ancestral sampling of a DDPM takes it away; clipped and rounded.

    As ``diffpure``, but by default by ``DDPMScheduler.step`` from step t - 1 to 0, whose estimates of the image are
    clipped to its range.

    The release solves the SDE of DiffPure with its network, t = 100 for CIFAR-10: ``reverse=vp-sde``, with a ``model``
    that ``ue-bench purifier import avatar`` makes of its checkpoint_8.pth, 107 million parameters. It multiplies by 255
    and casts to 8 bits, so that what is outside [0, 1] wraps around and fractions are cut: ``legacy_wrap``. The
    protocol avatar24 sets both. Deviation: the release's solver adds up time in single precision; here it is exact.

    APBench has the same solver and network with t = 60, and rounds. Deviation: it feeds the network [0, 2] in place of
    [-1, 1], which is out of its range; its numbers are not to be expected here. Size of images and errors are those of
    ``diffpure``.

    Published with ResNet-18 on CIFAR-10, t = 60 (APBench): LSP 76.90 %, EM 75.62 %, AR 88.60 %, OPS 66.16 %.
    """

    name: ClassVar[str] = "avatar"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "The Devil's Advocate: Shattering the Illusion of Unexploitable Data using Diffusion Models"

    legacy_wrap: bool = Field(False, description="values out of range wrap around, as in the release; for replication")

    def levels(self, x: Any) -> Any:
        from .diffusion.process import wrapped_levels

        return wrapped_levels(x) if self.legacy_wrap else super().levels(x)
