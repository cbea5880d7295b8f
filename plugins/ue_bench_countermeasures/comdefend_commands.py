"""``ue-bench purifier comdefend``: training of ComDefend's networks. What is heavy is imported inside the command."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from ue_bench.api import ProgressLine, check_output, open_dataset, usable_device

from .comdefend import ComDefend
from .purifier_commands import without_first


@click.command("comdefend")
@click.option("-D", "--dataset", required=True, help="Clean training images, such as 'cifar10' or 'parquet[path=...]'.")
@click.option("--leave-out", type=click.IntRange(1), help="Leave out the first so many images of every class.")
@click.option("--preset", type=click.Choice(list(ComDefend.PRESETS)), default="paper", show_default=True,
              help="Networks and training: the paper's, or for two CPU cores.")  # fmt: skip
@click.option("--divisor", type=click.IntRange(1, 16), help="Of the paper's numbers of channels.")
@click.option("--steps", type=click.IntRange(1), help="Of the optimizer.")
@click.option("--batch", type=click.IntRange(1), help="Images a step.")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), help="Of Adam.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="Such as cuda:0 or cpu.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file NAME.safetensors.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder where datasets are or will be.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of stored datasets and protected sets.")
def comdefend(
    dataset: str,
    leave_out: int | None,
    preset: str,
    seed: int,
    device: str,
    threads: int,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
    **options: Any,
) -> None:
    """Train the networks of ComDefend on clean images; the file records how.

    What is not given is the preset's. A command that was interrupted continues when it is given again; its state is in
    OUT.unfinished. Use the networks with comdefend[weights=OUT].

    \b
    ue-bench purifier comdefend -D cifar10 --preset micro --leave-out 1000 --out comdefend.safetensors
    """
    check_output(out, ".safetensors")
    given = {name: value for name, value in options.items() if value is not None}
    import torch

    from .comdefend_training import Recipe, fit, write

    recipe = Recipe(**(ComDefend.PRESETS[preset] | given), seed=seed)
    device = usable_device(device)
    torch.set_num_threads(threads)
    report = ProgressLine(sys.stderr)
    selector, data = open_dataset(dataset, "train", data_dir=data_dir, cache_dir=cache_dir, report=report)
    again: dict[str, Any] = {"dataset": selector}
    if leave_out:
        data = without_first(data, leave_out)
        again["leave-out"] = leave_out
    again |= {"preset": preset} | {name.replace("_", "-"): value for name, value in given.items()}
    again |= {"seed": seed, "device": device, "threads": threads, "out": out.name}
    command = shlex.join(["ue-bench", "purifier", "comdefend", *(f"--{k}={v}" for k, v in again.items())])
    checkpoint = out.with_name(out.name + ".unfinished")
    checkpoint.mkdir(exist_ok=True)
    network = fit(data, recipe, device, checkpoint, report)
    write(out, network, {"command": command, "data": data.fingerprint, "images": len(data)})
    shutil.rmtree(checkpoint)
    print(out)
