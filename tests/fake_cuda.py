"""A GPU that is none: tensors that have a device, a shape and no numbers, on a machine without a driver.

Torch's fake tensors compute what device and shape every result has, and raise where those of a GPU and of the host meet
in one operation. What they cannot do without a driver is stood in for here: generators, gradients and autocast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten


RealGenerator = torch.Generator
SEED = 0x6661_6B65  # of all stand-ins for generators on a GPU: operations are told it, and no device


class Generator(RealGenerator):
    """A generator that says it is on the device it was asked for. On a GPU all draws are the same: nothing."""

    place: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        generator = super().__new__(cls)
        generator.place = torch.device(device)
        return generator.manual_seed(0)

    def manual_seed(self, seed: int) -> Generator:
        super().manual_seed(seed if self.place.type == "cpu" else SEED)
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # nobody writes it
        return self.place


class HostCopy(AssertionError):
    """A step would wait for the device, or read memory of the host that need not be there when it is replayed."""


class Rules(TorchDispatchMode):
    """Holds operations to what a GPU holds them to, and in a recorded step to what a CUDA graph can repeat.

    Where steps are not ``recorded``, a number that is read from the device is 1, or true, nothing is not zero, and a
    mask takes all.
    """

    def __init__(self, recorded: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.recorded = recorded

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [a for a in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        on_host = [a for a in given if a.device.type == "cpu"]
        if operation is ATEN._local_scalar_dense.default:
            if on_host:
                return operation(*args, **(kwargs or {}))
            if self.recorded:
                raise HostCopy("a number is read from the device")
            return {torch.bool: True, torch.int64: 1}.get(given[0].dtype, 1.0)
        if not self.recorded and operation is ATEN.nonzero.default:
            return given[0].new_empty((0, given[0].dim()), dtype=torch.int64)
        if not self.recorded and operation is ATEN.bincount.default:
            return given[0].new_ones((kwargs or {}).get("minlength", args[-1]))
        if not self.recorded and operation is ATEN.index.Tensor:
            args = (args[0], [as_places(i) for i in args[1]])
        result = operation(*args, **(kwargs or {}))
        results = [r for r in torch.utils._pytree.tree_leaves(result) if isinstance(r, Tensor)]
        for generator in (kwargs or {}).values():
            if isinstance(generator, RealGenerator):
                place = "cuda" if generator.initial_seed() == SEED else "cpu"
                assert results[0].device.type in (place, "meta"), f"{operation} draws with a generator on {place}"
        if self.recorded:
            places = {t.device.type for t in [*given, *results]}
            numbers = all(a.dim() == 0 for a in on_host) and all(r.device.type != "cpu" for r in results)
            copies = operation in (ATEN._to_copy.default, ATEN.copy_.default)
            if len(places) > 1 and (copies or not numbers):
                raise HostCopy(f"{operation} on {', '.join(sorted(places))}")
        return result


def as_places(index: Tensor | None) -> Tensor | None:
    """Return a mask N as indices of as many places; other indices as they are."""
    if index is None or index.dtype != torch.bool or index.dim() != 1:
        return index
    return index.new_zeros(len(index), dtype=torch.int64)


def leaves(tensor: Tensor) -> list[Tensor]:
    """Return the weights that ``tensor`` was computed from."""
    found, seen, ahead = [], set(), [tensor.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(cast(Tensor, node.variable))
        ahead += [following for following, _ in node.next_functions]
    return found


def backward(self: Tensor, *args: Any, **kwargs: Any) -> None:
    assert self.dim() == 0 or args or "gradient" in kwargs
    for leaf in leaves(self):
        leaf.grad = torch.zeros_like(leaf)


def gradients(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
    made = [outputs] if isinstance(outputs, Tensor) else outputs
    wanted = [inputs] if isinstance(inputs, Tensor) else inputs
    assert all(m.grad_fn is not None for m in made)
    zeros = [torch.zeros_like(w) for w in wanted]
    # With create_graph they are functions of what they are taken at.
    return tuple(z + 0 * w if kwargs.get("create_graph") else z for z, w in zip(zeros, wanted, strict=True))


def numpy_of(original: Callable[..., Any]) -> Callable[..., Any]:
    def numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, FakeTensor):
            return original(self, *args, **kwargs)
        if self.device.type != "cpu":
            raise TypeError("can't convert cuda tensor to numpy")
        return np.zeros(tuple(self.shape), str(self.dtype).removeprefix("torch."))

    return numpy


def converted(self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Replace all weights and buffers by what ``function`` makes of them; torch cannot swap fake ones in place."""
    made: dict[int, nn.Parameter] = {}
    for module in self.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in made:
                    made[id(weight)] = nn.Parameter(function(weight.detach()), weight.requires_grad)
                module._parameters[name] = made[id(weight)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else function(buffer)
    return self


class FakeGpu:
    """The fake GPU of a test."""

    @contextlib.contextmanager
    def __call__(self, recorded: bool = False) -> Iterator[None]:
        """Make tensors fake within; in a ``recorded`` step nothing passes between host and device."""
        with FakeTensorMode(allow_non_fake_inputs=True), Rules(recorded):
            yield


def stand_in(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Put what stands in for the driver in its place, and return the fake GPU."""
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # its kernels are not all known to fake tensors
    monkeypatch.setattr(nn.Module, "_apply", converted)
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", gradients)
    monkeypatch.setattr(Tensor, "numpy", numpy_of(Tensor.numpy))
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: tensor.numpy().tolist())
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**12, 10**12))
    return FakeGpu()
