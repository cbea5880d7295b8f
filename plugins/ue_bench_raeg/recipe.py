"""How a generator is trained: every number that shapes it, and nothing that needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Attack = Literal["noise", "blur", "scaling", "crop", "jpeg"]
ATTACKS: tuple[Attack, ...] = ("noise", "blur", "scaling", "crop", "jpeg")


@dataclass(frozen=True)
class Recipe:
    """Defaults are the paper's where it names a value; the rest is our choice, as each comment says."""

    # The network; see generator.py and encoder_decoder.py.
    generator: Literal["invertible", "enc-dec"] = "invertible"
    width: int = 64  # ours
    subnet_depth: int = 2  # ours
    clamp: float = 1.0  # ours; the paper's exp is unbounded
    haar_order: Literal["band", "channel"] = "band"  # ours
    up_order: Literal["blocks_first", "haar_first"] = "blocks_first"  # ours
    # Weights of the losses.
    alpha: float = 0.01
    beta: float = 1.0
    gamma: float = 0.005
    delta: float = 0.01
    eps: float = 2.0  # of the classifiers' failure against their success on recovered images
    range_weight: float = 1.0  # ours: values outside [0, 1] are what recovery loses
    # What the losses are made of.
    perceptual: Literal["imagenet", "own", "off"] = "imagenet"  # VGG-16 up to its second max-pooling
    cls_attacked: Literal["mean", "off", "only"] = "mean"  # ours: which protected images the classifiers must fail on
    cls_form: Literal["cap", "log"] = "cap"  # ours: cross-entropy up to cls_cap, or log(1 - p)
    cls_cap: float = 10.0
    joint: Literal["losses", "logits"] = "losses"  # ours: mean of the cross-entropies, or cross-entropy of the mean
    gan: Literal["bce", "lsgan", "off"] = "bce"
    gan_width: int = 64  # ours: channels of the discriminator's first layer
    rev_attacked_prob: float = 0.0  # ours: how often recovery starts from attacked images
    # Attacks in training.
    attacks: tuple[Attack, ...] = ATTACKS
    noise_sigma: float = 0.05  # ours: the largest
    blur_kernel: int = 7  # ours: the largest side, odd; 3 is the smallest
    blur_sigma: float = 2.0  # ours, pixels
    scaling_low: float = 0.5  # ours
    scaling_high: float = 1.5  # ours
    crop_low: float = 0.5  # ours: the smallest share of a side that stays
    jpeg_mixed: int = 3  # ours: terms of equation 3
    jpeg_mask: Literal["hidden", "mbrs"] = "hidden"  # ours
    # Optimisation.
    steps: int = 1
    batch: int = 8
    learning_rate: float = 1e-4
    gan_rate: float = 1e-4  # ours
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: to a tenth, for short runs
    clip: float = 1.0  # gradient norm, 0 for none; ours
    flip: bool = True  # ours: mirror half of the images
    validation: int = 256  # images that only choose the best weights; ours
    validate_every: int = 100  # steps
    seed: int = 0

    @property
    def network(self) -> dict[str, Any]:
        """Return how the generator is built, as its ``settings`` say it."""
        if self.generator == "enc-dec":
            return {"kind": self.generator, "width": self.width}
        return {
            "width": self.width,
            "depth": self.subnet_depth,
            "clamp": self.clamp,
            "order": self.haar_order,
            "up_order": self.up_order,
        }
