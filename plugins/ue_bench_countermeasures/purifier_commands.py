"""``ue-bench purifier``: training of diffusion models. Everything heavy is imported inside the command."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ue_bench.api import EnvironmentProblem, ProgressLine, TrainingOptions, UserError, training_options

from .diffusion.recipe import PRESETS, Recipe

if TYPE_CHECKING:
    from ue_bench.api import ImageSet


@click.group("purifier")
def purifier() -> None:
    """Train or import networks of purifiers: diffusion models for diffpure, avatar, le-jcdp, eclipse; comdefend's."""


@purifier.command("train")
@training_options("New folder.")
@click.option("--leave-out", type=click.IntRange(1), help="Leave out the first so many images of every class.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="ddpm", show_default=True,
              help="Network and training: of DDPM or ECLIPSE for CIFAR-10, or for two CPU cores.")  # fmt: skip
@click.option("--size", type=click.IntRange(8), help="Side in pixels, 32 by default; images are resized to it.")
@click.option("--steps", type=click.IntRange(1), help="Of the optimizer.")
@click.option("--batch", type=click.IntRange(1), help="Images a step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Of Adam.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), help="Decay of the average of the weights.")
@click.option("--timesteps", type=click.IntRange(2), help="Noise levels.")
@click.option("--schedule", type=click.Choice(["linear", "cosine"]), help="Of the noise.")
@click.option(
    "--deepest", type=click.IntRange(1), help="Train so many noise levels, the lowest; a purifier adds no more."
)
def train(training: TrainingOptions, leave_out: int | None, preset: str, **options: Any) -> None:
    """Train a diffusion model on clean images, and write it as a folder that diffusers reads, with a record.

    What is not given is the preset's. A command that was interrupted continues when it is given again; its state is in
    OUT.unfinished. Use the model with avatar[model=OUT], for example.

    \b
    ue-bench purifier train -D cifar10 --preset micro --leave-out 1000 --out purifier
    """
    given = {name: value for name, value in options.items() if value is not None}
    recipe = replace(Recipe(**PRESETS[preset]), seed=training.seed, **given)
    if recipe.deepest and recipe.deepest > recipe.timesteps:
        raise UserError(f"--deepest {recipe.deepest} is more than {recipe.timesteps} noise levels", "give fewer")
    if recipe.size % recipe.multiple:
        raise UserError(f"--size {recipe.size} does not suit the network", f"it needs a multiple of {recipe.multiple}")
    _claim(training)
    from .diffusion.training import fit

    training = training.settled()
    report = ProgressLine(sys.stderr)
    selector, data = training.open_dataset(report)
    if leave_out:
        data = without_first(data, leave_out)
    record = {"command": training.command("purifier train", selector, written(leave_out, preset, given))}
    model_folder = training.unfinished / "model"
    shutil.rmtree(model_folder, ignore_errors=True)
    fit(data, recipe, training.device, training.bf16, training.unfinished, model_folder, report, record)
    model_folder.rename(training.out)
    shutil.rmtree(training.unfinished)
    print(training.out)


def written(leave_out: int | None, preset: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a purifier's training as its recorded command has them; ``given`` beside the preset."""
    chosen: dict[str, Any] = {"leave-out": leave_out} if leave_out else {}
    return chosen | {"preset": preset} | {name.replace("_", "-"): value for name, value in given.items()}


def _claim(training: TrainingOptions) -> None:
    """Make the folder of the unfinished training.

    Raises UserError when ``--out`` exists, EnvironmentProblem when it cannot be written.
    """
    out = training.out
    if out.exists():
        raise UserError(f"{out} exists already", "remove it or choose another --out")
    try:
        training.unfinished.mkdir(exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {out}: {error.strerror}", "choose another --out") from error


def without_first(data: ImageSet, count: int) -> ImageSet:
    """Return ``data`` without each class's first ``count`` images: those that ``limit_per_class`` keeps elsewhere.

    Raises UserError when nothing is left.
    """
    import numpy as np

    by_class = np.argsort(data.labels, kind="stable")
    grouped = data.labels[by_class]
    rank = np.arange(len(grouped)) - np.searchsorted(grouped, grouped)
    rows = np.sort(by_class[rank >= count])
    if not len(rows):
        raise UserError(f"no class has more than {count} images", "leave out fewer")
    return replace(data, images=data.images[rows], labels=data.labels[rows])
