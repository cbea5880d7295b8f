"""``ue-bench audit``: compare protected images with the clean ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import cache_option, data_dir_option, json_option, print_json

if TYPE_CHECKING:
    from ..owner.pairs import Pairs


@click.command("audit")
@click.argument("clean")
@click.argument("protected", type=click.Path(path_type=Path))
@click.option(
    "--budget", "budgets", multiple=True, help="A budget to hold the images to, such as 'linf 8/255'; repeatable."
)
@click.option(
    "--labels", type=click.Path(path_type=Path), help="File of labels of a CLEAN folder without class folders."
)
@data_dir_option
@cache_option
@json_option
def command(
    clean: str,
    protected: Path,
    budgets: tuple[str, ...],
    labels: Path | None,
    data_dir: Path | None,
    cache_dir: Path | None,
    as_json: bool,
) -> int:
    """Measure what protection changed, and look for what should not have happened.

    CLEAN and PROTECTED are folders of images, paired by their names; or .npz, .npy or .safetensors files or a folder of
    numbered PNG files, paired by position. CLEAN may be a dataset such as cifar10, whose training images are meant.

    Exit code 4 when a budget is broken, or the two do not belong together.

    \b
    ue-bench audit photos protected --budget 'linf 8/255'
    """
    from ..contract.bounds import read_bound
    from ..owner.audit import Audit, text
    from ..progress import ProgressLine

    audit = Audit(map(read_bound, budgets))
    pairs = _pairs(clean, protected, labels, data_dir, cache_dir)
    progress, done = ProgressLine(sys.stderr), 0
    for batch in pairs.batches:
        audit.take(batch)
        done += len(batch.names)
        progress(done, pairs.count, "audit")
    report = audit.report(pairs.labels, pairs.problems)
    print_json(report.plain()) if as_json else print(text(report))
    return 0 if report.passed else 4


def _pairs(clean: str, protected: Path, labels: Path | None, data_dir: Path | None, cache_dir: Path | None) -> Pairs:
    from ..errors import UserError
    from ..grid.opening import open_dataset
    from ..owner import pairs
    from ..store.image_readers import Stored, open_stored

    path, protected = Path(clean).expanduser(), protected.expanduser()
    if not protected.exists():
        raise UserError(f"no file or folder at {protected}", "check the path")
    if path.is_dir() and protected.is_dir():
        return pairs.of_folders(path, protected, labels)
    if labels is not None:
        raise UserError("--labels is for folders", "leave it out")
    if path.exists():
        before = open_stored(path)
        return pairs.of_arrays(before, open_stored(protected, (before.shape[1], before.shape[2])))
    try:
        _, data = open_dataset(clean, "train", data_dir, cache_dir)
    except UserError as error:
        if not error.message.startswith("no dataset "):
            raise
        raise UserError(f"no file or folder at {clean}, and no dataset of that name", "check the path") from error
    before = Stored(data.images.shape, lambda where: data.images[where], data.labels)
    return pairs.of_arrays(before, open_stored(protected, data.size), data.class_names)
