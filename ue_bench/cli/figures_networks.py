"""``ue-bench figures gradcam``, ``tsne``, ``distances`` and ``processed``: what networks make of protected images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import (
    F,
    Finite,
    apply_options,
    cache_option,
    data_dir_option,
    dataset_option,
    devices_option,
    jobs_option,
    leave_out,
    loading,
    precision_option,
    say,
    threads_option,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..contract.imageset import ImageSet
    from ..grid.cell import Cell
    from ..grid.grid import Grid
    from ..grid.stages.base import Stage, Work
    from ..grid.stages.network import NetworkStage
    from ..leaderboard.figures import Picture

    Show = Callable[[NetworkStage, NDArray[np.uint8]], Sequence[Picture]]

CELL_OPTIONS = [
    click.option("-P", "--protector", "protectors", multiple=True,
                 help="Selectors of protectors; all rows of the board by default."),
    dataset_option,
    click.option("--board", "board_name", default="demo", show_default=True,
                 help="The board, or TOML file, that defaults are taken from."),
    click.option("--seed", "seeds", type=click.IntRange(0), default=0, show_default=True,
                 callback=lambda ctx, option, seed: [seed], help="Seed of cells, and of the choice of images."),
    precision_option,
    devices_option,
    jobs_option,
    threads_option,
    data_dir_option,
    cache_option,
]  # fmt: skip
NETWORK_OPTIONS = [
    click.option("-V", "--victim", help="Selector of one victim, in place of the board's."),
    click.option("--protocol", help="A training recipe, or a TOML file, instead of the board's."),
]


def _countermeasures(text: str) -> Callable[[F], F]:
    return click.option("-C", "--countermeasure", "countermeasures", multiple=True, help=text)


def _out(*endings: str) -> Callable[[F], F]:
    names = f"NAME{endings[0]}" + "".join(f", {ending}" for ending in endings[1:-1])
    names += f" or {endings[-1]}" if len(endings) > 1 else ""
    return click.option("--out", type=click.Path(path_type=Path), required=True, help=f"File to write: {names}.")


def _cell_options(command: F) -> F:
    return apply_options(CELL_OPTIONS, command)


def _network_options(command: F) -> F:
    return apply_options([*NETWORK_OPTIONS, *CELL_OPTIONS], command)


@dataclass(frozen=True)
class Ready:
    """Cells whose stages are stored, and what is needed to read those."""

    cells: Sequence[Cell]
    work: Work
    clean: ImageSet
    chosen: NDArray[np.int64]  # indices of the training images that are shown
    selector: str

    @property
    def columns(self) -> list[str]:
        """The countermeasures in the order of cells."""
        return list(dict.fromkeys(cell.countermeasure.selector for cell in self.cells))

    def rows(self, show: Show) -> tuple[list[list[Picture]], list[str]]:
        """Return rows of pictures with their names, one for each protector and image.

        First the image as it was protected, then what ``show`` makes of the images under each countermeasure.
        """
        from ..grid.stages.network import NetworkStage

        rows: dict[tuple[str, int], list[Picture]] = {}
        for cell in self.cells:
            stage = NetworkStage(cell)
            shown = show(stage, stage.images(self.work).images[self.chosen])
            for number, picture in enumerate(shown):
                first = rows.setdefault((cell.protector.selector, number), [])
                first += [] if first else [stage.protected(self.work, self.chosen[number])]
                first.append(picture)
        labels = self.clean.labels[self.chosen]
        return list(rows.values()), [f"{protector}: {self.clean.class_names[labels[n]]}" for protector, n in rows]

    def draw(self, out: Path, show: Show) -> None:
        """Write the picture of all rows."""
        from ..atomic import write_output
        from ..leaderboard.figures import picture_grid

        rows, names = self.rows(show)
        groups = [("protected", 1), *((column, 1) for column in self.columns)]
        content = picture_grid(rows, names, groups, "give fewer --images or protectors", out.suffix.lower())
        write_output(out, content)


def _resolved(images: int, **options: Any) -> Grid:
    """Return the cells that are asked for. Raises UserError where they have fewer training images than ``images``.

    They are of the board's plain column where ``options`` name no other, and of one victim: the only one, or any where
    ``options`` name none, since it is not looked into.
    """
    from ..catalogue import boards
    from ..errors import UserError
    from ..grid.grid import Request, resolve

    matters, victim = "victim" in options, options.pop("victim", None)
    victims, board = [victim] if victim else (), options.pop("board_name")
    if not options.get("countermeasures"):
        options["countermeasures"] = (boards.board(board).plain,)
    request = Request(board=board, victims=victims, reference=not options["protectors"], **options)
    grid = resolve(request, loading(), leave_out)
    first = grid.cells[0].victim.selector
    alike = [cell for cell in grid.cells if cell.victim.selector == first]
    if matters and len(alike) < len(grid.cells):
        raise UserError("a figure is of one victim", "choose it with --victim")
    grid = grid.with_cells(alike)
    by_rows = [cell.countermeasure.selector for cell in alike if cell.applied.needs_pairs]
    if by_rows:
        raise UserError(
            f"{by_rows[0]} leaves images out: one picture has the same images for all", "choose another countermeasure"
        )
    if grid.data.info.train < images:
        raise UserError(f"there are {grid.data.info.train:,} training images, not {images:,}", "ask for fewer")
    return grid


def _ready(grid: Grid, stages: Callable[[Cell], Sequence[Stage]], images: int, jobs: int | None) -> Ready | None:
    """Compute what is missing of the cells' stages, and choose images to show; None where a stage failed."""
    from ..grid.data import stored_split
    from ..grid.filling import fill
    from ..grid.progress import Progress
    from ..grid.stages.base import Stores, Work
    from ..leaderboard.figures import spread

    wanted = list({stage.key: stage for cell in grid.cells for stage in stages(cell)}.values())
    stores = Stores(grid.env)
    if not all(stage.exists(stores) for stage in wanted) and fill(wanted, grid.env, grid.devices, jobs, Progress()):
        say("ue-bench: no figure without these")
        return None
    work = Work(grid.env)
    clean = stored_split(work.artifacts, grid.data, "train")
    chosen = spread(clean.labels, images, grid.cells[0].seed)
    return Ready(grid.cells, work, clean, chosen, grid.data.info.selector)


