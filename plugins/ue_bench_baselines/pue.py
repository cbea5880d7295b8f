"""EM with disturbed weights, after PUE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost

from .em import EM
from .presets import MICRO_NETWORK

if TYPE_CHECKING:
    from .pue_rounds import Disturbed


class PUE(EM):
    """Wang et al., "Provably Unlearnable Data Examples", NDSS 2025: EM's classes under random weights.

    Noise that holds for all networks near the one it was fitted to. Both players of ``em[mode=class]`` meet the network
    with normal noise on all its weights, scale and shift of its normalisations included, of deviation 0, ``increment``,
    twice that and so on up to ``disturbance``. For a batch the network takes a training step for each deviation, on the
    gradients of ``train_draws`` draws: their sum over the number of draws of all deviations together, cut to a norm of
    5 after each draw. So every step has but its share of the mean gradient, and weight decay in full. A step of the
    noise becomes one for each deviation, on the gradients of ``noise_draws`` draws. Everything else is ``em``.

    How many deviations there are is ``disturbance / increment`` in binary fractions, cut, plus one, as in the release:
    0.15 over 0.05 makes 3, where decimal fractions would make 4.

    ``preset=paper``: ResNet-18, batches of 128, a disturbance of 1, 100 and 10 draws: 21 deviations and 2,100
    times the training of EM. ``preset=micro`` fits two CPU cores: the small net of the board cifar10-micro, a
    disturbance of 0.1, two draws; a method of its own, not a measurement of the paper's.

    Deviations from the authors' release: draws are added to the weights of one pass, where the release adds them and
    takes them off again, which drifts in single precision; in steps of the noise the deviation 0 is drawn once, as all
    its draws are equal; weights are disturbed from the first round, where the release begins when the network is right
    on half of the noisy images, or never where that ends the game; the certificate of the paper, which is a
    measurement, is not here. Those of ``em`` hold too.

    No published accuracy is quoted: none was checked. Expect what ``em[mode=class]`` does, or more.
    """

    name: ClassVar[str] = "pue"
    revision: ClassVar[int] = 2
    paper: ClassVar[str] = "Wang et al., Provably Unlearnable Data Examples, NDSS 2025"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": EM.PRESETS["paper"] | {"batch": 128, "disturbance": 1.0, "train_draws": 100, "noise_draws": 10},
        "micro": EM.PRESETS["micro"] | {
            "surrogate": MICRO_NETWORK, "disturbance": 0.1, "train_draws": 2, "noise_draws": 2,
        },
    }  # fmt: skip

    mode: Literal["sample", "class"] = Field("class", description="a noise for each image, or for each class")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a training step; null: 128")
    disturbance: float | None = Field(
        None, ge=0, le=100, description="largest deviation of the weights' noise; null: 1, micro 0.1"
    )
    increment: float = Field(0.05, gt=0, le=100, description="from one deviation to the next")
    train_draws: int | None = Field(None, ge=1, le=10_000, description="draws a training step; null: 100, micro 2")
    noise_draws: int | None = Field(None, ge=1, le=10_000, description="draws a step of the noise; null: 10, micro 2")

    @property
    def deviations(self) -> list[float]:
        """Return the deviations of the weights' noise, rising from 0."""
        count = int(self.setting("disturbance") / self.increment) + 1  # no rounding: the release has none
        return [number * self.increment for number in range(count)]

    def cost(self, images: int) -> NetworkCost:
        """Estimate the cost of ten rounds, as ``em`` does."""
        higher = len(self.deviations) - 1
        training = self.train_steps * min(self.setting("batch"), images) / images
        training *= len(self.deviations) * self.setting("train_draws")
        noise = self.round_steps * (1 + higher * self.setting("noise_draws")) * 2 / 3
        share = 1.0 if self.mode == "sample" else 0.2
        return NetworkCost(self.setting("surrogate"), 10 * (training + share * (noise + 1 / 3)))

    def game(self, data: ImageSet, ctx: Context) -> Disturbed:
        """Return the two players at their start."""
        from .pue_rounds import Disturbed

        return Disturbed(
            data, ctx, self.deviations, self.setting("train_draws"), self.setting("noise_draws"),
            **self.rules(data, ctx),
        )  # fmt: skip
