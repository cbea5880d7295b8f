"""NTGA, neural tangent generalization attacks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, Protector, Ratio, UserError, kept_images

from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

    Kernel = Callable[[Tensor, Tensor], Tensor]

LAYERS = 5
BATCH, BATCH_BYTES = 512, 2**27  # validation images at a time, and the most they may take


class NTGA(Protector):
    """Yuan & Wu, "Neural Tangent Generalization Attacks", ICML 2021.

    The surrogate is a network of infinite width whose training has a closed form in its neural tangent kernel: gradient
    descent on the mean squared error of one-hot labels, up to ``time``. ``surrogate=fnn`` is five times a dense layer
    and erf; ``surrogate=cnn`` twice a 5 x 5 convolution with stride 2 and ReLU, then three dense layers. It is trained
    on a block of the images, and one signed step of length ``eps`` of those images raises the cross-entropy of its
    predictions for validation images, in float64. The step is cut to [0, 1] and rounded to the nearest gray level. So a
    value moves by ``eps`` wherever the box lets it, and stays only where its gradient is 0, for instance where all
    images are black. Labels are needed, and other images of the set. Pixels are in [0, 1] as they are.

    A small ``time`` gives smooth noise that acts early in a victim's training. The release's default is 64; a comment
    in an early README lists 4096 for the dense surrogate and CIFAR-10, as it seems the best. That one ends in erf, as
    the release's does; ``readout`` adds a linear layer.

    Validation images: the release holds out 10,000 of the training images and leaves them, and what does not fill a
    block, out of its output. Here every image is protected, and the test set is not read: images are shuffled with the
    run's seed, and a block's validation images are the clean images that come next, from the start again after the
    end; ``validation`` of them, or all others if there are fewer. Blocks are as equal as can be, no larger than
    ``block`` (510 or 511 of CIFAR-10's 50,000 images), and at least two.

    Further deviations from the authors' release: one step instead of its ten iterations, each of which starts at the
    clean images and takes a full step, so that all ten are the same; every validation image counts, where its batches
    of 30 leave some out; images are bytes, where its are floats. In a set that knows one class only nothing moves, as
    no loss does. APBench takes the test images for validation, which is not done here.

    A block of 501 CIFAR-10 images takes 4 s of one CPU core with 10,000 validation images, 0.5 s with 1,000 (n=1, the
    dense surrogate).

    Raises UserError for fewer than two images.

    Expect, with a ResNet-18 on CIFAR-10, 39.72 % test accuracy for ``time=1`` and 39.68 % for the best one, clean
    91.92 % (README of the release); with the convolutional surrogate 34.74 % and 33.29 %. Qin et al., "APBench", 2023,
    have 22.76 % with the convolutional one and ``time=64``, validated on the test images; Liu et al., "Image Shortcut
    Squeezing", ICML 2023, 42.46 % of a surrogate that was not checked here.
    """

    name: ClassVar[str] = "ntga"
    paper: ClassVar[str] = "Yuan & Wu, Neural Tangent Generalization Attacks, ICML 2021"

    surrogate: Literal["fnn", "cnn"] = Field("fnn", description="the infinitely wide network: dense or convolutional")
    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale, and length of the one step")
    time: float = Field(64.0, gt=0, le=1e12, description="how long the surrogate trains; small: smooth noise")
    block: int = Field(512, ge=1, le=10_000, description="images the surrogate trains on at most")
    validation: int = Field(10_000, ge=1, description="other images whose loss is raised, at most")
    readout: bool = Field(False, description="end the dense surrogate in a linear layer; the release's ends in erf")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> NTGA:
        if self.surrogate == "cnn" and self.readout:
            raise ValueError("readout needs surrogate=fnn: the convolutional one ends in dense layers")
        return self

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    @property
    def largest_image(self) -> int:
        # Measured for fnn: 190 bytes a pixel of each image in a block. Windows of cnn alone are 150 bytes, and as much
        # again for gradients.
        return 2**18 if self.surrogate == "fnn" else 2**14

    @property
    def one_size(self) -> bool:
        return True  # one surrogate learns from all images of a block

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        if len(data) < 2:
            raise UserError(f"ntga needs two images, not {len(data)}", "one to protect and one to validate on")
        key = {"ntga": self.identity(), "data": data.fingerprint, "seed": ctx.seed}
        folder = ctx.checkpoint_dir(key)
        # Blocks are not consecutive, so they are written where they belong.
        images = np.lib.format.open_memmap(ctx.scratch / "blocks.npy", "w+", np.uint8, data.images.shape)
        parts = ctx.progress(self.parts(len(data), ctx), "perturb", self.blocks(len(data)))
        for number, (rows, others) in enumerate(parts):
            images[rows] = kept_images(folder / f"{number}.npz", partial(self.craft, data, rows, others, ctx))
        protected = data.with_images(ctx.store_images(images.shape, (images[part] for part in data.chunks())))
        shutil.rmtree(folder)
        return protected

    def blocks(self, count: int) -> int:
        """Return how many blocks ``count`` images make."""
        return max(2, -(-count // self.block))

    def parts(self, count: int, ctx: Context) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return for each block the indices of its images and of its validation images, both rising."""
        order = ctx.rng("blocks").permutation(count)
        twice = np.concatenate([order, order])
        end = 0
        for rows in np.array_split(order, self.blocks(count)):
            end += len(rows)
            others = twice[end : end + min(self.validation, count - len(rows))]
            yield np.sort(rows), np.sort(others)

    def craft(
        self, data: ImageSet, rows: NDArray[np.int64], others: NDArray[np.int64], ctx: Context
    ) -> NDArray[np.uint8]:
        """Protect the block ``rows``, validated on ``others``."""
        import torch

        device = "cpu" if ctx.device.startswith("mps") else ctx.device  # mps has no float64

        def load(chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            pixels = torch.tensor(data.images[chosen]).to(device).double().div_(255)
            shaped = pixels.flatten(1) if self.surrogate == "fnn" else pixels.permute(0, 3, 1, 2)
            return shaped, torch.tensor(data.labels[chosen], device=device)

        clean = data.images[rows]
        batch = max(1, min(BATCH, BATCH_BYTES // (8 * clean[0].size)))
        batches = (load(others[start : start + batch]) for start in range(0, len(others), batch))
        x, labels = load(rows)
        targets = torch.nn.functional.one_hot(labels, data.num_classes).double()
        gradient = loss_gradient(x, targets, batches, self.time, self.kernel())
        along = gradient.sign() if self.surrogate == "fnn" else gradient.sign().permute(0, 2, 3, 1)
        signs = along.reshape(clean.shape).cpu().numpy()
        return keep_linf(perturb(clean, signs * (self.eps * 255)), clean, self.eps)

    def kernel(self) -> Kernel:
        """Return the kernel of the surrogate, of images as ``craft`` gives them."""
        if self.surrogate == "cnn":
            from .ntk_conv import ntk_conv

            return ntk_conv
        from .ntk import ntk

        return partial(ntk, layers=LAYERS, readout=self.readout)


def loss_gradient(
    x: Tensor, targets: Tensor, validation: Iterable[tuple[Tensor, Tensor]], time: float, kernel: Kernel
) -> Tensor:
    """Return the gradient of the validation loss by the images ``x`` in [0, 1] that the surrogate was trained on.

    ``targets`` is n x C; ``validation`` yields batches of m images, of the shape of ``x``, with their labels;
    ``kernel`` gives m x n for such a batch and ``x``. The loss is the sum of cross-entropies of what the surrogate
    predicts for them at ``time``. Only a batch at a time is in memory.
    """
    import torch

    from .ntk import trained

    x = x.detach().requires_grad_()
    coefficients = trained(kernel(x, x), targets, time)
    # A leaf in their place gathers the batches' gradients, so that those go back through the training only once.
    gathered = coefficients.detach().requires_grad_()
    for images, labels in validation:
        predictions = kernel(images, x) @ gathered
        torch.nn.functional.cross_entropy(predictions, labels, reduction="sum").backward()
    coefficients.backward(gathered.grad)
    assert x.grad is not None
    return x.grad
