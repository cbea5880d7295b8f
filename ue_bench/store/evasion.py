"""Results of evasion in a board's folder: one small file each, apart from those of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .records import records
from .results import has_record, write_record
from .schema import Count, Environment, Measured, Percent, Positive, Similarity


class EvasionResult(Measured):
    """What a classifier trained on clean images makes of protected and processed test images.

    ``accuracy`` in percent of ``images``. ``psnr`` (dB, null when nothing changed) and ``ssim`` compare what it is
    shown with the clean images, at 8 bits: before a step that acts on batches, such as noise. ``transfer`` says that
    its seed is its own, not that of surrogates; ``classifier`` is a checksum of its weights.
    """

    images: Count
    transfer: bool
    precision: str
    accuracy: Percent
    psnr: Positive | None
    ssim: Similarity
    classifier: str
    environment: Environment
    finished: str

    @classmethod
    def told(cls, cell: dict[str, Any]) -> dict[str, Any]:
        found = {name: cell[name] for name in ("seed", "precision", "transfer")}
        return found if cell["images"] is None else found | {"images": cell["images"]}  # null: all of them

    @classmethod
    def make_id(cls, fields: dict[str, Any]) -> str:
        some = fields["cell"]["images"]
        dataset = fields["dataset"]["selector"] + ("" if some is None else f"@{some}")
        names = [dataset, *(fields[n] for n in ("protector", "countermeasure", "victim", "protocol"))]
        return "/".join([*names, f"s{fields['seed']}", "transfer" if fields["transfer"] else "evasion"])


class EvasionStore:
    """``evasion/<protector>/<countermeasure>-...-<key>.json``."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "evasion"

    def results(self) -> list[EvasionResult]:
        """Return all results, sorted by id. A file that is not one is set aside, see :mod:`.records`."""
        return sorted(records(self.folder, EvasionResult), key=lambda r: (r.id, r.key))

    def has(self, key: str) -> bool:
        """Return whether the cell with that key has a result."""
        return has_record(self.folder, key, EvasionResult)

    def write(self, result: EvasionResult) -> None:
        """Record a finished cell, unless it has a result."""
        write_record(self.folder, result)
