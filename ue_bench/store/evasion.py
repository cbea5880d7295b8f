"""Results of evasion in a board's folder: one small file each, apart from those of training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .results import _pretty, _read, cell_file, cell_path, write_atomically
from .schema import SCHEMA, DatasetInfo, Environment, _Record


class EvasionResult(_Record):
    """What a classifier trained on clean images makes of protected and processed test images.

    ``accuracy`` in percent of ``images``. ``psnr`` (dB, null when nothing changed) and ``ssim`` compare what it is
    shown with the clean images, at 8 bits: before a step that acts on batches, such as noise. ``transfer`` says that
    its seed is its own, not that of surrogates; ``classifier`` is a checksum of its weights.
    """

    version: Literal[1] = SCHEMA
    key: str
    id: str
    dataset: DatasetInfo
    images: int
    protector: str
    countermeasure: str
    victim: str
    protocol: str
    protocol_version: int
    seed: int
    transfer: bool
    precision: str
    accuracy: float
    psnr: float | None
    ssim: float
    classifier: str
    environment: Environment
    finished: str


class EvasionStore:
    """``evasion/<protector>/<countermeasure>-...-<key>.json``."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "evasion"

    def results(self) -> list[EvasionResult]:
        """All results, sorted by id. Raises ValidationError that names a file which is not one."""
        found = [_read(path, EvasionResult) for path in sorted(self.folder.rglob("*.json"))]
        return sorted(found, key=lambda r: (r.id, r.key))

    def has(self, key: str) -> bool:
        """Whether the cell with that key has a result."""
        path = cell_file(self.folder, key)
        return path is not None and _read(path, EvasionResult).key == key

    def write(self, result: EvasionResult) -> None:
        """Record a finished cell."""
        names = result.countermeasure, result.victim, result.protocol, f"s{result.seed}"
        write_atomically(cell_path(self.folder, result.key, result.protector, *names), _pretty(result))
