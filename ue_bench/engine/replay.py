"""Run the steps of a training: one after the other on a CPU, recorded once as a CUDA graph and replayed on a GPU.

A step of a small network is some hundred kernels of a few microseconds each, which Python cannot start as fast as a GPU
ends them. A graph starts all of them at once. Its tensors lie where they lay when it was recorded, so that indices and
learning rate are written into buffers before it is replayed, and the loss is copied out of one afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ..checksums import log
from ..errors import first_line

Step = Callable[[Tensor, float | Tensor], Tensor]
"""Takes indices of images and the learning rate, changes network, optimizer and sums in place; returns the loss."""
Recorded = Callable[[], Tensor]
"""Does again what was recorded, on what the buffers hold now; returns the tensor that receives the loss."""

Eager = Literal["", "plugin", "memory", "failed"]
"""Why steps are not recorded: not replayable, images beyond the device's memory, or recording them failed."""

WARM_UP = 3  # steps before recording, in which libraries choose their algorithms and take their workspaces


class Recorder(Protocol):
    """Records a step on a device."""

    def warm_up(self, step: Recorded) -> None:
        """Take the step, as often as it takes until nothing is prepared or allocated for the first time."""

    def record(self, step: Recorded) -> Recorded:
        """Return what repeats the step, which must not be taken meanwhile. Raises RuntimeError where it cannot be."""


class CudaGraphs:
    """Records steps as CUDA graphs. ``generators`` are those on the device that steps draw from."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self.device, self.generators = device, generators
        # One stream for warming up and recording: autograd remembers on which stream a gradient was accumulated.
        self.stream = torch.cuda.Stream(device)

    def warm_up(self, step: Recorded) -> None:
        now = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            # Adam's, of an optimizer that can be recorded and is not: this once it is not
            warnings.filterwarnings("ignore", message=".*capturable=True", category=UserWarning)
            for _ in range(WARM_UP):
                step()
        now.wait_stream(self.stream)

    def record(self, step: Recorded) -> Recorded:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:  # torch registers its own by itself
            graph.register_generator_state(generator)
        with torch.cuda.device(self.device), torch.cuda.graph(graph, stream=self.stream):
            loss = step()

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay


class StepRunner:
    """Runs ``step`` on indices of a batch and a learning rate, as it is or recorded.

    With a ``recorder`` the step is recorded when it is first needed in each of its phases, and replayed from then on.
    ``eager`` says why it is not recorded, where it might have been; it becomes ``failed`` where recording fails.
    """

    def __init__(
        self,
        step: Step,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        sums: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        recorder: Recorder | None = None,
        eager: Eager = "",
    ) -> None:
        self.step, self.network, self.optimizer, self.sums, self.generators = step, network, optimizer, sums, generators
        self.recorder, self.eager = recorder, eager
        self.buffers: dict[int, tuple[Tensor, Tensor]] = {}  # of indices and rate, by the size of the batch
        self.recorded: dict[tuple[Hashable, int], Recorded] = {}

    def __call__(self, where: Tensor, rate: float, phase: Hashable = None) -> Tensor:
        """Take one step on the images at ``where``; return its loss. Steps of every size are recorded on their own."""
        if self.recorder is None:
            return self.step(where, rate)
        where_buffer, rate_buffer = self.fill(where, rate)
        kind = phase, len(where)
        if kind not in self.recorded:
            try:
                self.recorded[kind] = self.record(self.recorder, lambda: self.step(where_buffer, rate_buffer))
            except RuntimeError as error:
                reason = first_line(error)
                log.warning("ue-bench: steps are not recorded as a CUDA graph: %s", reason)
                self.recorder, self.eager = None, "failed"
                return self.step(where, rate)
        return self.recorded[kind]().clone()  # the next replay writes over it

    def fill(self, where: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Write indices and rate into the buffers that recorded steps read; return these."""
        if len(where) not in self.buffers:
            # fused optimizers on a GPU read a rate in float32; on a CPU it is the number that it was
            wide = torch.float32 if where.device.type == "cuda" else torch.float64
            self.buffers[len(where)] = where.clone(), torch.zeros((), dtype=wide, device=where.device)
        buffers = self.buffers[len(where)]
        buffers[0].copy_(where)
        buffers[1].fill_(rate)
        return buffers

    def record(self, recorder: Recorder, step: Recorded) -> Recorded:
        """Warm up and record; network, optimizer, sums and generators are afterwards as they were before."""
        with unchanged(self.network, self.optimizer, self.sums, self.generators):
            recorder.warm_up(step)
        self.optimizer.zero_grad(set_to_none=True)  # gradients then get their place while the step is recorded
        drawn = [generator.get_state() for generator in self.generators]
        try:
            return recorder.record(step)
        except RuntimeError:
            self.optimizer.zero_grad(set_to_none=True)
            for generator, state in zip(self.generators, drawn, strict=True):
                generator.set_state(state)
            raise


@contextmanager
def unchanged(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    sums: Sequence[Tensor],
    generators: Sequence[torch.Generator],
) -> Iterator[None]:
    """Let a block take steps, and put back in place what they changed: each tensor stays where it lies in memory.

    What an optimizer has only since its first step becomes zero, where it starts: SGD's momentum and all of Adam's.
    """
    kept = [*network.state_dict().values(), *sums]
    before = [tensor.detach().clone() for tensor in kept]
    states = {id(t): t.detach().clone() for t in optimizer_tensors(optimizer)}
    drawn = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(kept, before, strict=True):
                tensor.copy_(value)
            for tensor in optimizer_tensors(optimizer):
                value = states.get(id(tensor))
                tensor.zero_() if value is None else tensor.copy_(value)
        for generator, state in zip(generators, drawn, strict=True):
            generator.set_state(state)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the tensors that ``optimizer`` keeps of each weight."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