@click.command("gradcam")
@_network_options
@_countermeasures("Selectors of what networks are trained under, a column each; the board's plain one by default.")
@click.option("--images", type=click.IntRange(1), default=3, show_default=True, help="Training images of a protector.")
@_out(".png", ".svg")
def gradcam(images: int, out: Path, jobs: int | None, **options: Any) -> int:
    """Draw where networks look that were trained on protected images, under countermeasures (Grad-CAM).

    A network is trained for each protector and countermeasure, and kept. Each row is a training image: first as it was
    protected, then, for each countermeasure, as that network was trained on it, with what counts for its class in red.

    \b
    ue-bench figures gradcam -P 'none,lsp' -C 'vanilla,gray' --out gradcam.png
    """
    import torch

    from ..atomic import check_output
    from ..engine.features import grad_cam
    from ..grid.stages.network import NetworkStage
    from ..leaderboard.figures import GRID_FORMATS, heat_overlay

    check_output(out, *GRID_FORMATS)
    ready = _ready(_resolved(images, **options), lambda cell: [NetworkStage(cell)], images, jobs)
    if ready is None:
        return 1
    labels, device = torch.from_numpy(ready.clean.labels[ready.chosen]), ready.work.env.device

    def show(stage: NetworkStage, shown: NDArray[np.uint8]) -> list[Picture]:
        x = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255
        maps = grad_cam(stage.network(ready.work), x.to(device), labels.to(device)).cpu().numpy()
        return [heat_overlay(image, heat) for image, heat in zip(shown, maps, strict=True)]

    ready.draw(out, show)
    print(out)
    say(f"ue-bench: {len(ready.cells)} networks trained on {ready.selector}; red is what counts most for the class")
    return 0


@click.command("tsne")
@_network_options
@click.option("--points", type=click.IntRange(10, 2000), default=1000, show_default=True,
              help="Training images, evenly over classes.")  # fmt: skip
@click.option("--perplexity", type=Finite(2, 200), default=30.0, show_default=True,
              help="How many neighbours a point has, roughly.")  # fmt: skip
