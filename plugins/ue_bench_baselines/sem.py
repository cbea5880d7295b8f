"""SEM, stable error-minimising noise."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from .rem import REM


class SEM(REM):
    """Liu, Xu, Chen and Sun, "Stable Unlearnable Example: ... via Stable Error-Minimizing Noise", AAAI 2024.

    ``rem[inner=random]`` under its own name. All of REM but one thing: where its noise meets the worst image that an
    adversary finds, that of SEM meets an image drawn uniformly from the same ball, anew for each transform and step:
    no pass of the network is spent on it. The network's own training step stays adversarial.

    ``preset=paper`` is the release's setting for CIFAR-10, which is REM's. ``preset=micro`` is that of ``rem`` with
    three transforms a step for one, since each costs a sixth of REM's; a method of its own, not a measurement of the
    paper's.

    Deviations from the authors' release: those of ``rem``. Its script for ImageNet calls REM's generator.

    Expect about 31 % test accuracy for a ResNet-18 on CIFAR-10 under adversarial training at 4/255, where REM comes to
    48 % (the paper, from memory).
    """

    name: ClassVar[str] = "sem"
    paper: ClassVar[str] = (
        "Liu et al., Stable Unlearnable Example: Enhancing the Robustness of Unlearnable Examples via Stable "
        "Error-Minimizing Noise, AAAI 2024"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = REM.PRESETS | {"micro": REM.PRESETS["micro"] | {"eot": 3}}

    eot: int | None = Field(None, ge=1, le=1000, description="random transforms a step; null: 5, micro 3")
    inner: Literal["pgd", "random"] = Field(
        "random", description="the adversary that the noise meets: by gradient steps, or a uniform draw"
    )
