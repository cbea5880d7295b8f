"""Offer runs, protection and recovery to Python, as ``import ue_bench``. The command line calls the same library."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from .catalogue import boards
from .contract.board import Board
from .contract.context import ProgressReport, silent
from .errors import NothingSelected, UserError
from .leaderboard.results import Results

if TYPE_CHECKING:
    from .owner.pictures import Format
    from .owner.recovering import RecoveryOutcome

Selectors = str | Sequence[str]


def load_board(name_or_path: str | Path) -> Board:
    """Return the board of that name, or of that TOML file.

    Raises UserError with the nearest names when there is none, ValidationError when a file holds what no board can.
    """
    return boards.board(str(name_or_path))


def run(
    board: str | Path | Board = "demo",
    *,
    protectors: Selectors = (),
    countermeasures: Selectors = (),
    victims: Selectors = (),
    dataset: str | None = None,
    protocol: str | Path | None = None,
    seeds: int | Sequence[int] | None = None,
    fraction: float = 1.0,
    reference: bool = True,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    devices: str = "auto",
    jobs: int | None = None,
    threads: int = 1,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Results:
    """Fill the grid of protectors and countermeasures and return its results, as ``ue-bench run`` does.

    Selectors are written as on the command line, such as ``"deephiding,lsp"`` or ``["jpeg[quality=10]", "gray"]``;
    what is left out is the board's. Its reference rows are part of it unless ``reference`` is false. What exists in
    ``out``, by default ``ue-bench-results/BOARD``, is not computed again. What a glob or a tag stands for and cannot be
    had here, such as weights that a hub has, is left out with a warning.

    A cell that fails stops no other: see ``failures`` and ``missing`` of the results. Workers are processes of their
    own that never import the calling script, so that it needs no main guard; plugins must therefore be installed, not
    defined in the script or notebook.

    Raises UserError for what does not exist or does not fit together, KeyboardInterrupt after an interrupt.
    """
    from .grid.grid import Request, resolve
    from .grid.progress import Progress, Quiet

    request = Request(
        board=board if isinstance(board, Board) else load_board(board),
        protectors=_list(protectors),
        countermeasures=_list(countermeasures),
        victims=_list(victims),
        dataset=dataset,
        protocol=None if protocol is None else str(protocol),
        seeds=[seeds] if isinstance(seeds, SupportsIndex) else seeds,
        fraction=fraction,
        reference=reference,
        precision=precision,
        devices=devices,
        threads=threads,
        out=_path(out),
        data_dir=_path(data_dir),
        cache_dir=_path(cache_dir),
    )
    grid = resolve(request, _report(progress), _leave_out)
    grid.fill(Progress() if progress else Quiet(), jobs)
    return grid.outcome()


def load_results(out: str | Path | None = None, board: str | Path | Board = "demo") -> Results:
    """Return the results stored in the folder ``out``, by default that of ``board``, as a table of ``board``.

    Nothing is computed, and no dataset is loaded. Raises NothingSelected when there are none.
    """
    from .leaderboard.submission import badges_in
    from .store.results import ResultStore

    of = board if isinstance(board, Board) else load_board(board)
    folder = Path("ue-bench-results") / of.name if out is None else Path(out).expanduser()
    store = ResultStore(folder)
    results = store.results()
    if not results:
        raise NothingSelected(f"no results in {folder}", "fill it with ue_bench.run, or give another folder")
    return Results(of, results, store.failures(), badges=badges_in(folder))


@dataclass(frozen=True)
class Protected:
    """The outcome of ``protect``: how many images it was given, which failed and why, and what it changed.

    ``measured`` holds Linf, RMS, PSNR and SSIM over all images, None when none was protected; ``key`` is the file for
    ``recover``, None for a protector that cannot be undone. ``record`` is all that the record file says.
    """

    out: Path
    images: int
    failed: dict[str, str]
    measured: dict[str, Any] | None
    key: Path | None
    record: dict[str, Any]


def protect(
    images: str | Path,
    out: str | Path,
    protector: str,
    *,
    labels: str | Path | None = None,
    size: int | None = None,
    kind: Format = "png",
    seed: int | None = None,
    key: str | Path | None = None,
    record: str | Path | None = None,
    lossless: bool = False,
    force: bool = False,
    device: str = "auto",
    threads: int | None = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Protected:
    """Protect a folder of images, as ``ue-bench protect`` does: see there for the parameters.

    Images that cannot be protected are in ``failed``; the others are written. The randomness is a secret of the owner,
    drawn unless ``seed`` is given, and kept in the record. Raises UserError when nothing can be done, ValidationError
    when protection left all images as they were.
    """
    from .owner import files, protecting
    from .owner.request import make_request

    request = make_request(
        protector, Path(images), Path(out), record=_path(record), key=_path(key), labels=_path(labels), kind=kind,
        size=size, seed=seed, lossless=lossless, force=force, device=device, threads=threads, precision=precision,
        data_dir=_path(data_dir), cache_dir=_path(cache_dir),
    )  # fmt: skip
    with files.alone(request.out, request.cache_dir):
        content = protecting.protect(request, _report(progress))
    written = request.key if content["recovery"] else None
    return Protected(request.out, content["images"], content["failed"], content["measured"], written, content)


def recover(
    key: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    modified: bool = False,
    force: bool = False,
    device: str | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> RecoveryOutcome:
    """Recover the images behind protected ones, as ``ue-bench recover`` does: see there for the parameters.

    Raises UserError when ``key`` is none or its protector is not here, ValidationError when it knows no image.
    """
    from .owner import files, recovering

    target, cache = Path(out).expanduser().absolute(), _path(cache_dir)
    with files.alone(target, cache):
        return recovering.recover(
            Path(key).expanduser(), Path(images).expanduser(), target, device, _report(progress), modified, force, cache
        )


def _list(selectors: Selectors) -> Sequence[str]:
    return (selectors,) if isinstance(selectors, str) else tuple(selectors)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def _leave_out(name: str, problem: UserError) -> None:
    warnings.warn(f"{name} is left out: {problem.message}", stacklevel=2)


def _report(progress: bool) -> ProgressReport:
    from .progress import ProgressLine

    return ProgressLine(sys.stderr) if progress else silent
