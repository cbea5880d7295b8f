"""``ue-bench deephiding``: training of hiding networks. Everything heavy is imported inside the command."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click

from ue_bench.api import EnvironmentProblem, UserError, open_dataset

from .recipe import Recipe


@click.group("deephiding")
def deephiding() -> None:
    """Train hiding networks for the protector deephiding, and measure the logos they hide."""


@deephiding.command("train")
@click.option("-D", "--dataset", required=True, help="Clean training images, such as 'parquet[path=...]'.")
@click.option("--steps", type=click.IntRange(1), default=Recipe.steps, show_default=True, help="Optimiser steps.")
@click.option("--stop-after", type=click.IntRange(1), help="End at this step, the schedule being that of --steps.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=Recipe.learning_rate,
              show_default="10^-4.5", help="Of Adam.")  # fmt: skip
@click.option("--schedule", type=click.Choice(["constant", "cosine"]), default=Recipe.schedule, show_default=True,
              help="Of the learning rate; cosine falls to a tenth.")  # fmt: skip
@click.option("--size", type=click.IntRange(8), default=Recipe.size, show_default=True, help="Side of crops, even.")
@click.option("--omega-freq", type=click.FloatRange(0), default=Recipe.omega_freq, show_default=True,
              help="Weight of the low-frequency loss.")  # fmt: skip
@click.option("--omega-reveal", type=click.FloatRange(0), default=Recipe.omega_reveal, show_default=True,
              help="Weight of the revealing loss.")  # fmt: skip
@click.option("--omega-conc", type=click.FloatRange(0), default=Recipe.omega_conc, show_default=True,
              help="Weight of latent feature concentration; 0 leaves it out.")  # fmt: skip
@click.option("--per-image", is_flag=True, help="Hold every image to the radius, not the mean of a batch.")
@click.option("--lfc-input", type=click.Choice(["raw", "scaled", "imagenet"]), default=Recipe.lfc_input,
              show_default=True, help="What the extractor sees of a perturbation.")  # fmt: skip
@click.option("--lfc-pairs", type=click.Choice(["ordered", "unordered"]), default=Recipe.lfc_pairs, show_default=True,
              help="Count each pair of a class twice, as printed, or once.")  # fmt: skip
@click.option("--sampler", type=click.Choice(["uniform", "pk"]), default=Recipe.sampler, show_default=True,
              help="pk: classes, and four covers of each.")  # fmt: skip
@click.option("--recompute", is_flag=True, help="Use less memory and more time: for large --size.")
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True,
              help="auto: bf16 on a GPU, fp32 on a CPU.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=Recipe.seed, show_default=True)
@click.option("--device", default="auto", show_default=True, help="Such as cuda:0 or cpu.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file NAME.safetensors.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder where datasets are or will be.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of stored datasets and protected sets.")
def train(
    dataset: str,
    steps: int,
    stop_after: int | None,
    learning_rate: float,
    schedule: Any,
    size: int,
    omega_freq: float,
    omega_reveal: float,
    omega_conc: float,
    per_image: bool,
    lfc_input: Any,
    lfc_pairs: Any,
    sampler: Any,
    recompute: bool,
    precision: str,
    seed: int,
    device: str,
    threads: int,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
) -> None:
    """Train a hiding network, and write its weights and a record beside them.

    Hidden images are procedural, 100 a class. A command that was interrupted continues when it is given again; its
    state is in OUT.unfinished. Defaults are the paper's except for the size.

    \b
    ue-bench deephiding train -D 'parquet[path=tiny-imagenet-100]' --out hider.safetensors
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out} does not end in .safetensors", "its record is written beside it as .json")
    if out.exists():
        raise UserError(f"{out} exists already", "remove it or choose another --out")
    if size % 2:
        raise UserError(f"--size {size} is odd", "the Haar transform needs an even side")
    import torch

    from . import banks, retrain
    from .writing import write_hider

    device = usable_device(device)
    amp = precision == "bf16" or (precision == "auto" and device.startswith("cuda"))
    torch.set_num_threads(threads)
    recipe = Recipe(
        steps=steps,
        stop_after=stop_after,
        learning_rate=learning_rate,
        schedule=schedule,
        size=size,
        omega_freq=omega_freq,
        omega_reveal=omega_reveal,
        omega_conc=omega_conc,
        per_image=per_image,
        lfc_input=lfc_input,
        lfc_pairs=lfc_pairs,
        sampler=sampler,
        recompute=recompute,
        seed=seed,
    )
    report = ProgressLine(sys.stderr)
    selector, data = open_dataset(dataset, "train", data_dir=data_dir, cache_dir=cache_dir, report=report)
    bank = banks.procedural(data.num_classes, retrain.TRAINING_BANK, (size, size), seed)
    checkpoint = out.with_name(out.name + ".unfinished")
    weights, record = retrain.fit(data, bank, recipe, device, amp, checkpoint, report)
    switches = ("stop_after", "omega_freq", "omega_reveal", "omega_conc", "lfc_input", "lfc_pairs", "sampler")
    changed = {n.replace("_", "-"): getattr(recipe, n) for n in switches if getattr(recipe, n) != getattr(Recipe, n)}
    again = {"dataset": selector, "steps": steps, "learning-rate": learning_rate, "schedule": schedule,
             "size": size, **changed, "precision": "bf16" if amp else "fp32", "seed": seed, "device": device,
             "threads": threads, "out": out.name}  # fmt: skip
    flags = ["--per-image"] * per_image + ["--recompute"] * recompute
    command = shlex.join(["ue-bench", "deephiding", "train", *(f"--{k}={v}" for k, v in again.items()), *flags])
    write_hider(out, weights, recipe, {"command": command, **record})
    shutil.rmtree(checkpoint)
    print(out)


def usable_device(name: str) -> str:
    """``name``, or the best there is for ``auto``. Raises EnvironmentProblem when ``name`` does not."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentProblem(f"no device {name!r} here: {reason}", "use --device cpu") from error
    return name


class ProgressLine:
    """What is being done, how far it is and how long it will take.

    A live line on a terminal, elsewhere a line now and then. Call it with the steps done, their total and a text; a
    text is the name of the work, a comma, and whatever else is worth seeing.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self.live = stream.isatty()
        self.interval = 0.2 if self.live else 30.0
        self.work = ""
        self.begun, self.first, self.shown = 0.0, 0.0, 0.0

    def __call__(self, done: float, total: float, text: str) -> None:
        now, work = self.clock(), text.partition(",")[0]
        finished = done >= total
        if work != self.work:
            self.work, self.begun, self.first = work, now, done
        elif not finished and now - self.shown < self.interval:
            return
        self.shown = now
        line = f"{text}, {done:g}/{total:g}"
        if done > self.first and not finished:
            line += f", eta {_clock((now - self.begun) / (done - self.first) * (total - done))}"
        self.stream.write(f"\r{line}\x1b[K" + ("\n" if finished else "") if self.live else f"{line}\n")
        self.stream.flush()


def _clock(seconds: float) -> str:
    """``0:03:10``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
