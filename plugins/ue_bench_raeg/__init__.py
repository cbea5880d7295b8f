"""RAEG and the reversible protectors it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ue_bench.api import Register, hookimpl

if TYPE_CHECKING:
    import click

TABLES = [
    ("raeg-table1", "table_1", "RAEG, Table 1: accuracy on protected test images, as they are and processed"),
    ("raeg-table2", "table_2", "RAEG, Table 2: accuracy, PSNR and SSIM of protected and of recovered images"),
    ("raeg-table3", "table_3", "RAEG, Table 3: accuracy of training on protected and on recovered images"),
    ("raeg-table4", "table_4", "RAEG, Table 4: parts of the method left out"),
]


@hookimpl
def ue_bench_register(register: Register) -> None:
    register(
        "protector",
        "raeg",
        "ue_bench_raeg.protector:Raeg",
        "Adversarial examples from an invertible generator",
        tags=("reversible", "surrogate"),
    )
    register(
        "protector",
        "rae-igsm",
        "ue_bench_raeg.rae:RaeIgsm",
        "Signed-gradient examples that hide their perturbation",
        tags=("reversible", "surrogate"),
    )
    register(
        "protector",
        "rae-cw",
        "ue_bench_raeg.rae:RaeCw",
        "Carlini-Wagner examples that hide their perturbation",
        tags=("reversible", "surrogate"),
    )
    register(
        "protector",
        "rit-igsm",
        "ue_bench_raeg.rae:RitIgsm",
        "The image's own blocks, moved to look adversarial",
        tags=("reversible", "surrogate"),
    )
    register(
        "protector",
        "recovered",
        "ue_bench_raeg.recovered:Recovered",
        "What another protector brings back",
    )
    for name, target, summary in TABLES:
        register.table(name, f"ue_bench_raeg.tables.paper:{target}", summary)


@hookimpl
def ue_bench_commands(group: click.Group) -> None:
    from .commands import raeg

    group.add_command(raeg)
