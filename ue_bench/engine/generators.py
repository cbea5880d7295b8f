"""Torch's own generators: layers such as dropout draw from no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def leaves_generators_alone(function: Callable[P, T]) -> Callable[P, T]:
    """Let ``function`` seed torch's own generators and draw from them; afterwards they are as they were before."""

    @wraps(function)
    def forked(*args: P.args, **kwargs: P.kwargs) -> T:
        # Asking for the state of a GPU's generator would set up CUDA, also for a training on the CPU.
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call, unused-ignore]  # untyped in some versions of torch
        gpus = range(torch.cuda.device_count()) if used else range(0)
        with torch.random.fork_rng(devices=gpus):
            return function(*args, **kwargs)

    return forked


def own_generator(device: torch.device) -> torch.Generator:
    """Return the generator that layers on ``device`` draw from; a GPU must have been used before."""
    if device.type != "cuda":
        return torch.default_generator
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
