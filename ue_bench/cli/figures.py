"""``ue-bench figures``: the group of its commands, and ``perturbations``."""

from __future__ import annotations

from pathlib import Path

import click

from .common import (
    cache_option,
    data_dir_option,
    dataset_option,
    devices_option,
    jobs_option,
    leave_out,
    loading,
    say,
    threads_option,
)
from .figures_networks import distances, gradcam, processed, tsne
from .figures_results import board, curves


@click.group("figures")
def command() -> None:
    """Draw protected images, what networks make of them, learning curves and boards."""


for figure in (board, curves, gradcam, tsne, distances, processed):
    command.add_command(figure)


@command.command("perturbations")
@click.option("-P", "--protector", "protectors", multiple=True,
              help="Selectors of protectors, one a column; all rows of the board by default.")  # fmt: skip
@dataset_option
@click.option(
    "--board",
    "board_name",
    default="demo",
    show_default=True,
    help="The board, or TOML file, that defaults are taken from.",
)
@click.option("--images", type=click.IntRange(1), default=6, show_default=True, help="Training images, a row each.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of protection and of the choice of images.",
)
@devices_option
@jobs_option
@threads_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write: NAME.png or .svg.")
@data_dir_option
@cache_option
def perturbations(
    protectors: tuple[str, ...],
    dataset: str | None,
    board_name: str,
    images: int,
    seed: int,
    devices: str,
    jobs: int | None,
    threads: int,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
) -> int:
    """Draw training images, protected ones, and what changed in them.

    A row an image, chosen at random and evenly over classes: clean, then for each protector the protected image, and
    to its right the map of its perturbation, stretched to the full range. Sets that are missing are made and kept.

    \b
    ue-bench figures perturbations -P 'lsp,ar,ops' --out perturbations.png
    """
    from ..atomic import check_output, write_output
    from ..errors import UserError
    from ..grid.filling import fill
    from ..grid.grid import Request, resolve
    from ..grid.progress import Progress
    from ..grid.stages.protect import ProtectStage
    from ..leaderboard import figures
    from ..store.artifacts import ArtifactStore, load_images

    check_output(out, *figures.GRID_FORMATS)
    request = Request(
        board=board_name, protectors=protectors, dataset=dataset, seeds=[seed], devices=devices, threads=threads,
        data_dir=data_dir, cache_dir=cache_dir, reference=not protectors,
    )  # fmt: skip
    grid = resolve(request, loading(), leave_out)
    stages = list(dict.fromkeys(ProtectStage.of(cell) for cell in grid.cells))
    store = ArtifactStore(grid.env.cache_dir)
    clean = load_images(store.path("datasets", grid.data.artifact) / "train")
    selector = grid.data.info.selector
    if len(clean) < images:
        raise UserError(f"{selector} holds {len(clean)} training images, not {images}", "give fewer --images")
    if not all(store.has(stage.kind, stage.key) for stage in stages) and fill(
        stages, grid.env, devices, jobs, Progress()
    ):
        say("ue-bench: no figure without these sets")
        return 1
    chosen = figures.spread(clean.labels, images, seed)
    originals = clean.images[chosen]
    rows = [[image] for image in originals]
    for stage in stages:
        protected = load_images(stage.folder(store)).images[chosen]
        for row, before, after in zip(rows, originals, protected, strict=True):
            row += [after, figures.perturbation_map(before, after)]
    names = [clean.class_names[label] for label in clean.labels[chosen]]
    groups = [("clean", 1), *((stage.protector.selector, 2) for stage in stages)]
    content = figures.picture_grid(rows, names, groups, "give fewer --images or protectors", out.suffix.lower())
    write_output(out, content)
    print(out)
    say(
        f"ue-bench: {images} training images of {selector}, seed {seed}; right of each protected image |delta|, "
        "min-max stretched to [0, 1] per image"
    )
    return 0
