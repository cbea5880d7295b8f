"""Compute on a GPU in the precision that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_float32(device: str = "cuda") -> Iterator[None]:
    """Let float32 be float32 on a GPU, and its convolutions choose their algorithms by time, while a block runs.

    By default cuDNN rounds what convolutions of float32 multiply to TF32, which has the ten bits of mantissa of half
    precision. In ``fp32`` no layer may do so; in ``bf16`` this concerns what is left in float32. Algorithms of
    convolutions are tried once a shape: two runs may take others and differ in their last digits, so that on a GPU no
    bits are promised. On other devices nothing is set.
    """
    if not device.startswith("cuda"):
        yield
        return
    import torch
    from torch.backends import cuda, cudnn

    if not torch.cuda.is_available():
        yield
        return
    before = cudnn.allow_tf32, cuda.matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32, cuda.matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = False, False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cuda.matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
