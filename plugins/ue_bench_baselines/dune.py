"""DUNE, dual-branch robust unlearnable examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio, load_arrays, save_arrays

from .presets import MICRO_NETWORK, MICRO_RECIPE, WithSurrogate
from .quantise import perturb
from .sep import PAPER_RECIPE

if TYPE_CHECKING:
    from torch import Tensor, nn

CPU_BATCH, GPU_BATCH = 250, 2048
OFFSET = 3  # classes from the own to the wanted one


class DUNE(WithSurrogate):
    """Wang et al., "Dual-branch Robust Unlearnable Examples", ICML 2026: a colour a class and SEP's noise, added.

    Both aim at the class three further on, under the states that one network passes through while it learns the clean
    images. *Colour*: one RGB shift a class, added to all pixels and cut to [0, 1], which a particle swarm chooses (see
    ``dune_colour.swarm``): it lowers the mean cross-entropy of that class over states and over the first ``images`` of
    the own class, plus the mean of what PSNR lacks of 20 dB and SSIM of 0.8. *Space*: from the image itself,
    ``iterations`` signed steps down the mean gradient of that cross-entropy, within ``eps`` in Linf and within [0, 1],
    as ``sep[variant=sep]``. The image with its noise is then shifted, and cut to [0, 1]: the noise has not seen the
    shift.

    ``eps`` bounds the noise alone. A shift of 0.1, 25 levels, has 20 dB, so that an image may move by some 33 levels:
    no bound is declared. Progress tells the largest shift.

    ``preset=paper`` are the release's settings: ResNet-18, five states, 30 steps, 1,000 images; those states are not in
    it, here they are of 120 epochs by SEP's recipe, from whose code it takes its own. ``preset=micro`` fits two CPU
    cores: the small net and the recipe of the board cifar10-micro, four states (those of ``sep[preset=micro]``), 15
    steps of 1/255, 100 images; a method of its own, not a measurement of the paper's.

    Deviations from the authors' release: its swarm returns a shift that it never evaluated, since the best position is
    a view of one that moves on, here it is the best one evaluated; its term of LPIPS, on images of another range than
    that metric wants, is left out; it writes images sorted by class, here order stays; classes are counted among those
    that have images, and where three further on is the own class it is the next; SSIM is the harness's, on whole
    levels; values are rounded, unless ``rounding`` is the release's.

    Raises UserError for images of one class only, and for more checkpoints than epochs.

    Expect, averaged over seven defences, 14.95 to 50.82 points below twelve other methods (the abstract).
    """

    name: ClassVar[str] = "dune"
    paper: ClassVar[str] = "Wang et al., Dual-branch Robust Unlearnable Examples, ICML 2026"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "surrogate": "resnet18", "recipe": PAPER_RECIPE, "checkpoints": 5, "step": 0.5 / 255, "iterations": 30,
            "images": 1000,
        },
        "micro": {
            "surrogate": MICRO_NETWORK, "recipe": MICRO_RECIPE, "checkpoints": 4, "step": 1 / 255, "iterations": 15,
            "images": 100,
        },
    }  # fmt: skip

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius of the noise alone, on the [0, 1] scale")
    step: Ratio | None = Field(None, gt=0, le=1, description="length of a step; null: 0.5/255, micro 1/255")
    iterations: int | None = Field(
        None, ge=0, le=100_000, description="steps of the noise; 0: colour alone; null: 30, micro 15"
    )
    colour: Ratio = Field(0.1, ge=0, le=1, description="largest shift that the swarm starts from; 0: noise alone")
    images: int | None = Field(None, ge=1, description="of a class that its shift is fitted to; null: 1000, micro 100")
    checkpoints: int | None = Field(None, ge=1, le=10_000, description="states of the surrogate; null: 5, micro 4")
    surrogate: str | None = Field(None, description="its victim selector; null: resnet18, micro a small net")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 120, micro 8")
    rounding: Literal["round", "truncate"] = Field("round", description="how values become whole gray levels")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.iterations == 0:
            self.refuse_idle({"eps", "step"}, "iterations=0")
        if not self.colour:
            self.refuse_idle({"images"}, "colour=0")
        return self

    @property
    def classes_needed(self) -> int:
        return 2

    def cost(self, images: int) -> NetworkCost:
        """Count the passes of training, of the noise, and of 100 colours for as many images as ten classes have."""
        states: int = self.setting("checkpoints")
        share = min(1.0, 10 * self.setting("images") / images) if self.colour else 0
        colours = 100 * share * states / 3
        attack: float = self.setting("iterations") * states * 2 / 3
        return NetworkCost(self.setting("surrogate"), self.recipe()["epochs"] + attack + colours)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch

        from .ensemble import cross_entropy_gradient, descend_mean, further_on
        from .pgd import boxed, protect_in_batches, to_levels

        wanted = further_on(data.labels, OFFSET, self.name, ctx.learning(data)[0].labels)
        key = {"dune": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        states: int = self.setting("checkpoints")
        networks = ctx.checkpoints(data, self.setting("surrogate"), states, **self.recipe())
        shifts = torch.from_numpy(self.shifts(data, ctx, networks, key)).float().to(ctx.device)

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            gradient = cross_entropy_gradient(networks, torch.tensor(wanted[where], device=ctx.device), ctx)
            noise = descend_mean(x, gradient, states, self.eps, self.setting("step"), self.setting("iterations"))
            shifted = boxed(x, noise) + shifts[torch.tensor(data.labels[where], device=ctx.device)][:, :, None, None]
            return {"images": perturb(data.images[where], to_levels(shifted), self.rounding)}

        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH
        return protect_in_batches(data, ctx, key, batch, "perturb", craft)

    def shifts(self, data: ImageSet, ctx: Context, networks: list[nn.Module], key: Any) -> NDArray[np.float64]:
        """Return every class's colour shift, classes x 3; a class that was done is found in ``ctx.checkpoint_dir``."""
        from .dune_colour import fitted
        from .ensemble import further_on

        shifts = np.zeros((data.num_classes, 3))
        if not self.colour:
            return shifts
        learnt, inner = ctx.learning(data)
        wanted = dict(zip(learnt.labels.tolist(), further_on(learnt.labels, OFFSET, self.name).tolist(), strict=True))
        folder = ctx.checkpoint_dir(key)
        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH
        for label in ctx.progress(sorted(wanted), "colour"):
            file = folder / f"colour-{label}.npz"
            kept = load_arrays(file)
            if kept is None:
                members = learnt.images[np.flatnonzero(learnt.labels == label)[: self.setting("images")]]
                kept = {"shift": fitted(members, wanted[label], networks, self.colour, inner, batch, label)}
                save_arrays(file, kept)
            shifts[label] = kept["shift"]
        ctx.report(1, 1, f"colours shifted by {255 * np.abs(shifts).max():.1f} levels at most")
        return shifts
