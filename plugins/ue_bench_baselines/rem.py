"""REM, robust error-minimising noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio

from .presets import MICRO_NETWORK, WithPreset
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

    from .rem_rounds import RobustMinMin

CPU_BATCH, GPU_BATCH = 250, 4096  # images and their transforms at once


class REM(WithPreset):
    """Fu et al., "Robust Unlearnable Examples: Protecting Data Against Adversarial Learning", ICLR 2022, Algorithm 1.

    EM whose loss is that of adversarial training under random transforms. For every training batch the noise starts
    uniform within ``eps`` in Linf and takes ``steps`` signed gradient steps. Each goes down the summed loss of ``eot``
    random transforms of every noisy image, mirrored by chance and cropped from a frame of ``pad`` zeros, and of each at
    the worst image that an adversary finds within ``adv_eps`` in ``adv_steps`` steps. With that noise, in whole gray
    levels, the network takes one step of adversarial training on transformed images. It sees pixels less 0.5; SGD at
    0.1, a tenth after every ``decay`` steps, momentum 0.9, weight decay 5e-4. After the last step every image gets its
    noise from the trained network, from a random start again, and only this noise is added, in whole levels and cut to
    0..255. ``adv_eps=0`` is EM under transforms. ``inner=random`` is SEM, see ``sem``: what the noise meets is not the
    worst image but one drawn uniformly from the ball; the network's own training stays adversarial.

    ``preset=paper`` is the release's setting for CIFAR-10: ResNet-18, 5,000 training steps of 128 images, 10 noise
    steps over 5 transforms, 10 steps of the adversary. ``preset=micro`` is REM-lite for two CPU cores: the small net of
    the board cifar10-micro, 600 steps of 64 images, 5 noise steps over one transform, mirrored but not cropped as that
    board's victims are, and 5 steps of the adversary; a method of its own, no measurement of the paper's. The release's
    setting for ImageNet-100 is ``steps=7,step=2/255,adv_steps=7,adv_step=1/255,eot=4,train_steps=3000``.

    Deviations from the authors' release: the last pass covers every image, where the release's leaves out the last
    batch, so that 80 images of 50,000 keep the noise they had when they were last trained on. Noise of training is not
    kept, as nothing else uses it. Large images are cropped like small ones, where the release's ImageNet crops are of
    random area. A set smaller than a batch is one batch. Where ``eps`` is no whole number of levels, noise is cut to
    it. The network starts as the harness's networks do.

    Expect 25.44 % test accuracy for ResNet-18 on CIFAR-10 (Liu et al., "Image Shortcut Squeezing", ICML 2023); the
    17.47 % of Qin et al. ("APBench", 2023) are of an algorithm that has neither transforms nor an adversary.
    Adversarial training at 4/255 comes to about 48 % (the paper); at 8/255 to 77.46 % (APBench), no protection.
    """

    name: ClassVar[str] = "rem"
    paper: ClassVar[str] = (
        "Fu et al., Robust Unlearnable Examples: Protecting Data Against Adversarial Learning, ICLR 2022"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "surrogate": "resnet18", "steps": 10, "adv_steps": 10, "eot": 5, "pad": 4, "train_steps": 5000,
            "batch": 128,
        },
        "micro": {
            "surrogate": MICRO_NETWORK, "steps": 5, "adv_steps": 5, "eot": 1, "pad": 0, "train_steps": 600,
            "batch": 64,
        },
    }  # fmt: skip

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius of the noise on the [0, 1] scale")
    adv_eps: Ratio = Field(4 / 255, ge=0, le=1, description="Linf radius of the adversary; 0: none")
    step: Ratio | None = Field(None, gt=0, le=1, description="length of a step of the noise; null: a fifth of eps")
    steps: int | None = Field(None, ge=1, le=10_000, description="gradient steps of the noise; null: 10, micro 5")
    adv_step: Ratio | None = Field(None, gt=0, le=1, description="of the adversary; null: a fifth of adv_eps")
    adv_steps: int | None = Field(None, ge=1, le=10_000, description="steps of the adversary; null: 10, micro 5")
    eot: int | None = Field(None, ge=1, le=1000, description="random transforms a step; null: 5, micro 1")
    pad: int | None = Field(None, ge=0, le=100, description="zeros round images that are cropped; null: 4, micro 0")
    train_steps: int | None = Field(None, ge=1, description="training steps of the network; null: 5000, micro 600")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a training step; null: 128, micro 64")
    decay: int | None = Field(None, ge=1, description="steps to a tenth of the rate; null: two fifths of train_steps")
    inner: Literal["pgd", "random"] = Field(
        "pgd", description="the adversary that the noise meets: by gradient steps, or a uniform draw"
    )
    surrogate: str | None = Field(None, description="the network's victim selector; null: resnet18, micro a small net")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if not self.adv_eps:
            self.refuse_idle({"adv_step", "adv_steps", "inner"}, "adv_eps=0")
        return self

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost:
        adversary, inner = (self.setting("adv_steps"), self.inner_steps) if self.adv_eps else (0, 0)
        noise = self.setting("steps") * self.setting("eot") * (inner + 1) * 2 / 3
        visits = self.setting("train_steps") * min(self.setting("batch"), images) / images
        return NetworkCost(self.setting("surrogate"), visits * (noise + adversary * 2 / 3 + 1) + noise)

    @property
    def inner_steps(self) -> int:
        """Steps of the adversary that the noise meets; none is a uniform draw."""
        steps: int = self.setting("adv_steps") if self.inner == "pgd" else 0
        return steps

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch

        from .pgd import protect_in_batches, to_levels
        from .rem_rounds import own_draws

        key = {self.name: self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        checkpoint = ctx.checkpoint_dir(key)
        game = self.game(data, ctx)
        game.play(checkpoint / "state.pt")

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            labels = torch.tensor(data.labels[where], device=ctx.device)
            noise = game.perturb(x, labels, own_draws(ctx, where))
            images = perturb(data.images[where], to_levels(noise), "integer")
            return {"images": keep_linf(images, data.images[where], self.eps)}

        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH
        return protect_in_batches(data, ctx, key, max(1, batch // self.setting("eot")), "perturb", craft)

    def game(self, data: ImageSet, ctx: Context) -> RobustMinMin:
        """Return network and noise before the first step."""
        from .rem_rounds import RobustMinMin

        train_steps: int = self.setting("train_steps")
        return RobustMinMin(
            data,
            ctx,
            network=ctx.network(data, self.setting("surrogate")),
            eps=self.eps,
            step=self.eps / 5 if self.step is None else self.step,
            steps=self.setting("steps"),
            adv_eps=self.adv_eps,
            adv_step=self.adv_eps / 5 if self.adv_step is None else self.adv_step,
            adv_steps=self.setting("adv_steps"),
            inner_steps=self.inner_steps,
            eot=self.setting("eot"),
            pad=self.setting("pad"),
            train_steps=train_steps,
            batch=self.setting("batch"),
            decay=max(1, train_steps * 2 // 5) if self.decay is None else self.decay,
        )
