"""``ue-bench deephiding sheet`` and ``curves``. Everything heavy is imported inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ue_bench.api import ProgressLine, UserError, folder_options

SHOWN = 10  # images a class on a sheet, as in the paper's Figures D to F


@click.command("sheet")
@click.argument("selector")
@click.option("-D", "--dataset", required=True, help="Images that would be protected, one selector.")
@click.option("--size", type=click.IntRange(8, 2048), help="Longer side in pixels; that of the covers by default.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="That of 'run --seeds'.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file NAME.png.")
@folder_options
def sheet(
    selector: str,
    dataset: str,
    size: int | None,
    seed: int,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
) -> None:
    """Draw the images that a protector deephiding would hide.

    A line a class of the dataset, with up to 10 images, at the size at which they are hidden. --size draws the same
    ones anew, with more detail.

    \b
    ue-bench deephiding sheet 'deephiding[mode=sample]' -D cifar10 --out sheet.png
    """
    from ue_bench.api import check_output, open_protector, picture_grid, write_output

    from .protector import DeepHiding

    check_output(out, ".png")
    report = ProgressLine(sys.stderr)
    with open_protector(selector, dataset, seed, data_dir, cache_dir, report) as (protector, data, ctx):
        if not isinstance(protector, DeepHiding):
            raise UserError(f"{protector.selector} hides no images", "give a selector of deephiding")
        hidden = protector
        if hidden.mode == "sample" and hidden.hidden == "procedural":  # each is drawn by itself: spare the others
            hidden = hidden.model_copy(update={"bank_size": min(hidden.bank_size, SHOWN)})
        height, width = data.size
        if size:
            scale = size / max(height, width)
            shape = max(1, round(height * scale)), max(1, round(width * scale))
        else:
            shape = height + height % 2, width + width % 2  # what protect pads to
        bank = hidden.bank(data, shape, ctx)[:, :SHOWN]
    picture = picture_grid(list(bank), data.class_names, [("", bank.shape[1])], "give a smaller --size")
    write_output(out, picture)
    print(out)
    print(
        f"{protector.selector}, seed {seed}: {bank.shape[1]} hidden images a class, {shape[1]} x {shape[0]} pixels",
        file=sys.stderr,
    )


@click.command("curves")
@click.argument("records", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file NAME.png, .pdf or .svg.")
def curves(records: tuple[Path, ...], out: Path) -> None:
    """Plot losses and PSNR over the training of hiding networks.

    RECORDS are the .json files that 'deephiding train' writes beside the weights. Several are drawn over each other,
    one kind of line a record.

    \b
    ue-bench deephiding curves hider.json other.json --out curves.pdf
    """
    from ue_bench.api import check_output, write_output

    from . import curves as plots

    check_output(out, *plots.FORMATS)
    by_label = {name: plots.read_curve(path) for name, path in plots.labels(records).items()}
    write_output(out, plots.plot(by_label, out.suffix[1:].lower()))
    print(out)
    print("losses on validation batches; total is the weighted sum of the others", file=sys.stderr)
