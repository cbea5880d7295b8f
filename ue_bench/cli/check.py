"""``ue-bench check``: try plugins out, and report what they do and cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import (
    Finite,
    cache_option,
    data_dir_option,
    dataset_option,
    devices_option,
    jobs_option,
    json_option,
    loading,
    print_json,
    say,
    threads_option,
)

if TYPE_CHECKING:
    from ..testing.checking import Checked

COLOURS = {"ok": "green", "note": None, "fail": "red"}


@click.command("check")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@dataset_option
@click.option("--board", "board_name", default="demo", show_default=True,
              help="The board, or TOML file, whose dataset and victim are used.")  # fmt: skip
@click.option(
    "--images", type=click.IntRange(1), default=200, show_default=True, help="Training images to try plugins on."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of plugins and of the choice of images."
)
@click.option("--seconds", type=Finite(1), default=100, show_default=True, help="Time for each plugin: what "
              "runs longer is stopped, what is left is not tried.")  # fmt: skip
@click.option("--train", is_flag=True, help="Also train the board's victim, with each plugin and without.")
@devices_option
@jobs_option
@threads_option
@click.option("--out", type=click.Path(path_type=Path), help="Results folder of --train; ue-bench-results/BOARD by "
              "default.")  # fmt: skip
@data_dir_option
@cache_option
@json_option
def command(
    names: tuple[str, ...],
    images: int,
    seed: int,
    seconds: float,
    train: bool,
    jobs: int | None,
    as_json: bool,
    board_name: str,
    **options: Any,
) -> int:
    """Try protectors, countermeasures and victims on some images, and datasets: do they keep the rules?

    A line a finding; exit code 4 when one of them fails. Times are measured on this machine.

    \b
    ue-bench check 'jpeg[quality=10]' 'gray+jpeg[quality=10]' --train
    """
    from ..grid.grid import Request
    from ..grid.progress import Progress
    from ..testing.checking import Check

    check = Check(names, Request(board=board_name, **options), loading(), seconds)
    check.rules(images, seed)
    failed = check.train(jobs, Progress) if train else False
    for what, error in check.problems:
        say(f"ue-bench: {what}: {error}")
    findings = [finding for checked in check.checked for finding in checked.findings]
    if as_json:
        print_json(_plain(check.checked))
    else:
        _print(check.checked)
    broken = sum(f.state == "fail" for f in findings)
    say(f"ue-bench: {sum(f.state != 'note' for f in findings)} checks, {broken} failed")
    codes = [error.exit_code for _, error in check.problems]
    return 4 if broken else max([*codes, 1 if failed else 0])


def _plain(checked: list[Checked]) -> list[dict[str, Any]]:
    return [
        {"selector": one.plugin.selector, "kind": one.plugin.kind, **asdict(finding)}
        for one in checked
        for finding in one.findings
    ]


def _print(checked: list[Checked]) -> None:
    for number, one in enumerate(checked):
        click.echo(("\n" if number else "") + f"{one.plugin.selector} ({one.plugin.kind})")
        for finding in one.findings:
            click.echo("  " + click.style(str(finding), fg=COLOURS[finding.state]))
