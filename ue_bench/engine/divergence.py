"""Find out that a training diverged, without a step that waits for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Diverged

if TYPE_CHECKING:
    from torch import Tensor, nn


class DivergenceCheck:
    """A watch over a training of ``steps`` steps, which raises Diverged once a loss or network is not finite.

    ``add`` takes a step's loss and leaves it where it is; ``check`` waits for the device, so call it once an epoch, and
    before the state of the training is saved. ``name`` says in the message whose training it is.
    """

    def __init__(self, steps: int, name: str = "", hint: str = "") -> None:
        self.steps, self.name, self.hint = steps, name, hint
        self.losses: list[Tensor] = []  # of the steps since the last check

    def add(self, loss: Tensor) -> None:
        """Remember the loss of the next step, a scalar."""
        self.losses.append(loss.detach().float())

    def pending(self) -> Tensor:
        """Return the losses that were not looked at yet: part of a state that is saved between two checks."""
        import torch

        return torch.stack(self.losses) if self.losses else torch.empty(0)

    def check(self, step: int, *networks: nn.Module) -> None:
        """Look at the losses up to ``step``, which counts from 1, and at all weights and statistics of ``networks``.

        Raises Diverged with the first step whose loss is not finite, or else with the name of what is not.
        """
        import torch

        losses, self.losses = self.losses, []
        if losses:
            bad = torch.isfinite(torch.stack(losses)).logical_not().nonzero()
            if len(bad):
                raise self.diverged("loss", step - len(losses) + 1 + int(bad[0]))
        for network in networks:
            if name := not_finite(network):
                raise self.diverged(f"weight {name}", step)

    def diverged(self, what: str, step: int) -> Diverged:
        """Return the error that says that ``what`` is not finite at ``step``."""
        return Diverged(f"{what} of {self.name}" if self.name else what, step, self.steps, self.hint)


def check_finite(values: Tensor, what: str) -> None:
    """Raise Diverged unless all ``values``, which ``what`` names, are finite. Waits for the device."""
    import torch

    if not torch.isfinite(values).all():
        raise Diverged(what)


def not_finite(network: nn.Module) -> str:
    """Return the name of the first weight or running statistic of ``network`` that is not finite, or nothing."""
    import torch

    values = {name: value.detach() for name, value in network.state_dict().items() if value.is_floating_point()}
    if not values:
        return ""
    finite = torch.stack([torch.isfinite(value).all() for value in values.values()])
    return next((name for name, good in zip(values, finite.tolist(), strict=True) if not good), "")
