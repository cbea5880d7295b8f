"""Settings of ComDefend's networks and of their training, which commands show without loading the plugin."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"divisor": 1, "steps": 25_000, "batch": 20, "learning_rate": 0.001},
    "micro": {"divisor": 4, "steps": 1500, "batch": 20, "learning_rate": 0.002},
}
