"""What a training of a plugin's network keeps beside its state, and what its record says of data and machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ..errors import Diverged, ValidationError
from .divergence import not_finite

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..contract.imageset import ImageSet

WEAKEST = 20.0  # dB of the images that a network makes; below, its training has failed
Validated = dict[str, float]  # numbers of one validation, the loss ``total`` among them


class TrainingLog:
    """The validations of a training, its best weights, and how many steps it skipped.

    ``title`` is what messages call the network, ``images`` what they call its images, whose PSNR in dB is the number
    ``psnr`` of a validation. ``weights`` returns the weights of now as copies. The hints go with failures: steps that
    are not finite, and images that end too weak.
    """

    def __init__(
        self,
        network: nn.Module,
        title: str,
        images: str,
        psnr: str,
        weights: Callable[[], dict[str, Tensor]],
        unstable_hint: str,
        weak_hint: str,
    ) -> None:
        self.network, self.title, self.images, self.psnr, self.weights = network, title, images, psnr, weights
        self.unstable_hint, self.weak_hint = unstable_hint, weak_hint
        self.skipped = 0
        self.curve: list[Validated] = []
        self.best: dict[str, Tensor] = {}
        self.best_total = math.inf

    def skip(self, step: int) -> None:
        """Count ``step``, which was not finite. Raises Diverged beyond one in ten, and ten more."""
        self.skipped += 1
        if self.skipped > 10 + (step + 1) // 10:
            what = f"{self.skipped} of {step + 1} training steps of the {self.title} were"
            raise Diverged(what, step + 1, None, self.unstable_hint)

    def add(self, step: int, validated: Validated) -> None:
        """Add a validation after ``step``; keep the weights when its total loss is the lowest so far.

        Raises Diverged when a weight is not finite: no later step would mend it.
        """
        if name := not_finite(self.network):
            raise Diverged(f"weight {name} of the {self.title}", step + 1)
        point = {"step": step + 1, "skipped": self.skipped, **validated}
        self.curve.append(point)
        if point["total"] < self.best_total:
            self.best_total, self.best = point["total"], self.weights()

    def state(self) -> dict[str, Any]:
        """Return the part of a checkpoint that ``resume`` takes."""
        return {"skipped": self.skipped, "curve": self.curve, "best": self.best, "best_total": self.best_total}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint that has what ``state`` returned."""
        self.skipped, self.curve = state["skipped"], list(state["curve"])
        self.best, self.best_total = state["best"], state["best_total"]

    def result(self) -> tuple[dict[str, Tensor], list[Validated]]:
        """Return the best weights and the curve. Raises ValidationError when their images are under 20 dB."""
        psnr = best_validation(self.curve)[self.psnr] if self.best else -math.inf
        if psnr < WEAKEST:
            raise ValidationError(
                f"the {self.title} failed: its {self.images} are at {psnr:.1f} dB, under {WEAKEST:g} dB",
                self.weak_hint,
            )
        return self.best, self.curve


def best_validation(curve: list[Validated]) -> Validated:
    """Return the validation whose weights were kept: the first with the lowest total loss."""
    return min((point for point in curve if not math.isnan(point["total"])), key=lambda point: point["total"])


def describe_data(data: ImageSet) -> dict[str, Any]:
    """Return what the record of a training says of the images, as plain data."""
    return {
        "source": data.source,
        "images": len(data),
        "classes": data.num_classes,
        "size": list(data.size),
        "fingerprint": data.fingerprint,
    }


def describe_environment(device: str, *packages: str) -> dict[str, Any]:
    """Return what the record of a training says of the machine and the versions of ue-bench, torch and ``packages``."""
    import torch

    return {
        "ue_bench": metadata.version("ue-bench"),
        "torch": torch.__version__,
        **{package: metadata.version(package) for package in packages},
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
    }
