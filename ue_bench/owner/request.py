"""Hold what a data owner asks for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import arguments, machine
from ..contract.context import Context, ProgressReport
from ..errors import UserError
from ..grid.opening import find_protector
from ..progress import usable_device
from . import files
from .contexts import owner_context
from .pictures import Format

if TYPE_CHECKING:
    from ..contract.plugin import Protector


@dataclass(frozen=True)
class ProtectionRequest:
    """The request of a data owner: what to protect, how, and where to write.

    ``size`` brings all images to squares of that side first.
    """

    protector: Protector
    source: Path
    out: Path
    record: Path
    key: Path
    labels: Path | None = None
    kind: Format = "png"
    size: int | None = None
    seed: int | None = None
    lossless: bool = False
    force: bool = False
    device: str = "cpu"
    threads: int = 1
    precision: str = "fp32"
    cache_dir: Path | None = None
    data_dir: Path | None = None

    def owner_context(self, report: ProgressReport) -> contextlib.AbstractContextManager[Context]:
        """Open the context in which the protector works."""
        assert self.seed is not None  # ``begin`` chose one
        return owner_context(
            self.seed, self.device, self.threads, self.precision, report, self.cache_dir, self.data_dir
        )


def make_request(
    protector: str,
    source: Path,
    out: Path,
    *,
    record: Path | None = None,
    key: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    lossless: bool = False,
    **options: Any,
) -> ProtectionRequest:
    """Return a request with what is not given filled in: device, threads, precision, and files beside ``out``.

    Raises UserError when ``protector`` is not one, or cannot be undone although a key is asked for, EnvironmentProblem
    when the device is not there.
    """
    arguments.known("precision", precision, arguments.PRECISIONS)
    if threads is not None:
        threads = arguments.whole("the number of threads", threads, 1)
    plugin = find_protector(protector)
    if not plugin.recovers() and (key is not None or lossless):
        raise UserError(f"{plugin.name} cannot be undone: there is no key", "leave out --key and --lossless")
    out = out.expanduser().absolute()
    device = usable_device(device)
    return ProtectionRequest(
        protector=plugin,
        source=source.expanduser(),
        out=out,
        record=record or files.beside(out, ".record.json"),
        key=key or files.beside(out, ".key.safetensors"),
        lossless=lossless,
        device=device,
        threads=threads or machine.usable_cores(),
        precision=_precision(precision, device) if plugin.uses_networks else "fp32",
        **options,
    )


def _precision(precision: str, device: str) -> str:
    from ..engine.precision import default_precision

    return default_precision(device) if precision == "auto" else precision
