"""PIL, perturbation-induced linearization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio, load_arrays, save_arrays

from .presets import WithPreset
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

FILE = "linear.npz"
BATCH, BATCH_VALUES = 1000, 2**24  # images at a time, and the most values they may have


class PIL(WithPreset):
    """Liu, Chen and Zhang, "Perturbation-Induced Linearization: ... with Solely Linear Classifiers", ICLR 2026.

    Noise that a linear classifier takes for the image's label, so that a deep victim learns the linear way too. The
    surrogate are two dense layers without bias and with nothing between, one matrix M: trained on clean pixels in
    [0, 1] by cross-entropy, SGD at 0.003, momentum 0.9, a cosine to 0 by epochs, in the order of the set. Each image's
    noise n starts uniform within ``eps`` and takes ``iterations`` signed steps down ``weight`` times the cross-entropy
    of M n and its label, plus the rest times the divergence of M (x - n) from the uniform distribution: the noise alone
    says the class, and the image that is published says nothing. That image is x **minus** n, cut to [0, 1]. Both
    gradients have a closed form, so there is no backward pass, and an image's noise is its own.

    ``preset=paper`` are the release's settings, ``preset=micro`` those for 10,000 images, where 30 epochs are 600 steps
    and not 2,940: 147 epochs. A set that comes class by class is shuffled in every epoch; the release would meet one
    class for many batches. ``rounding=truncate`` is the release's, which moves images of whole levels by up to nine.

    Deviations from the authors' release: values are rounded to the nearest level unless told otherwise.

    Raises Diverged when the surrogate does.

    Expect 12.77 % test accuracy for ResNet-18 on CIFAR-10, clean 92.11 %; 15.22 % for VGG-19, 17.70 % for DenseNet-121,
    20.32 % for ResNet-50, 14.05 % for MobileNetV2; 2.11 % on CIFAR-100, 15.94 % on SVHN (the release's README).
    """

    name: ClassVar[str] = "pil"
    paper: ClassVar[str] = (
        "Liu et al., Perturbation-Induced Linearization: Constructing Unlearnable Data with Solely Linear Classifiers, "
        "ICLR 2026"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"epochs": 30}, "micro": {"epochs": 147}}

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step: Ratio | None = Field(None, gt=0, le=1, description="length of a step; null: a tenth of eps")
    iterations: int = Field(30, ge=1, le=100_000, description="signed gradient steps")
    weight: float = Field(0.9, ge=0, le=1, description="of the noise's own class; the rest is the image's silence")
    epochs: int | None = Field(None, ge=1, description="of the linear surrogate; null: 30, micro 147")
    batch: int = Field(512, ge=1, le=100_000, description="images a training step")
    rate: float = Field(0.003, gt=0, description="learning rate of the surrogate")
    rounding: Literal["round", "truncate"] = Field("round", description="how values become whole gray levels")

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def uses_networks(self) -> bool:
        return False  # the surrogate is a matrix, in single precision whatever the context's

    @property
    def one_size(self) -> bool:
        return True  # the matrix is for one size

    @property
    def largest_image(self) -> int:
        return 2**18

    @property
    def budget(self) -> str:
        return budget("linf", min(1.0, self.eps + (self.rounding == "truncate") / 255))

    def cost(self, images: int) -> NetworkCost:
        """Count two passes to the image for each step."""
        return NetworkCost("linear", self.setting("epochs") + self.iterations * 2 * 2 / 3)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch

        from .pgd import protect_in_batches, to_levels
        from .pil_linear import descend

        key = {"pil": self.identity(), "data": data.fingerprint, "seed": ctx.seed}
        matrix = self.surrogate(data, ctx)
        step = self.eps / 10 if self.step is None else self.step

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            flat = x.flatten(1)
            labels = torch.tensor(data.labels[where], device=ctx.device)
            rngs = [ctx.rng("noise", index) for index in range(where.start, where.stop)]
            drawn = np.stack([rng.random(flat.shape[1], np.float32) for rng in rngs])
            start = torch.from_numpy(drawn).to(ctx.device).mul_(2).sub_(1).mul_(self.eps)
            noise = descend(matrix, flat, labels, start, self.eps, step, self.iterations, self.weight)
            images = perturb(data.images[where], -to_levels(noise.view_as(x)), self.rounding)
            if self.rounding == "round":
                images = keep_linf(images, data.images[where], self.eps)
            return {"images": images}

        batch = max(1, min(BATCH, BATCH_VALUES // data.images[0].size))
        return protect_in_batches(data, ctx, key, batch, "perturb", craft)

    def surrogate(self, data: ImageSet, ctx: Context) -> Tensor:
        """Return M, classes x values of an image (channels first), trained on the images that ``data`` is learnt from.

        Trained once for a set, a recipe and a seed, and kept.
        """
        import torch

        from .pil_linear import trained

        data, ctx = ctx.learning(data)
        recipe = {"epochs": self.setting("epochs"), "batch": self.batch, "rate": self.rate}
        key = {"linear surrogate": recipe, "data": data.fingerprint, "seed": ctx.seed}

        def make(folder: Path) -> None:
            save_arrays(folder / FILE, {"matrix": trained(data, ctx, **recipe).cpu().numpy()})

        arrays = load_arrays(ctx.cached(key, make) / FILE)
        assert arrays is not None, "an artifact is whole"
        return torch.from_numpy(arrays["matrix"]).to(ctx.device)
