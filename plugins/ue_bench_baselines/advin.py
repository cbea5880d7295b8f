"""TAP against a robust surrogate, after ADVIN."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from ue_bench.api import Ratio

from .entf import PAPER_RECIPE
from .presets import MICRO_NETWORK, MICRO_RECIPE
from .tap import TAP


class ADVINLike(TAP):
    """After Wang et al., "Fooling Adversarial Training with Inducing Noise" (ADVIN), 2021: TAP, otherwise parametrised.

    Images are moved towards the class after their own, as by ``tap``, but on a network that was trained adversarially,
    and with a budget far above that of the adversarial training that is to be fooled: 32/255 against 8/255. No release
    is known, so this takes the idea alone: features that the robust network uses, of one fixed other class. Not a
    measurement of the paper's method, hence the name.

    ``preset=paper`` takes the surrogate's length of training from EntF: 100 epochs against 10 steps in a ball of 8/255.
    ``preset=micro`` fits two CPU cores: the small net of the board cifar10-micro, 4 epochs against 5 steps.

    With equal budgets for noise and training such features have little effect (Wen et al., ICLR 2023). Reported, for
    the original: 13.1 % test accuracy under plain training on CIFAR-10 (the paper, from memory).
    """

    name: ClassVar[str] = "advin-like"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "after Wang et al., Fooling Adversarial Training with Inducing Noise, 2021"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": TAP.PRESETS["paper"] | {
            "surrogate_training": "at", "recipe": PAPER_RECIPE | {"shift": 0.5}, "restarts": 1,
        },
        "micro": TAP.PRESETS["micro"] | {
            "surrogate": MICRO_NETWORK, "surrogate_training": "at[steps=5]", "recipe": MICRO_RECIPE | {"epochs": 4},
        },
    }  # fmt: skip

    eps: Ratio = Field(32 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    restarts: int | None = Field(None, ge=1, le=100, description="random starts; null: 1")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 100, micro 4")
    surrogate_training: str | None = Field(None, description="its training procedure; null: at, micro at[steps=5]")