@_out(".png", ".svg", ".pdf")
def tsne(points: int, perplexity: float, out: Path, jobs: int | None, **options: Any) -> int:
    """Plot what networks make of perturbations alone, in a plane (exact t-SNE).

    A panel a protector: features before the classifier, of perturbations on mid-gray, by a network that was trained on
    the protected images. For clean images, which have no perturbation, of the images themselves.

    \b
    ue-bench figures tsne -P 'none,lsp' --points 200 --out tsne.svg
    """
    import numpy as np
    import torch

    from ..atomic import check_output, write_output
    from ..engine.features import penultimate
    from ..errors import UserError
    from ..grid.stages.network import NetworkStage
    from ..leaderboard import embedding, plots

    check_output(out, *plots.FORMATS)
    grid = _resolved(1, **options)
    count = min(points, grid.data.info.train)
    if count < 3 * perplexity:
        raise UserError(f"{count} points are too few for a perplexity of {perplexity:g}", "give a smaller --perplexity")
    ready = _ready(grid, lambda cell: [NetworkStage(cell)], count, jobs)
    if ready is None:
        return 1
    chosen = ready.chosen
    original = ready.clean.images[chosen].astype(np.float32)
    panels = {}
    for cell in ready.cells:
        stage = NetworkStage(cell)
        delta = stage.images(ready.work).images[chosen].astype(np.float32) - original
        alone = np.clip(127.5 + delta, 0, 255) if delta.any() else original
        x = torch.from_numpy(alone).permute(0, 3, 1, 2) / 255
        found = penultimate(stage.network(ready.work), x.to(ready.work.env.device))
        title = f"{cell.protector.selector}: {'perturbations' if delta.any() else 'images'}"
        panels[title] = embedding.tsne(found.cpu().numpy(), perplexity)
    labels, names = ready.clean.labels[chosen], ready.clean.class_names
    write_output(out, plots.save(lambda: plots.embeddings(panels, labels, names), out.suffix[1:].lower()))
    print(out)
    say(f"ue-bench: {count} training images of {ready.selector}, perplexity {perplexity:g}")
    return 0


@click.command("distances")
@_network_options
@_countermeasures("Selectors of what networks are trained under, a colour each; the board's plain one by default.")
@_out(".png", ".svg", ".pdf")
def distances(out: Path, jobs: int | None, **options: Any) -> int:
    """Plot how alike the features of training images are, within classes and between them.

    Of the last convolution of a network that was trained on the protected images: the mean cosine of a feature with the
    mean of its class, and of a class's mean with that of all images.

    \b
    ue-bench figures distances -P 'none,lsp' -C 'vanilla,gray' --out distances.svg
    """
    from ..atomic import check_output, write_output
    from ..engine.features import cosines
    from ..grid.stages.network import NetworkStage
    from ..leaderboard import plots

    check_output(out, *plots.FORMATS)
    ready = _ready(_resolved(1, **options), lambda cell: [NetworkStage(cell)], 1, jobs)
    if ready is None:
        return 1
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for cell in ready.cells:
        stage = NetworkStage(cell)
        model, device = stage.network(ready.work), ready.work.env.device
        found = cosines(model, stage.images(ready.work), device, cell.precision)
        rows.setdefault(cell.protector.selector, {})[cell.countermeasure.selector] = found
    write_output(out, plots.save(lambda: plots.distances(rows, ready.columns), out.suffix[1:].lower()))
    print(out)
    for row, by_column in rows.items():
        for column, (within, between) in by_column.items():
            say(f"ue-bench: {row} under {column}: within {within:.4f}, between {between:.4f}")
    return 0


@click.command("processed")
@_cell_options
@_countermeasures("Selectors of countermeasures that change stored images, a column each.")
@click.option("--images", type=click.IntRange(1), default=2, show_default=True, help="Training images of a protector.")
@_out(".png", ".svg")
def processed(countermeasures: tuple[str, ...], images: int, out: Path, jobs: int | None, **options: Any) -> int:
    """Draw what countermeasures make of protected images, such as JPEG at several qualities.

    A row a training image of a protector: as it was protected, then under each countermeasure.

    \b
    ue-bench figures processed -P 'none,lsp' -C 'jpeg[quality=[90,50,10]]' --out jpeg.png
    """
    from ..atomic import check_output
    from ..catalogue.registry import registry
    from ..contract.plugin import Countermeasure
    from ..errors import UserError
    from ..grid.stages.train import training_needs
    from ..leaderboard.figures import GRID_FORMATS

    check_output(out, *GRID_FORMATS)
    if not countermeasures:
        raise UserError("there is no countermeasure to show", "name some with --countermeasure")
    for plugin in registry().resolve("countermeasure", countermeasures):
        if isinstance(plugin, Countermeasure) and not plugin.overrides("purify"):
            raise UserError(f"{plugin.selector} does not change stored images", "choose what does, such as jpeg")
    grid = _resolved(images, countermeasures=countermeasures, **options)
    ready = _ready(grid, training_needs, images, jobs)
    if ready is None:
        return 1
    ready.draw(out, lambda stage, shown: list(shown))
    print(out)
    say(f"ue-bench: {images} training images of {ready.selector}, seed {options['seeds'][0]}")
    return 0
