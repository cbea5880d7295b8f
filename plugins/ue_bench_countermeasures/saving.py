"""The state of long work, kept for whoever goes on with it after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def save(file: Path, state: dict[str, Any]) -> None:
    """Whole or not at all: this is written by processes that get killed."""
    unfinished = file.with_suffix(".new")
    torch.save(state, unfinished)
    unfinished.replace(file)


def part(file: Path, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The array in ``file``; made and stored there when there is none."""
    if not file.exists():
        unfinished = file.with_suffix(f".{os.getpid()}")
        with unfinished.open("wb") as handle:
            np.save(handle, make())
        unfinished.replace(file)
    found: NDArray[np.uint8] = np.load(file)
    return found
