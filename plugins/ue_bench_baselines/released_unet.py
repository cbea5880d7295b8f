"""The generators that the authors of DeepConfuse and GUE released, in the U-Net of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ue_bench.api import UserError

from .unet import UNet

# Blocks of the releases' network, and ours; layers of a block are numbered alike.
BLOCKS = {
    "dconv_down1": "down.0", "dconv_down2": "down.1", "dconv_down3": "down.2", "dconv_down4": "bottom",
    "dconv_up3": "up.0", "dconv_up2": "up.1", "dconv_up1": "up.2", "conv_last": "head",
}  # fmt: skip
FIRST = "dconv_down1.0.weight"  # tells the width
COUNTER = "num_batches_tracked"  # of a normalisation; nothing here reads it, and old files have none
HINT = "give a state dict of the released generator, such as DeepConfuse's atk.0.032.best.pth or gue_cifar10.pth"


def load_released(path: Path) -> UNet:
    """Load a generator from a file of ``torch.save`` with a released state dict: in eval mode, frozen, float32.

    Names may begin with ``module.``, as those of ``DataParallel``; the file may be of the old format without zip; any
    width. Nothing but tensors is unpickled. On sides that are multiples of 8 the network gives what the release's
    gives; other sides the release cannot take. Raises UserError, which names what is wrong, for anything else.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of the file make of an unpickler
        raise UserError(f"{path.name} cannot be read as weights", HINT) from error
    return build(stored, path.name)


def build(stored: Any, label: str) -> UNet:
    """Build the generator from what a file holds; ``label`` names the file in errors."""
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise UserError(f"{label} is no state dict", HINT)
    weights = {str(name).removeprefix("module."): value for name, value in stored.items()}
    if FIRST not in weights or weights[FIRST].ndim != 4:
        raise UserError(f"{label} is not a released generator: it has no {FIRST}", HINT)
    with torch.device("meta"):  # no weights are drawn that would be overwritten
        network = UNet(len(weights[FIRST]))
    wanted = network.state_dict()
    ours = {_renamed(name): value for name, value in weights.items()}
    ours |= {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith(COUNTER) and name not in ours}
    if missing := sorted(set(wanted) - set(ours)):
        raise UserError(f"{label} is not a released generator: it has no {missing[0]}", HINT)
    if unknown := sorted(set(ours) - set(wanted)):
        raise UserError(f"{label} is not a released generator: {unknown[0]} is none of its weights", HINT)
    for name, value in ours.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            raise UserError(f"{label} is not a released generator: {name} has the shape {shapes}", HINT)
        if not bool(value.isfinite().all()):
            raise UserError(f"{label}: {name} is not finite", HINT)
    network.load_state_dict(
        {name: value if name.endswith(COUNTER) else value.float() for name, value in ours.items()}, assign=True
    )
    return network.eval().requires_grad_(False)


def _renamed(name: str) -> str:
    """Return our name of a weight; one that the release does not have stays as it is."""
    block, _, rest = name.partition(".")
    return f"{BLOCKS[block]}.{rest}" if block in BLOCKS else name
