"""Which precision a device trains in fastest."""

from __future__ import annotations

import torch

# Not public, but the only way torch tells: tiles of AMX, or products of pairs in the vectors of AVX-512. Without them
# bfloat16 is emulated, and slower than float32.
MULTIPLIES_BFLOAT16 = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def default_precision(device: str) -> str:
    """Return ``bf16`` where the hardware multiplies bfloat16, else ``fp32``."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if kind != "cpu":
        return "fp32"
    asked = (getattr(torch.cpu, name, None) for name in MULTIPLIES_BFLOAT16)  # some are not in every version
    return "bf16" if any(supported is not None and supported() for supported in asked) else "fp32"
