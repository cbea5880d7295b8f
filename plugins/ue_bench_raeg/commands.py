"""``ue-bench raeg``: training of generators. Everything heavy is imported inside the command."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click

from ue_bench.api import ProgressLine, UserError, check_output, open_dataset, open_protector, usable_device


@click.group("raeg")
def raeg() -> None:
    """Train generators for the protector raeg."""


@raeg.command("train")
@click.option("-D", "--dataset", required=True, help="Clean training images, such as cifar10.")
@click.option("-P", "--protector", default="raeg", show_default=True,
              help="The settings, such as 'raeg[preset=micro]'; 'ue-bench show raeg' has them all.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True,
              help="auto: bf16 on a GPU, fp32 on a CPU.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="Such as cuda:0 or cpu.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file NAME.safetensors.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder where datasets are or will be.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of stored datasets and classifiers.")
def train(
    dataset: str,
    protector: str,
    precision: str,
    seed: int,
    device: str,
    threads: int,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
) -> None:
    """Train a generator, and write its weights and a record beside them.

    First the classifiers that it is to mislead, then the generator. A command that was interrupted continues when it is
    given again; its state is in OUT.unfinished. Use the weights with raeg[weights=OUT]; they are the key that recovers
    images, so keep them.

    \b
    ue-bench raeg train -D cifar10 -P 'raeg[preset=micro]' --out raeg.safetensors
    """
    check_output(out, ".safetensors")
    device = usable_device(device)
    bf16 = precision == "bf16" or (precision == "auto" and device.startswith("cuda"))
    report = ProgressLine(sys.stderr)
    selector, _ = open_dataset(dataset, "train", data_dir, cache_dir, report)
    with open_protector(protector, dataset, seed, data_dir, cache_dir, report) as (found, data, ctx):
        from .protector import Raeg

        if not isinstance(found, Raeg) or found.weights is not None:
            raise UserError(f"{protector!r} is no raeg to train", "write raeg[...] without weights")
        import torch

        from .fit import fit
        from .keys import write_generator

        torch.set_num_threads(threads)
        ctx = replace(ctx, device=device, precision="bf16" if bf16 else "fp32")
        checkpoint = out.with_name(out.name + ".unfinished")
        weights, recipe, record = fit(found, data, ctx, checkpoint)
    again = {
        "dataset": selector, "protector": found.selector, "precision": ctx.precision, "seed": seed,
        "device": device, "threads": threads, "out": out.name,
    }  # fmt: skip
    command = shlex.join(["ue-bench", "raeg", "train", *(f"--{name}={value}" for name, value in again.items())])
    write_generator(out, weights, recipe.network, {"command": command, **record})
    shutil.rmtree(checkpoint)
    print(out)
