"""Deep Hiding: semantic images hidden in the images to protect, by an invertible network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ue_bench.api import Register, hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def ue_bench_register(register: Register) -> None:
    register(
        "protector",
        "deephiding",
        "ue_bench_deephiding.protector:DeepHiding",
        "Semantic images hidden by an invertible network",
        tags=("semantic", "surrogate-free"),
    )


@hookimpl
def ue_bench_commands(group: click.Group) -> None:
    from .commands import deephiding
    from .figure_commands import curves, sheet
    from .prompt_commands import images, prompts
    from .reveal_commands import logos, reveal

    for command in (logos, prompts, images, sheet, curves):
        deephiding.add_command(command)
    group.add_command(deephiding)
    group.add_command(reveal)
