"""``ue-bench detect``: whether a set shows itself as protected. What is heavy is imported inside the command."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

from ue_bench.api import ProgressLine, UserError, device_option, folder_options, usable_device

BOUND = 70.0  # percent, of the paper


@click.command("detect")
@click.option("-D", "--dataset", required=True, help="Training images, such as 'cifar10' or 'imagefolder[path=...]'.")
@click.option("-P", "--protector", default="none", show_default=True, help="Protects them first.")
@click.option("--network", type=click.Choice(["linear", "mlp"]), default="linear", show_default=True,
              help="Classifier of pixels: one layer, or one hidden layer of --width units on crops.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Passes over four fifths; 100 by default, 200 at a hundred "
              "classes and more.")  # fmt: skip
@click.option("--width", type=click.IntRange(1), default=3072, show_default=True, help="Units of mlp.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of everything random.")
@device_option
@folder_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def detect(
    dataset: str, protector: str, network: str, epochs: int | None, width: int, seed: int, device: str,
    data_dir: Path | None, cache_dir: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Say whether a classifier of bare pixels can tell the classes of a set, as it can of many protected ones.

    Four fifths of the images train it, the accuracy on the last fifth is printed; above 70 % the set is called
    protected (Detection and Defense of Unlearnable Examples, AAAI 2024). On natural images it is far lower.

    \b
    ue-bench detect -D 'cifar10[limit_per_class=1000]' -P lsp --epochs 20
    """
    from ue_bench.api import open_protector

    from .detection import detected, passes

    if network == "linear" and width != 3072:
        raise UserError("--width is for --network mlp", "leave it out")
    device, report = usable_device(device), ProgressLine(sys.stderr)
    with open_protector(protector, dataset, seed, data_dir, cache_dir, report) as (method, data, ctx):
        protected = method.protect(data, ctx)
        epochs = epochs or passes(protected.num_classes)
        with tempfile.TemporaryDirectory(dir=ctx.scratch) as folder:
            accuracy, held = detected(protected, network, epochs, width, seed, device, Path(folder), report)
        name = method.selector
    found = {
        "dataset": dataset, "protector": name, "network": network, "epochs": epochs, "accuracy": round(accuracy, 2),
        "held_out": held,
        "bound": BOUND, "protected": accuracy > BOUND,
    }  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        verdict = "protected" if accuracy > BOUND else "not detected"
        print(
            f"{verdict}: {network} classifier of pixels has {accuracy:.1f} % on {held:,} held-out images "
            f"(bound {BOUND:.0f} %)"
        )
