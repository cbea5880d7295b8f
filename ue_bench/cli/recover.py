"""``ue-bench recover``: the clean images again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import cache_option, json_option, print_json, say
from .protect import name_failed, name_ignored

if TYPE_CHECKING:
    from ..owner.recovering import Outcome


@click.command("recover")
@click.argument("key", metavar="KEY", type=click.Path(path_type=Path))
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--modified", is_flag=True, help="Also images that are not as they were written; unchecked.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.option("--device", help="Such as cuda:0 or cpu; that of protection by default.")
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
        found = recovering.recover(key.expanduser(), source, out, device, report, modified, force, cache_dir)
    if found.remark:
        say(f"ue-bench: {found.remark}")
    if as_json:
        print_json(asdict(found))
    else:
        print(_text(found, out))
    name_failed(found.failed, found.images, "recovered")
    name_ignored(found.ignored)
    return 1 if found.failed else 0


def _text(found: Outcome, out: Path) -> str:
    kinds = [(found.exact, "exactly"), (found.near, "as well as they can be"), (found.changed, "from changed images")]
    shown = ", ".join(f"{len(names):,} {how}" for names, how in kinds if names)
    done = len(found.exact) + len(found.near) + len(found.changed)
    return f"{out}: {done:,} images recovered{': ' + shown if shown else ''}"
