"""Deep Hiding: semantic images hidden in the images to protect, by an invertible network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ue_bench.api import Register, hookimpl

if TYPE_CHECKING:
    import click

TABLES = [
    ("table1", "main:table_1", "Deep Hiding, Table 1: accuracy under every countermeasure, on three datasets"),
    ("table2", "main:table_2", "Deep Hiding, Table 2: accuracy of plain training, by architecture"),
    ("table3", "main:table_3", "Deep Hiding, Table 3: accuracy by the share of images that are protected"),
    ("table4", "main:table_4", "Deep Hiding, Table 4: concentration loss, prompt clustering, diffusion with edges"),
    ("tableA", "appendix:table_a", "Deep Hiding, Table A: weight of the low-frequency loss"),
    ("tableB", "appendix:table_b", "Deep Hiding, Table B: weight of the revealing loss"),
    ("tableC", "appendix:table_c", "Deep Hiding, Table C: weight of the concentration loss"),
    ("tableD", "appendix:table_d", "Deep Hiding, Table D: hidden images"),
    ("tableE", "appendix:table_e", "Deep Hiding, Table E: accuracy under every countermeasure, by architecture"),
    ("tableF", "appendix:table_f", "Deep Hiding, Table F: accuracy by architecture and the share that is protected"),
    ("tableG", "appendix:table_g", "Deep Hiding, Table G: accuracy by the share that is protected, up to all images"),
    ("tableH", "appendix:table_h", "Deep Hiding, Table H: ISGAN as the hiding network"),
    ("tableI", "appendix:table_i", "Deep Hiding, Table I: quality of JPEG"),
    ("tableJ", "appendix:table_j", "Deep Hiding, Table J: cosines of features within a class, and of classes"),
    ("tableK", "appendix:table_k", "Deep Hiding, Table K: losses of the hiding network"),
]


@hookimpl
def ue_bench_register(register: Register) -> None:
    register(
        "protector",
        "deephiding",
        "ue_bench_deephiding.protector:DeepHiding",
        "Semantic images hidden by an invertible network",
        tags=("semantic", "surrogate-free"),
    )
    for name, target, summary in TABLES:
        register.table(name, f"ue_bench_deephiding.tables.{target}", summary)


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
