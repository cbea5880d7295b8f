"""TensorClog, images whose gradients vanish."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio

from .presets import MICRO_NETWORK, MICRO_RECIPE, WithSurrogate
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor, nn

CPU_BATCH, GPU_BATCH = 250, 4096
HALVING = 600  # iterations after which the rate is halved

# The release's pretraining: 100 epochs, half the rate after every 20, images as they are.
PAPER_RECIPE: dict[str, Any] = {
    "batch": 100, "epochs": 100, "learning_rate": 0.01, "weight_decay": 5e-3, "schedule": "multistep",
    "milestones": (0.2, 0.4, 0.6, 0.8), "factor": 0.5, "flip": False, "pad": 0, "shift": 0.5,
}  # fmt: skip


class TensorClog(WithSurrogate):
    """Shen, Zhu and Ma, "TensorClog: An Imperceptible Poisoning Attack on Deep Neural Network Applications", 2019.

    IEEE Access, volume 7. The adversary is thought to fit a new classifier on a feature extractor that is known; images
    are changed so that they give this classifier little gradient to learn from. Per image, plain gradient descent on
    the pixels lowers the L2 norms of the cross-entropy's gradients in the last linear layer of a frozen surrogate in
    eval mode, one norm for its weights and one for its biases, plus ``weight`` times the image's L2 distance from
    where it began. It starts at the image; ``rate`` is halved after every 600 iterations; each step ends with a cut to
    ``eps`` in Linf and to [0, 1]. Rounded to the nearest gray level.

    The release differentiates the gradients once more, one image at a time. For one image they are (p - y) h^T and
    p - y, with h what the layer is given, p its probabilities and y the label's, so that the norms are |p - y| |h| and
    |p - y|: the same numbers at the price of one backward pass, for any number of images at once. A norm that is zero
    has the gradient zero.

    The release works on standardised pixels, and clips at 0.1, with rate 1 and weight 0.01, in their units. One
    standard deviation of CIFAR is 0.2 of the [0, 1] scale, so that the same descent has ``eps`` 0.02, ``rate`` 0.04 and
    ``weight`` 0.05 there: these are the defaults. ``eps=0.1,rate=1,weight=0.01`` takes the numbers for pixels in
    [0, 1], five times the perturbation.

    ``classifier=fresh`` is the release's layer: drawn anew (Xavier, uniform), as the adversary begins. ``trained``
    leaves the surrogate's own, for which images that it has learned to certainty have no gradient left to lower.
    ``preset=paper`` pretrains ResNet-18 with the release's recipe, ``preset=micro`` the small net with that of the
    board cifar10-micro; a method of its own, not a measurement of the paper's.

    Raises UserError when the surrogate has no linear layer.

    Deviations from the authors' release: the surrogate is trained on the clean set, the release's on 80 % of
    CIFAR-100, and is kept as it is at the end, not where the test set likes it best; pixels are shifted by 0.5, not
    standardised, and one deviation stands for all channels; the fresh layer has as many outputs as there are classes,
    where the release has 100 for ten; images are cut to [0, 1] and rounded, the release trains on them as they are,
    and protects its last 10,000 only.

    Expect 88.70 % test accuracy for ResNet-18 on CIFAR-10 at 8/255 (Liu et al., "Image Shortcut Squeezing", ICML 2023;
    their repository gives no other setting). It is a weak protector.
    """

    name: ClassVar[str] = "tensorclog"
    paper: ClassVar[str] = "Shen et al., TensorClog: An Imperceptible Poisoning Attack, IEEE Access 2019"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"surrogate": "resnet18", "recipe": PAPER_RECIPE},
        "micro": {"surrogate": MICRO_NETWORK, "recipe": MICRO_RECIPE},
    }

    eps: Ratio = Field(0.02, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    rate: float = Field(0.04, gt=0, description="a step is so many times the gradient at pixels in [0, 1]")
    weight: float = Field(0.05, ge=0, description="of the L2 distance to the image, on the [0, 1] scale")
    iterations: int = Field(100, ge=1, le=100_000, description="gradient steps")
    classifier: Literal["fresh", "trained"] = Field(
        "fresh", description="the surrogate's last layer: drawn anew, or as it has learned the images"
    )
    surrogate: str | None = Field(None, description="its victim selector; null: resnet18, micro a small net")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 100, micro 8")

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost:
        return NetworkCost(self.setting("surrogate"), self.recipe()["epochs"] + self.iterations * 2 / 3)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch

        from .embedding import embedding, last_linear
        from .pgd import protect_in_batches, to_levels

        name = self.setting("surrogate")
        network = ctx.surrogate(data, name, **self.recipe())
        layer = last_linear(network, name)
        if self.classifier == "fresh":
            renew(layer, ctx.rng("classifier"))
        embed = embedding(network, name, ctx)

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            labels = torch.tensor(data.labels[where], device=ctx.device)

            def objective(p: Tensor) -> Tensor:
                away: Tensor = torch.linalg.vector_norm(p - x, dim=(1, 2, 3))
                return clog(embed(p), layer, labels) + self.weight * away

            images = perturb(data.images[where], to_levels(self.descend(x, objective) - x))
            return {"images": keep_linf(images, data.images[where], self.eps)}

        key = {"tensorclog": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH

        return protect_in_batches(data, ctx, key, batch, "perturb", craft)

    def descend(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """Return images after all steps from ``x``, N x 3 x H x W in [0, 1]; ``objective(p)`` is a number an image."""
        import torch

        low, high = (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1)
        p: Tensor = x
        for t in range(self.iterations):
            p = p.detach().requires_grad_()
            # A sum, not a mean: an image's gradient is its own, whatever its batch.
            [gradient] = torch.autograd.grad(objective(p).sum(), p)
            p = torch.clamp(p.detach() - self.rate_at(t) * gradient, low, high)
        return p

    def rate_at(self, iteration: int) -> float:
        """Return ``rate`` as it has decayed by ``iteration``, which counts from 0."""
        return self.rate * 0.5 ** (iteration // HALVING)


def clog(embedded: Tensor, layer: nn.Linear, labels: Tensor) -> Tensor:
    """Return norms of the cross-entropy's gradients in ``layer``, of weights and biases added up, image by image.

    ``embedded`` N x D is what the layer is given; ``labels`` N. Differentiable, with the gradient 0 where a norm is 0.
    """
    import torch
    from torch.nn import functional as F

    probabilities = F.linear(embedded, layer.weight, layer.bias).softmax(1)
    errors = probabilities - F.one_hot(labels, layer.out_features).to(probabilities.dtype)
    lengths: Tensor = torch.linalg.vector_norm(errors, dim=1)
    weights: Tensor = lengths * torch.linalg.vector_norm(embedded, dim=1)
    return weights if layer.bias is None else weights + lengths


def renew(layer: nn.Linear, rng: np.random.Generator) -> None:
    """Draw the layer's weights by Xavier's uniform rule, its biases as PyTorch does."""
    import torch

    bound = np.sqrt(6 / (layer.in_features + layer.out_features))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.uniform(-bound, bound, tuple(layer.weight.shape))))
        if layer.bias is not None:
            bound = 1 / np.sqrt(layer.in_features)
            layer.bias.copy_(torch.from_numpy(rng.uniform(-bound, bound, layer.out_features)))
