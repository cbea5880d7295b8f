"""``ue-bench purifier comdefend``: training of ComDefend's networks. What is heavy is imported inside the command."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from ue_bench.api import ProgressLine, TrainingOptions, check_output, training_options

from .comdefend_presets import PRESETS
from .purifier_commands import without_first, written


@click.command("comdefend")
@training_options("New file NAME.safetensors.", precision=False)
@click.option("--leave-out", type=click.IntRange(1), help="Leave out the first so many images of every class.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True,
              help="Networks and training: the paper's, or for two CPU cores.")  # fmt: skip
@click.option("--divisor", type=click.IntRange(1, 16), help="Of the paper's numbers of channels.")
@click.option("--steps", type=click.IntRange(1), help="Of the optimizer.")
@click.option("--batch", type=click.IntRange(1), help="Images a step.")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), help="Of Adam.")
def comdefend(training: TrainingOptions, leave_out: int | None, preset: str, **options: Any) -> None:
    """Train the networks of ComDefend on clean images; the file records how.

    What is not given is the preset's. A command that was interrupted continues when it is given again; its state is in
    OUT.unfinished. Use the networks with comdefend[weights=OUT].

    \b
    ue-bench purifier comdefend -D cifar10 --preset micro --leave-out 1000 --out comdefend.safetensors
    """
    check_output(training.out, ".safetensors")
    given = {name: value for name, value in options.items() if value is not None}
    from .comdefend_training import ComDefendRecipe, fit, write

    recipe = ComDefendRecipe(**(PRESETS[preset] | given), seed=training.seed)
    training = training.settled()
    report = ProgressLine(sys.stderr)
    selector, data = training.open_dataset(report)
    if leave_out:
        data = without_first(data, leave_out)
    command = training.command("purifier comdefend", selector, written(leave_out, preset, given))
    training.unfinished.mkdir(exist_ok=True)
    network = fit(data, recipe, training.device, training.unfinished, report)
    write(training.out, network, {"command": command, "data": data.fingerprint, "images": len(data)})
    shutil.rmtree(training.unfinished)
    print(training.out)
