"""``ue-bench raeg``: training of generators. Everything heavy is imported inside the command."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import click

from ue_bench.api import ProgressLine, TrainingOptions, UserError, check_output, training_options


@click.group("raeg")
def raeg() -> None:
    """Train generators for the protector raeg."""


@raeg.command("train")
@training_options("New file NAME.safetensors.")
@click.option("-P", "--protector", default="raeg[preset=paper]", show_default=True,
              help="The settings, such as 'raeg[preset=micro]'; 'ue-bench show raeg' has them all.")  # fmt: skip
def train(training: TrainingOptions, protector: str) -> None:
    """Train a generator, and write its weights and a record beside them.

    First the classifiers that it is to mislead, then the generator. A command that was interrupted continues when it is
    given again; its state is in OUT.unfinished. Use the weights with raeg[weights=OUT]; they are the key that recovers
    images, so keep them.

    \b
    ue-bench raeg train -D cifar10 -P 'raeg[preset=micro]' --out raeg.safetensors
    """
    from ue_bench.api import open_protector

    check_output(training.out, ".safetensors")
    training = training.settled()
    report = ProgressLine(sys.stderr)
    selector, _ = training.open_dataset(report)
    folders = training.data_dir, training.cache_dir
    with open_protector(protector, training.dataset, training.seed, *folders, report) as (method, data, ctx):
        from .protector import Raeg

        if not isinstance(method, Raeg) or method.file is not None:
            raise UserError(f"{protector!r} is no raeg to train", "write raeg[preset=micro], or preset=paper")
        from .fit import fit
        from .keys import write_generator

        ctx = replace(ctx, device=training.device, precision="bf16" if training.bf16 else "fp32")
        weights, recipe, record = fit(method, data, ctx, training.unfinished)
    command = training.command("raeg train", selector, {"protector": method.selector})
    write_generator(training.out, weights, recipe.network, {"command": command, **record})
    shutil.rmtree(training.unfinished)
    print(training.out)
