"""Make keys: digests of everything that can change a number."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

# Made once: a key is computed for every cell of a plan and every result that is read.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Write equal data in one spelling: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """Return SHA-256 (first 32 digits) of the canonical JSON of ``value``."""
    return digest_text(canonical_json(value))


def digest_text(text: str) -> str:
    """Return the digest of data whose canonical JSON is ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def json_ready(value: Any) -> Any:
    """Return plain data with null in place of numbers that are not finite: JSON has no way to write those.

    For records of a course of events, such as validations on the way. A result has no such numbers.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: json_ready(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    return value
