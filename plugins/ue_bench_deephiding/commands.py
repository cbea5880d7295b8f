"""``ue-bench deephiding``: training of hiding networks. Everything heavy is imported inside the command."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from ue_bench.api import ProgressLine, TrainingOptions, UserError, check_output, training_options

from .recipe import Recipe


@click.group("deephiding")
def deephiding() -> None:
    """Train hiding networks for the protector deephiding, and measure the logos they hide."""


@deephiding.command("train")
@training_options("New file NAME.safetensors.")
@click.option("--hider", type=click.Choice(["hinet", "isgan"]), default=Recipe.hider, show_default=True,
              help="The network; isgan hides luminance only and has losses of its own.")  # fmt: skip
@click.option(
    "--start", type=click.Path(path_type=Path), help="Weights to begin from, NAME.safetensors of this command."
)
@click.option("--steps", type=click.IntRange(1), default=Recipe.steps, show_default=True, help="Optimizer steps.")
@click.option("--stop-after", type=click.IntRange(1), help="End at this step, the schedule being that of --steps.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=Recipe.learning_rate,
              show_default="10^-4.5", help="Of Adam.")  # fmt: skip
@click.option("--schedule", type=click.Choice(["constant", "cosine"]), default=Recipe.schedule, show_default=True,
              help="Of the learning rate; cosine falls to a tenth.")  # fmt: skip
@click.option("--size", type=click.IntRange(8), default=Recipe.size, show_default=True, help="Side of crops, even.")
@click.option("--omega1", type=click.FloatRange(0), default=Recipe.omega_freq, show_default=True,
              help="Weight of the low-frequency loss.")  # fmt: skip
@click.option("--omega2", type=click.FloatRange(0), default=Recipe.omega_reveal, show_default=True,
              help="Weight of the revealing loss.")  # fmt: skip
@click.option("--omega3", type=click.FloatRange(0), default=Recipe.omega_conc, show_default=True,
              help="Weight of latent feature concentration; 0 leaves it out.")  # fmt: skip
@click.option("--hide-only", is_flag=True, help="The hiding loss alone: all three weights 0, which learns nothing.")
@click.option("--per-image", is_flag=True, help="Hold every image to the radius, not the mean of a batch.")
@click.option("--lfc-input", type=click.Choice(["raw", "scaled", "imagenet"]), default=Recipe.lfc_input,
              show_default=True, help="What the extractor sees of a perturbation.")  # fmt: skip
@click.option("--lfc-pairs", type=click.Choice(["ordered", "unordered"]), default=Recipe.lfc_pairs, show_default=True,
              help="Count each pair of a class twice, as printed, or once.")  # fmt: skip
@click.option("--extractor", type=click.Choice(["auto", "own", "imagenet"]), default="auto", show_default=True,
              help="For the concentration loss: torchvision's ImageNet ResNet-18, or one trained on the images; "
                   "auto: the former if its weights are on this machine.")  # fmt: skip
@click.option("--sampler", type=click.Choice(["uniform", "pk"]), default=Recipe.sampler, show_default=True,
              help="pk: classes, and four covers of each.")  # fmt: skip
@click.option("--recompute", is_flag=True, help="Use less memory and more time: for large --size.")
@click.pass_context
def train(
    ctx: click.Context,
    /,
    training: TrainingOptions,
    hider: Any,
    start: Path | None,
    **options: Any,
) -> None:
    """Train a hiding network, and write its weights and a record beside them.

    Hidden images are procedural, 100 a class. A command that was interrupted continues when it is given again; its
    state is in OUT.unfinished. Defaults are the paper's except for the size. Use the weights with
    deephiding[weights=OUT].

    \b
    ue-bench deephiding train -D 'parquet[path=tiny-imagenet-100]' --out hider.safetensors
    """
    check_output(training.out, ".safetensors")
    size = options["size"]
    if size % 2:
        raise UserError(f"--size {size} is odd", "the Haar transform needs an even side")
    given = {n for n in options if ctx.get_parameter_source(n) is click.core.ParameterSource.COMMANDLINE}
    recipe = Recipe(hider=hider, **_choices(hider, options | {"seed": training.seed}, given))
    from . import banks, retrain
    from .writing import write_hider

    training = training.settled()
    report = ProgressLine(sys.stderr)
    selector, data = training.open_dataset(report)
    bank = banks.procedural(data.num_classes, retrain.TRAINING_BANK, (size, size), recipe.seed)
    weights, record = retrain.fit(
        data, bank, recipe, training.device, training.bf16, training.unfinished, report, start
    )
    told = {"steps", "size"} | {f for f in RECIPE_OPTIONS if getattr(recipe, f) != getattr(Recipe, f)}
    if recipe.hider == "hinet" and recipe.omega_conc:
        told.add("extractor")  # whatever auto was here
    chosen = {name: getattr(recipe, f) for f, name in RECIPE_OPTIONS.items() if f in told}
    chosen |= {"start": start.name} if start else {}
    command = training.command("deephiding train", selector, chosen)
    write_hider(training.out, weights, recipe, {"command": command, **record})
    shutil.rmtree(training.unfinished)
    print(training.out)


# The options of ``train`` that are fields of the recipe, by field; ``seed`` is one of every training.
RECIPE_OPTIONS = {
    "hider": "hider",
    "steps": "steps",
    "stop_after": "stop-after",
    "learning_rate": "learning-rate",
    "schedule": "schedule",
    "size": "size",
    "omega_freq": "omega1",
    "omega_reveal": "omega2",
    "omega_conc": "omega3",
    "per_image": "per-image",
    "lfc_input": "lfc-input",
    "lfc_pairs": "lfc-pairs",
    "extractor": "extractor",
    "sampler": "sampler",
    "recompute": "recompute",
}
OF_EVERY_HIDER = {"steps", "stop_after", "size", "seed"}
OF_CONCENTRATION = {"lfc_input", "lfc_pairs", "extractor"}


def _choices(hider: str, options: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Return fields of the recipe from the command's options; ``given`` are those that the user wrote.

    Raises UserError for one that would be ignored.
    """
    weights = {"omega1", "omega2", "omega3"}
    without = OF_CONCENTRATION if options["hide_only"] or options["omega3"] == 0 else set()
    for odd, where in [
        (given - OF_EVERY_HIDER if hider == "isgan" else set(), "--hider isgan"),
        (given & weights if options["hide_only"] else set(), "--hide-only"),
        (given & without, "no latent feature concentration"),
    ]:
        if odd:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(odd))
            raise UserError(f"{names} would do nothing with {where}", "leave it out")
    if hider == "isgan":
        return {name: options[name] for name in OF_EVERY_HIDER}
    values = {f: options[name.replace("-", "_")] for f, name in RECIPE_OPTIONS.items() if f != "hider"}
    values["seed"] = options["seed"]
    if options["hide_only"]:
        values |= {"omega_freq": 0.0, "omega_reveal": 0.0, "omega_conc": 0.0}
    if values["extractor"] == "auto":
        from .extractor import imagenet_file

        wanted = values["omega_conc"] and imagenet_file().exists()
        values["extractor"] = "imagenet" if wanted else "own"
    return values
