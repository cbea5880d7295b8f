"""How a hiding network is trained: every number that shapes it, and nothing that needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

EPS = 8 / 255  # the radius of the paper; a bound on the mean squared error, not on the largest change


@dataclass(frozen=True)
class Recipe:
    """Defaults are Deep Hiding's where it names a value, else HiNet's; the rest says whose choice it is."""

    hider: Literal["hinet", "isgan"] = "hinet"  # isgan has losses and rates of its own
    steps: int = 5_000
    stop_after: int | None = None  # end at this step of the schedule
    batch: int = 24  # (cover, hidden) pairs
    size: int = 32  # side of the crops in pixels, even; our choice, the paper trains at 224
    learning_rate: float = 10**-4.5
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: to a tenth, for runs shorter than the paper's
    betas: tuple[float, float] = (0.5, 0.999)
    adam_eps: float = 1e-6
    weight_decay: float = 1e-5  # HiNet; the paper does not say
    clip: float = 1.0  # gradient norm, 0 for none; our choice: HiNet's own logs explode without clipping
    omega_freq: float = 1.0
    omega_reveal: float = 1.0
    omega_conc: float = 1e-4
    per_image: bool = False  # the floor of equation 5 holds for every image, not for the mean over the batch
    lfc_input: Literal["raw", "scaled", "imagenet"] = "raw"  # what the extractor sees; the paper does not say
    lfc_pairs: Literal["ordered", "unordered"] = "ordered"  # equation 7 as printed, or each pair once
    sampler: Literal["uniform", "pk"] = "uniform"  # pk: batch / 4 classes with four covers each; ours, for more pairs
    lfc_warmup_rms: float = 1e-4  # below it the normalised features have no usable gradient
    extractor: Literal["own", "imagenet"] = "own"  # the paper's is pre-trained, on what it does not say
    extractor_epochs: int = 6  # own: on the covers
    blocks: int = 16  # HiNet
    growth: int = 32  # HiNet; the width of ISGAN
    recompute: bool = False  # less memory for more time; moves no number
    validate_every: int = 100  # steps; the weights kept are the best of these moments
    seed: int = 0

    @property
    def shape(self) -> dict[str, Any]:
        """What the network is built from, besides its seed."""
        if self.hider == "isgan":
            return {"kind": "isgan", "width": self.growth}
        return {"blocks": self.blocks, "growth": self.growth}

    @property
    def last_step(self) -> int:
        """Return how many steps are taken: ``stop_after`` of them, else all."""
        return min(self.steps, self.stop_after or self.steps)
