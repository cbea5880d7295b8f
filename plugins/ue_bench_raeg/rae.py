"""The reversible adversarial examples that RAEG is compared with: RAE-IGSM, RAE-CW and RIT-IGSM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio, check_finite
from ue_bench_baselines.presets import MICRO_NETWORK, MICRO_RECIPE, WithSurrogate

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Network = Callable[[torch.Tensor], torch.Tensor]

Pixels = NDArray[np.uint8]
CPU_BATCH, GPU_BATCH = 100, 1024
# The papers do not say how their classifiers are trained; that of RAEG's targets.
PAPER_RECIPE: dict[str, Any] = {"batch": 32, "epochs": 60, "learning_rate": 0.01, "schedule": "cosine"}
PAPER: dict[str, Any] = {"surrogate": "resnet50", "recipe": PAPER_RECIPE}
MICRO: dict[str, Any] = {"surrogate": MICRO_NETWORK, "recipe": MICRO_RECIPE}


class Reversible(WithSurrogate):
    """An adversarial example of a surrogate in which what it takes to undo it is hidden."""

    surrogate: str | None = Field(
        None, description="the classifier's victim selector; null: resnet50 (ours), micro a small net"
    )
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 60 (ours), micro 8")
    rdh: Literal["pee", "ovt"] = Field(
        "pee", description="how data are hidden: prediction-error expansion, or optimal value transfer (the paper's)"
    )
    passes: int = Field(1, ge=1, le=4, description="rdh=pee: over each other; more room, more distortion")
    max_threshold: int = Field(64, ge=1, le=64, description="rdh=pee: largest prediction error that is expanded")
    least_psnr: float = Field(26.0, ge=10, le=60, description="rdh=ovt: dB that hiding must leave the image")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        idle = {"least_psnr"} if self.rdh == "pee" else {"passes", "max_threshold"}
        self.refuse_idle(idle, f"rdh={self.rdh}")
        return self

    def embed(self, image: Pixels, message: bytes) -> Pixels:
        """Return ``image`` with ``message`` in it. Raises rdh.NoRoom when it does not fit."""
        from . import rdh, rdh_ovt

        if self.rdh == "ovt":
            return rdh_ovt.embed(image, message, self.least_psnr)
        return rdh.embed(image, message, self.passes, self.max_threshold)

    def room(self, image: Pixels) -> int:
        """Estimate from above how many bytes fit into ``image``."""
        from . import rdh, rdh_ovt

        if self.rdh == "ovt":
            return rdh_ovt.room(image, self.least_psnr)
        return rdh.room(image, self.passes, self.max_threshold)

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def attack_passes(self) -> float:
        """Network passes that the adversarial example of an image takes."""
        raise NotImplementedError

    def attack(self, network: Network, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial examples of ``x``, N x 3 x H x W in [0, 1]."""
        raise NotImplementedError

    def hidden(self, clean: Pixels, adversarial: Pixels) -> Pixels:
        """Return one image, H x W x 3, with its way back in it. Raises rdh.NoRoom when that does not fit."""
        raise NotImplementedError

    def undone(self, image: Pixels, message: bytes) -> Pixels:
        """Undo the attack, given the image without the message."""
        raise NotImplementedError

    def cost(self, images: int) -> NetworkCost:
        return NetworkCost(self.setting("surrogate"), self.recipe()["epochs"] + self.attack_passes)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Protect images, the way back hidden in them; where it does not fit, by the adversarial example alone."""
        import torch

        from ue_bench_baselines.pgd import protect_in_batches

        from .rdh import NoRoom

        net = ctx.surrogate(data, self.setting("surrogate"), **self.recipe())
        key = {self.name: self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}

        def network(x: torch.Tensor) -> torch.Tensor:
            with ctx.autocast():
                logits: torch.Tensor = net(x)
            return logits

        def craft(x: torch.Tensor, where: slice) -> dict[str, NDArray[Any]]:
            adversarial = self.attack(network, x, torch.tensor(data.labels[where], device=ctx.device))
            check_finite(adversarial, "adversarial image")
            images = (adversarial * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            for index, clean in enumerate(data.images[where]):
                try:
                    images[index] = self.hidden(clean, images[index])
                except NoRoom:
                    continue
            return {"images": images}

        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH
        return protect_in_batches(data, ctx, key, batch, "attack and hide", craft)

    def recover(self, images: Pixels, ctx: Context) -> Pixels:
        """Return the originals, with nothing but what is hidden in ``images``. Raises UserError where nothing is."""
        from . import rdh, rdh_ovt

        extract = rdh_ovt.extract if self.rdh == "ovt" else rdh.extract
        return np.stack([self.undone(*extract(image)) for image in images]) if len(images) else images.copy()


class _Igsm(Reversible):
    """The attack of Kurakin et al., "Adversarial Examples in the Physical World", 2017."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": PAPER, "micro": MICRO}

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius of the adversarial example (ours)")
    step: Ratio = Field(1 / 255, gt=0, le=1, description="length of a step (Kurakin et al.)")
    iterations: int | None = Field(
        None, ge=1, le=10_000, description="steps; null: min(eps + 4, 1.25 eps) in gray levels (Kurakin et al.)"
    )

    @property
    def steps(self) -> int:
        """Return how many steps of the attack are taken."""
        levels = self.eps * 255
        return self.iterations or max(1, int(min(levels + 4, 1.25 * levels) + 1e-6))

    @property
    def attack_passes(self) -> float:
        return self.steps * 2 / 3

    def attack(self, network: Network, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        from .rae_attacks import igsm

        return igsm(network, x, y, self.eps, self.step, self.steps)


class _Rae(Reversible):
    """What RAE hides: the perturbation, averaged over blocks as small as fit."""

    scale: Literal[1, 2, 4, 8, 16] | None = Field(
        None, description="side of the blocks; null: the smallest at which it fits; only 1 restores exactly"
    )

    def hidden(self, clean: Pixels, adversarial: Pixels) -> Pixels:
        from .rae_code import SCALES, pack, packed
        from .rdh import NoRoom

        free = self.room(adversarial)
        difference = adversarial.astype(np.int16) - clean
        for scale in SCALES if self.scale is None else (self.scale,):
            size, symbols = pack(difference, scale)
            if size <= free:
                try:
                    return self.embed(adversarial, packed(symbols, scale))
                except NoRoom:
                    continue
        raise NoRoom("the perturbation does not fit at any scale")

    def undone(self, image: Pixels, message: bytes) -> Pixels:
        from .rae_code import restored

        return restored(image, message)


class RaeIgsm(_Igsm, _Rae):
    """Liu et al., "Unauthorized AI Cannot Recognize Me: Reversible Adversarial Example" (RAE), with the attack IGSM.

    The adversarial example A of an image I, from signed gradient steps away from its own class on a classifier that was
    trained on the clean images, hides its own perturbation A - I, entropy-coded. ``rdh=pee`` hides by prediction-error
    expansion, two checkerboard layers a channel; ``rdh=ovt`` by optimal value transfer, as the paper does: the same in
    less distortion, by 1 to 6 dB in the images of 32 px that were tried. ``recover`` needs no network: it takes the
    message out, has A back bit by bit, and subtracts.

    The perturbation of an Linf attack rarely fits: 8 gray levels are some 4 bits a value, the room in an adversarial
    image under 0.9. It is averaged over blocks of 2, 4, 8 or 16 pixels then, the smallest that fit, and recovery is as
    near as that is. ``scale=1`` restores exactly where it fits, as for ``eps=1/255`` with ``passes=2``, and leaves the
    adversarial example alone, not to be recovered, where it does not. Hiding adds a distortion of its own, 26 to 40 dB,
    which no bound of ``rdh=pee`` holds, and ``least_psnr`` of ``rdh=ovt``.

    Deviations: the paper hides by optimal value transfer alone, and does not say how its pixels are predicted and
    coded; it gives neither radius nor classifier, these are ours, and so are blocks restored as flat squares.

    Expect, of RAEG's Table 1, 7.6 % accuracy of ResNet-50 on protected Caltech-101 test images and 81.9 % on
    Mini-ImageNet's after JPEG 50.
    """

    name: ClassVar[str] = "rae-igsm"
    paper: ClassVar[str] = "Liu et al., Unauthorized AI Cannot Recognize Me: Reversible Adversarial Example, 2018"


class RaeCw(_Rae):
    """Liu et al., "Unauthorized AI Cannot Recognize Me: Reversible Adversarial Example" (RAE), with the attack C&W.

    As ``rae-igsm``, but the adversarial example is the nearest one in L2 that Carlini and Wagner's optimisation finds
    on the surrogate: Adam in tanh space, the weight of success by binary search, success after rounding to 8 bits. Its
    perturbation is small, so that smaller blocks fit.

    ``preset=micro`` searches 3 times for 40 iterations instead of 5 times for 200.

    Deviations: as for ``rae-igsm``; iterations, searches and first weight are ours (the authors' of the attack have
    10,000, 9 and 1e-3). An image without success is the last one tried.

    Expect 65.6 % accuracy of ResNet-50 on protected Caltech-101 test images (RAEG, Table 1).
    """

    name: ClassVar[str] = "rae-cw"
    paper: ClassVar[str] = "Liu et al., Unauthorized AI Cannot Recognize Me: Reversible Adversarial Example, 2018"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {**PAPER, "iterations": 200, "searches": 5},
        "micro": {**MICRO, "iterations": 40, "searches": 3},
    }

    kappa: float = Field(0.0, ge=0, description="by how much another class must win (Carlini and Wagner)")
    learning_rate: float = Field(0.01, gt=0, description="of Adam (Carlini and Wagner)")
    iterations: int | None = Field(None, ge=1, le=100_000, description="of a search (ours); null: 200, micro 40")
    searches: int | None = Field(None, ge=1, le=20, description="for the weight of success (ours); null: 5, micro 3")
    first_weight: float = Field(0.01, gt=0, description="that weight at first (ours)")

    @property
    def attack_passes(self) -> float:
        from .rae_attacks import CHECK

        return float(self.setting("searches") * self.setting("iterations") * (2 / 3 + 1 / (3 * CHECK)))

    def attack(self, network: Network, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        from .rae_attacks import cw

        return cw(
            network, x, y, self.kappa, self.learning_rate, self.setting("iterations"), self.setting("searches"),
            self.first_weight,
        )  # fmt: skip


class RitIgsm(_Igsm):
    """Yin et al., "Reversible Adversarial Attack Based on Reversible Image Transformation", 2019 (RIT), with IGSM.

    The published image consists of blocks of the original, moved, shifted and turned so that it looks like its
    adversarial example; how to undo that is hidden in it, as in ``rae-igsm``. ``recover`` needs no network,
    and is exact wherever hiding succeeded. Where it does not fit, the adversarial example alone is left, not to be
    recovered.

    With ``block=1`` and ``eps`` under half the ``quantum`` every shift is 0 and the image stays as it is.

    Deviations from the authors' release: it hides random bits of the right number and has no way back, this hides the
    real ones; shifts are limited so that nothing overflows, the release allows overflow of 8 levels; order-0 arithmetic
    coding, where it predicts turns and means; untargeted steps from our radius, where its script attacks towards one
    class; blocks of 4 (ours), because what blocks of 2 have to hide does not fit in one pass.

    Expect 67.9 % accuracy of ResNet-50 on protected Caltech-101 test images (RAEG, Table 1).
    """

    name: ClassVar[str] = "rit-igsm"
    paper: ClassVar[str] = "Yin et al., Reversible Adversarial Attack Based on Reversible Image Transformation, 2019"

    block: int = Field(4, ge=1, le=64, description="side of the blocks (ours)")
    classes: int = Field(6, ge=1, le=64, description="of blocks, by their deviation (the release)")
    quantum: int = Field(8, ge=1, le=64, description="gray levels of a shift (the release)")
    smooth: int = Field(6, ge=0, le=128, description="deviation up to which blocks are not turned (the release)")

    def hidden(self, clean: Pixels, adversarial: Pixels) -> Pixels:
        from .rdh import NoRoom
        from .rit import Settings, camouflage

        if min(clean.shape[:2]) < self.block:
            raise NoRoom("smaller than a block")
        image, message = camouflage(clean, adversarial, Settings(self.block, self.classes, self.quantum, self.smooth))
        return self.embed(image, message)

    def undone(self, image: Pixels, message: bytes) -> Pixels:
        from .rit import restored

        return restored(image, message)
