"""Time passes through a network on this machine."""

from __future__ import annotations

import time
from functools import cache

from .. import machine
from ..contract.plugin import Victim
from .numerics import full_float32

LEAST_SECONDS = 0.7  # a measurement goes on for, so that a tick of the clock is nothing


@cache
def seconds_a_pass(
    victim: Victim, classes: int, size: tuple[int, int], device: str, precision: str, threads: int
) -> float:
    """Return the seconds for forward and backward of one image of ``size``, from training steps on random images.

    In batches of 64 on a CPU and of 512 elsewhere, for a second or so.
    """
    import torch
    from torch.nn import functional as F

    on = torch.device(device)
    with machine.torch_threads(threads), full_float32(device):
        with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):
            network = victim.build(classes, size).to(on).to(memory_format=torch.channels_last)
            batch = 64 if on.type == "cpu" else 512
            x = torch.rand(batch, 3, *size, device=on).to(memory_format=torch.channels_last)
        y = torch.zeros(batch, dtype=torch.long, device=on)

        def step() -> None:
            with torch.autocast(on.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = network(x)
            F.cross_entropy(logits.float(), y).backward()
            if on.type == "cuda":
                torch.cuda.synchronize(on)

        step()  # the first one prepares what the others use
        steps, started = 0, time.perf_counter()
        while not steps or time.perf_counter() - started < LEAST_SECONDS:
            step()
            steps += 1
        return (time.perf_counter() - started) / (steps * batch)
