"""Derive seeds, which are never shared: from one base seed, one stage, and the axes that matter to it."""

from __future__ import annotations

import hashlib


def derive(base: int, *axes: object) -> int:
    """Return a 63-bit seed for ``base`` and ``axes``; unrelated for any two different inputs."""
    text = "\x1f".join([str(base), *map(str, axes)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
