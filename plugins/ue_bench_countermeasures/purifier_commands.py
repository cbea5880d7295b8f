"""``ue-bench purifier``: training of diffusion models. Everything heavy is imported inside the command."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ue_bench.api import EnvironmentProblem, ImageSet, ProgressLine, UserError, open_dataset, usable_device

from .diffusion.recipe import PRESETS, Recipe


@click.group("purifier")
def purifier() -> None:
    """Train the networks of purifiers: diffusion models for diffpure, avatar, le-jcdp and eclipse, and comdefend's."""


@purifier.command("train")
@click.option("-D", "--dataset", required=True, help="Clean training images, such as 'cifar10' or 'parquet[path=...]'.")
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
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True,
              help="auto: bf16 on a GPU, fp32 on a CPU.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="Such as cuda:0 or cpu.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder where datasets are or will be.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of stored datasets and protected sets.")
def train(
    dataset: str,
    leave_out: int | None,
    preset: str,
    precision: str,
    seed: int,
    device: str,
    threads: int,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
    **options: Any,
) -> None:
    """Train a diffusion model on clean images, and write it as a folder that diffusers reads, with a record.

    What is not given is the preset's. A command that was interrupted continues when it is given again; its state is in
    OUT.unfinished. Use the model with avatar[model=OUT], for example.

    \b
    ue-bench purifier train -D cifar10 --preset micro --leave-out 1000 --out purifier
    """
    given = {name: value for name, value in options.items() if value is not None}
    recipe = replace(Recipe(**PRESETS[preset]), seed=seed, **given)
    if recipe.deepest and recipe.deepest > recipe.timesteps:
        raise UserError(f"--deepest {recipe.deepest} is more than {recipe.timesteps} noise levels", "give fewer")
    if recipe.size % recipe.multiple:
        raise UserError(f"--size {recipe.size} does not suit the network", f"it needs a multiple of {recipe.multiple}")
    unfinished = _claim(out)
    import torch

    from .diffusion import training

    device = usable_device(device)
    amp = precision == "bf16" or (precision == "auto" and device.startswith("cuda"))
    torch.set_num_threads(threads)
    report = ProgressLine(sys.stderr)
    selector, data = open_dataset(dataset, "train", data_dir=data_dir, cache_dir=cache_dir, report=report)
    again: dict[str, Any] = {"dataset": selector}
    if leave_out:
        data = without_first(data, leave_out)
        again["leave-out"] = leave_out
    again |= {"preset": preset} | {name.replace("_", "-"): value for name, value in given.items()} | {"seed": seed}
    again |= {"precision": "bf16" if amp else "fp32", "device": device, "threads": threads, "out": out.name}
    command = shlex.join(["ue-bench", "purifier", "train", *(f"--{k}={v}" for k, v in again.items())])
    made = unfinished / "model"
    shutil.rmtree(made, ignore_errors=True)
    training.fit(data, recipe, device, amp, unfinished, made, report, {"command": command})
    made.rename(out)
    shutil.rmtree(unfinished)
    print(out)


def _claim(out: Path) -> Path:
    """The folder of the unfinished training of ``out``.

    Raises UserError when ``out`` exists, EnvironmentProblem when it cannot be written.
    """
    if out.exists():
        raise UserError(f"{out} exists already", "remove it or choose another --out")
    unfinished = out.with_name(out.name + ".unfinished")
    try:
        unfinished.mkdir(exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {out}: {error.strerror}", "choose another --out") from error
    return unfinished


def without_first(data: ImageSet, count: int) -> ImageSet:
    """``data`` without the first ``count`` images of every class: those that ``limit_per_class`` keeps elsewhere.

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
