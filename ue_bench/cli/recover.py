"""``ue-bench recover``: bring the clean images back."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import cache_option, json_option, print_json, say
from .protect import name_failed, name_ignored

if TYPE_CHECKING:
    from ..owner.recovering import RecoveryOutcome


@click.command("recover")
@click.argument("key", metavar="KEY", type=click.Path(path_type=Path))
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--modified", is_flag=True, help="Also recover images that were changed since; unchecked.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.option("--device", help="Device to compute on, such as cuda:0; that of protection by default.")
@cache_option
@json_option
def command(
    key: Path, source: Path, out: Path, modified: bool, force: bool, device: str | None, cache_dir: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Recover the images behind protected ones.

    KEY is the file that 'ue-bench protect' wrote beside them, IN a folder of protected images or one of them, OUT a
    folder for the clean ones. Images are known by their pixels, so that files may have other names. A key that knows
    none of the images writes nothing.

    Interrupted, the command continues when it is given again. Images that are not recovered are named, and the exit
    code is then 1.

    \b
    ue-bench recover protected.key.safetensors protected recovered
    """
    from ..owner import files, recovering
    from ..progress import ProgressLine

    source, out = source.expanduser(), Path(out.expanduser().absolute())
    report = ProgressLine(sys.stderr)
    with files.alone(out, cache_dir):
        outcome = recovering.recover(key.expanduser(), source, out, device, report, modified, force, cache_dir)
    if outcome.remark:
        say(f"ue-bench: {outcome.remark}")
    if as_json:
        print_json(asdict(outcome))
    else:
        print(_text(outcome, out))
    name_failed(outcome.failed, outcome.images, "recovered")
    name_ignored(outcome.ignored)
    return 1 if outcome.failed else 0


def _text(outcome: RecoveryOutcome, out: Path) -> str:
    kinds = [
        (outcome.exact, "exactly"),
        (outcome.near, "as well as they can be"),
        (outcome.changed, "from changed images"),
    ]
    shown = ", ".join(f"{len(names):,} {how}" for names, how in kinds if names)
    done = len(outcome.exact) + len(outcome.near) + len(outcome.changed)
    return f"{out}: {done:,} images recovered{': ' + shown if shown else ''}"
