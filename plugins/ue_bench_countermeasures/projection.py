"""Orthogonal projection: what a linear classifier finds in the training images is taken out of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, Countermeasure, Diverged, ImageSet, UserError, load_arrays, save_arrays

Numbers = NDArray[np.float64]
Images = NDArray[np.uint8]
CHUNK_VALUES = 2**23  # of images that are in memory as floats at a time
DECAY = 0.1  # of the learning rate, after half and after three quarters of the epochs


class OrthogonalProjection(Countermeasure):
    """Images projected on what is orthogonal to the weights of a linear classifier that was fitted to them.

    The classifier is logistic regression without bias on the stored images as 3 * H * W numbers in [0, 1]: ``epochs``
    passes of plain gradient descent in batches, in dataset order, the last batch smaller, at ``learning_rate`` and a
    tenth of it after half and again after three quarters of the passes. Its K weight vectors, one a class, are made
    orthonormal (QR), and every image loses its components along them: of 3072 dimensions, ten at ten classes. Then
    rounded to the nearest gray level and cut to 0..255. It takes out shortcuts that are a pattern a class, such as
    those of ``lsp`` and ``ops``. On 10,000 images ``batch=205`` makes as many steps as the default does on 50,000.

    What the authors' code calls OP in its second step also trains with strong augmentations and CutMix; ask for
    them: ``orthogonal-projection+randaugment+cutmix``. There is no ``apply_to_test``, as the directions belong to the
    training set; the authors leave test images alone too.

    Deviation: the authors keep projected images as floats outside of [0, 1] too (about -0.1 to 1.1); here stored
    images are 8-bit, and what is cut off or rounded away leaves a rest of each component.

    Published for LSP on CIFAR-10 with ResNet-18: 90.14 %; for EM 65.42 %, AR 33.60 % (ECLIPSE).

    Raises UserError when there are more classes than numbers in an image.
    """

    name: ClassVar[str] = "orthogonal-projection"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "What Can We Learn from Unlearnable Datasets?, NeurIPS 2023, arXiv 2305.19254"
    uses_labels: ClassVar[bool] = True
    cache_purified: ClassVar[bool] = True

    epochs: int = Field(20, ge=1, le=100_000, description="passes over the images to fit the linear classifier")
    learning_rate: float = Field(0.1, gt=0, le=1000, description="of its gradient descent")
    batch: int = Field(1024, ge=1, le=1_000_000, description="images a step of it")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        values = 3 * data.size[0] * data.size[1]
        if data.num_classes > values:
            raise UserError(
                f"{data.num_classes} classes, but images of {data.size[0]} x {data.size[1]} have {values} numbers",
                "orthogonal-projection needs larger images",
            )
        checkpoint = ctx.checkpoint_dir({self.name: self.identity(), "data": data.fingerprint, "seed": ctx.seed})
        basis, _ = np.linalg.qr(self.fit(data, ctx, checkpoint / "state.npz").T)

        def change(images: Images, where: slice) -> Images:
            return project(images, basis)

        purified = ctx.map_images(data, change, self.selector, max(1, CHUNK_VALUES // values))
        shutil.rmtree(checkpoint)
        return purified

    def fit(self, data: ImageSet, ctx: Context, state: Path) -> Numbers:
        """Fit the weights K x (H W 3) of a linear classifier; the file ``state`` holds the last epoch that ended.

        Raises Diverged with the step when a weight is not finite.
        """
        values = 3 * data.size[0] * data.size[1]
        bound = values**-0.5  # of torch's linear layers
        weights, done = ctx.rng("weights").uniform(-bound, bound, (data.num_classes, values)), 0
        if (stored := load_arrays(state)) is not None:
            weights, done = stored["weights"], int(stored["epochs"])
        while done < self.epochs:
            ctx.report(done, self.epochs, f"{self.selector}: epochs of the linear classifier")
            passed = sum(0 < mark <= done for mark in (self.epochs // 2, self.epochs * 3 // 4))
            rate = self.learning_rate * DECAY**passed
            for number, start in enumerate(range(0, len(data), self.batch)):
                where = slice(start, min(start + self.batch, len(data)))
                weights -= rate * gradient(weights, data.images[where], data.labels[where])
                if not np.isfinite(weights).all():
                    per_epoch = -(-len(data) // self.batch)
                    step, steps = done * per_epoch + number + 1, self.epochs * per_epoch
                    raise Diverged("weights of the linear classifier", step, steps)
            done += 1
            save_arrays(state, {"weights": weights, "epochs": np.array(done)})
        return weights


def gradient(weights: Numbers, images: Images, labels: NDArray[np.int64]) -> Numbers:
    """Return the gradient of a linear classifier's mean cross-entropy, K x (H W 3), for images n x H x W x 3."""
    total, single = np.zeros_like(weights), weights.T.astype(np.float32)
    step = max(1, CHUNK_VALUES // weights.shape[1])
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        x = images[part].reshape(-1, weights.shape[1]) / np.float32(255)
        logits = x @ single
        errors = np.exp(logits - logits.max(axis=1, keepdims=True))
        errors /= errors.sum(axis=1, keepdims=True)
        errors[np.arange(len(x)), labels[part]] -= 1
        total += errors.T @ x
    return total / len(images)


def project(images: Images, basis: Numbers) -> Images:
    """Remove from images n x H x W x 3 their components along the columns of ``basis``, (H W 3) x K and orthonormal."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat @ basis @ basis.T
    return np.rint(flat).clip(0, 255).astype(np.uint8).reshape(images.shape)
