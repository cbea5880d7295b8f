"""TUE, transferable unlearnable examples, in its model-free form."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, Protector, Ratio, load_checkpoint, save_checkpoint

from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

DELTA = 1e-5  # of both parts of the fraction, as in the release
STILL = 1e-6  # largest move that counts as none: a step is three thousand times longer
KEPT = 5  # passes between states of the work that outlive a killed process


class TUE(Protector):
    """Ren et al., "Transferable Unlearnable Examples", ICLR 2023: noise from its class-wise separability discriminant.

    Noise whose classes are easy to tell apart: signed gradient steps lower the CSD of the noise of a batch, a
    Davies-Bouldin index, the mean over pairs of classes of (spread + spread) / distance of their centroids. With a
    contrastive loss of weight 0, as in the release's commands for SimCLR and SimSiam, no network has a say, so there is
    none here. Each image's noise starts uniform in (-``eps``, ``eps``). A pass takes all images once, in shuffled
    batches with a smaller last one, ``steps`` steps each. Within ``eps`` in Linf and within [0, 1]; rounded to the
    nearest gray level. Labels are needed, and other images of the set: noise is not an image's own.

    Settings are those of the SimCLR run on CIFAR-10, whose 40 epochs hold 5 passes each (one after every 20 training
    batches of 98, one at the end): 200 passes of 20 steps, 4,000 steps an image. ``detach``: the gradient takes the
    spreads for constants, as in the release, so that centroids are pushed apart and all images of a class in a batch
    get the same signs; without it, spreads shrink too.

    Deviations from the authors' release: the work ends with the first pass in which no value moves (the tenth, for
    2,000 random images of ten classes, seed 0, n=1; 0.3 s of one CPU core for 20 steps of a batch); the number of
    passes does not depend on the size of the set; a class that has no image in a batch is left out of it, and a batch
    of one class stays as it is (0 / 0 otherwise). The MoCo run, in which the network counts, is not here.

    Expect a CSD of 10.0 for a batch of 512 uniform noises of ten classes, and far below 1 afterwards. No published
    accuracy is quoted: the paper's were not checked for this form. Evaluate contrastive victims as well.
    """

    name: ClassVar[str] = "tue"
    paper: ClassVar[str] = "Ren et al., Transferable Unlearnable Examples, ICLR 2023"

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step: Ratio = Field(0.8 / 255, gt=0, le=1, description="length of a step")
    steps: int = Field(20, ge=1, le=10_000, description="gradient steps a batch and pass")
    passes: int = Field(200, ge=1, le=100_000, description="passes over the set at most; the release's 40 epochs of 5")
    batch: int = Field(512, ge=2, le=1_000_000, description="images whose noise is compared")
    detach: bool = Field(True, description="take the spread of classes for a constant, as the release does")

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    @property
    def largest_image(self) -> int:
        return 2**18  # measured: 200 bytes a pixel of each image in a batch

    @property
    def one_size(self) -> bool:
        return True  # classes are pushed apart over the whole set

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        checkpoint = ctx.checkpoint_dir({"tue": self.identity(), "data": data.fingerprint, "seed": ctx.seed})
        noise = self.craft(data, ctx, checkpoint / "state.pt")

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            levels = noise[where].reshape(images.shape).cpu().numpy() * np.float32(255)
            return keep_linf(perturb(images, levels), images, self.eps)

        protected = ctx.map_images(data, change, "add noise")
        shutil.rmtree(checkpoint)
        return protected

    def craft(self, data: ImageSet, ctx: Context, state: Path) -> Tensor:
        """Craft the noise, N x (H W 3) on the [0, 1] scale and the device; the file ``state`` holds finished passes."""
        import torch

        noise, done = self.start(data, ctx), 0
        if (stored := load_checkpoint(state, ctx.device)) is not None:
            noise, done = stored["noise"], stored["passes"]
        labels = torch.tensor(data.labels, device=ctx.device)
        moved = 1.0
        while done < self.passes and moved > STILL:
            moved = self.run_pass(data, ctx, noise, labels, done)
            done += 1
            ctx.report(done, self.passes, f"passes, noise moves by {moved * 255:.2g} levels")
            if done % KEPT == 0:
                save_checkpoint(state, {"noise": noise, "passes": done})
        return noise

    def start(self, data: ImageSet, ctx: Context) -> Tensor:
        """Draw uniform noise in (-eps, eps) for every image."""
        import torch

        values = int(np.prod(data.images.shape[1:]))
        drawn = ctx.rng("start").random((len(data), values), dtype=np.float32)
        return torch.from_numpy(drawn).to(ctx.device).mul_(2).sub_(1).mul_(self.eps)

    def run_pass(self, data: ImageSet, ctx: Context, noise: Tensor, labels: Tensor, number: int) -> float:
        """Take the steps of all images, batch by batch, which change ``noise``; return the largest move of a value."""
        import torch

        from .pgd import boxed, descend

        order = ctx.rng("order", number).permutation(len(data))
        moved = 0.0
        for first in range(0, len(data), self.batch):
            rows = np.sort(order[first : first + self.batch])
            indices = torch.from_numpy(rows).to(ctx.device)
            x = torch.tensor(data.images[rows]).to(ctx.device).flatten(1).float().div_(255)
            member = membership(labels[indices], data.num_classes)
            before = noise[indices]

            def objective(p: Tensor, _: int, x: Tensor = x, member: Tensor = member) -> Tensor:
                return csd(p - x, member, self.detach)[None]

            after = boxed(x, descend(x, before, objective, self.eps, self.step, self.steps)[0])
            noise[indices] = after
            moved = max(moved, float((after - before).abs().max()))
        return moved


def membership(labels: Tensor, classes: int) -> Tensor:
    """Return classes x N: the share of each of N images in the mean of its class; zeros for a class without images."""
    import torch

    member = torch.nn.functional.one_hot(labels, classes).T.float()
    return member / member.sum(1, keepdim=True).clamp_min(1)


def csd(noise: Tensor, member: Tensor, detach: bool = False) -> Tensor:
    """Return the class-wise separability discriminant of noises N x D: the smaller, the easier to tell classes apart.

    ``member`` is that of ``membership``. The mean over ordered pairs of classes that are present of (s_k + s_l) / d_kl:
    s the mean Euclidean distance of a class's members to their centroid, d the distance of two centroids, both parts
    plus 1e-5. 0 when fewer than two classes are present. ``detach``: s counts as a constant for the gradient.
    """
    import torch

    centroids = member @ noise
    members, middles = (noise.detach(), centroids.detach()) if detach else (noise, centroids)
    # A row of member has one nonzero at most in a column, so this is each image's own centroid.
    own_centroids = (member > 0).to(noise.dtype).T @ middles
    spread = member @ torch.linalg.vector_norm(members - own_centroids, dim=1)
    # Distances from inner products, about the mean so that what all have in common costs no digits.
    centred = centroids - centroids.mean(0)
    products = centred @ centred.T
    squares = products.diagonal()
    distance = (squares[:, None] + squares - 2 * products).clamp_min(1e-12).sqrt()
    present = member.sum(1) > 0
    pairs = (present[:, None] & present).fill_diagonal_(False)
    ratio = (spread[:, None] + spread + DELTA) / (distance + DELTA)
    mean: Tensor = (ratio * pairs).sum() / pairs.sum().clamp_min(1)
    return mean
