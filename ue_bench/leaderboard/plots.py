"""Draw plots of results with matplotlib: learning curves, features in a plane, how alike features are, whole boards."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EnvironmentProblem
from . import colour, formats
from .statistics import Panel, Row
from .tables import folded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3, the default
    "svg.hashsalt": "ue-bench",  # the same file from the same numbers
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow that paper swallows.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
MOST_LINES = len(COLOURS) * len(DASHES)
LONGEST = 48  # characters of a name in a legend


def save(draw: Callable[[], Figure], kind: str, dots: int = 160) -> bytes:
    """Return what ``draw`` draws as a file: png, svg or pdf. Raises EnvironmentProblem without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise EnvironmentProblem("plots need matplotlib", "pip install 'ue-bench[figures]'") from error
    stream = io.BytesIO()
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that the font lacks
        draw().savefig(stream, format=kind, dpi=dots, metadata=dates.get(kind))
    return stream.getvalue()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _name(text: str) -> str:
    """Return a name as a legend takes it: not a formula, not hidden, not longer than a line."""
    text = text.replace("$", r"\$")
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return f"​{text}" if text.startswith("_") else text


@dataclass(frozen=True)
class CurveLine:
    """Test accuracy in percent by epoch, under a name; ``band`` are the lowest and the highest of several seeds."""

    name: str
    epochs: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    band: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def curves(panels: Mapping[str, Sequence[CurveLine]], chance: float) -> Figure:
    """Draw learning curves, a panel each with its title, side by side on one scale."""
    figure = _figure(1.2 + 2.6 * len(panels), 3.2)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(line.name for lines in panels.values() for line in lines))
    looks = {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS)]}
        for i, name in enumerate(names)
    }
    for place, (title, lines) in zip(axes, panels.items(), strict=True):
        for line in lines:
            mark = {"marker": "."} if len(line.epochs) == 1 else {}
            place.plot(line.epochs, line.accuracy, linewidth=1.3, **looks[line.name], **mark)
            if line.band is not None:
                place.fill_between(line.epochs, *line.band, color=looks[line.name]["color"], alpha=0.15, linewidth=0)
        place.axhline(chance, color="#808080", linewidth=0.7, linestyle=":")
        place.set_title(_name(title), fontsize=8)
        place.set_xlabel("epoch")
        place.grid(color="#e4e4e4", linewidth=0.5)
        place.set_axisbelow(True)
        place.set_ylim(0, 100)
    axes[0].set_ylabel("test accuracy [%]")
    _legend(figure, [(name, looks[name]) for name in names])
    return figure


def _legend(figure: Figure, looks: Sequence[tuple[str, dict[str, Any]]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linewidth=1.3, **look) for _, look in looks]
    columns = max(1, min(4, int(100 * figure.get_figwidth() / 7 / (8 + max(len(name) for name, _ in looks)))))
    figure.legend(handles, [_name(name) for name, _ in looks], loc="outside lower center", frameon=False, ncols=columns)


def embeddings(panels: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw points in planes, a panel each with its title, coloured by class."""
    from matplotlib.lines import Line2D

    figure = _figure(0.4 + 2.9 * len(panels), 3.5)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    shown = np.unique(labels)
    shades = {int(label): _class_colour(i, len(shown)) for i, label in enumerate(shown)}
    for place, (title, points) in zip(axes, panels.items(), strict=True):
        for label in shown:
            where = labels == label
            place.scatter(points[where, 0], points[where, 1], s=5, color=shades[int(label)], linewidth=0, alpha=0.8)
        place.set_title(_name(title), fontsize=8)
        place.set_xticks([])
        place.set_yticks([])
        place.set_aspect("equal", "datalim")
        place.spines[["left", "bottom"]].set_visible(False)
    if len(shown) <= 20:
        handles = [Line2D([], [], marker="o", markersize=4, linewidth=0, color=shades[int(label)]) for label in shown]
        names = [_name(classes[label]) for label in shown]
        figure.legend(
            handles, names, loc="outside lower center", frameon=False, ncols=min(10, max(1, 5 * len(panels) // 2))
        )
    return figure


def _class_colour(index: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](index) if count <= 10 else colormaps["turbo"](index / max(count - 1, 1))


def distances(rows: Mapping[str, Mapping[str, tuple[float, float]]], series: Sequence[str]) -> Figure:
    """Draw for each row, and each of ``series``, how alike features are within classes (disc) and between (ring).

    Values are mean cosines by row and series.
    """
    from matplotlib.lines import Line2D

    figure = _figure(6.4, 1.2 + 0.24 * len(rows) * max(1, len(series)) ** 0.6)
    axes = figure.subplots()
    for number, name in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * 0.7 / max(len(series), 1)
        shade = COLOURS[number % len(COLOURS)]
        for y, found in enumerate(rows.values()):
            if name in found:
                within, between = found[name]
                axes.plot([within, between], [y + shift] * 2, color=shade, linewidth=0.8, alpha=0.5)
                axes.plot(within, y + shift, "o", color=shade, markersize=4.5)
                axes.plot(between, y + shift, "o", color=shade, markersize=4.5, markerfacecolor="white")
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    axes.set_xlabel("mean cosine: disc, feature and the mean of its class; ring, mean of a class and mean of all")
    axes.grid(color="#e4e4e4", linewidth=0.5, axis="x")
    axes.set_axisbelow(True)
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", markersize=4.5) for i in range(len(series))]
    figure.legend(handles, [_name(name) for name in series], loc="outside lower center", frameon=False, ncols=4)
    return figure


def board(panel: Panel) -> Figure:
    """Draw a panel as a table of accuracies: all rows by perturbation class, all columns, colours by recovered share.

    Legible at a width of 830 pixels, as in a README.
    """
    rows = [("reference", row) for row in panel.rows if row.reference]
    rows += [(name, row) for name, of_class in panel.classes.items() for row in of_class]
    columns = [*panel.columns, *panel.extra]
    width, left = 10.4, 2.45
    side = (width - left - 0.95) / max(len(columns), 1)
    heads = [folded(name, 14) for name in columns]
    top = 0.2 + 0.08 * max(len(line) for head in heads for line in head)
    groups = len({name for name, _ in rows})
    notes = [f"{panel.dataset.selector}: {formats.setting(panel)}. {formats.seeds(panel)}.", BOARD_LEGEND]
    notes = [line for note in notes for line in textwrap.wrap(note, 165)]
    height = top + LINE * len(rows) + GROUP * groups + 0.16 * len(notes) + 0.1
    figure = _plain_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for i, head in enumerate(heads):
        middle = left + (i + 0.5) * side
        axes.text(
            middle, top + 0.08, "\n".join(head), rotation=90, ha="center", va="bottom", fontsize=9.5, linespacing=1
        )
    axes.text(left + len(columns) * side + 0.5, top + 0.08, "recovered\nshare", **HEAD)
    y, before = top, ""
    for name, row in rows:
        if name != before:
            axes.text(0.06, y + GROUP - 0.04, name, va="bottom", fontsize=8.5, color="#56626e", style="italic")
            y, before = y + GROUP, name
        _draw_row(axes, panel, row, columns, y, left, side)
        y += LINE
    for i, note in enumerate(notes):
        axes.text(0.06, y + 0.14 + 0.16 * i, note, va="center", fontsize=8, color="#56626e")
    return figure


HEAD: Any = {"ha": "center", "va": "bottom", "fontsize": 9.5}
LINE, GROUP = 0.29, 0.24  # height of a row, and of the heading of a class, in inches
BOARD_LEGEND = (
    "Test accuracy in percent. Recovered: the share of the clean accuracy above chance that an adversary gets back, "
    "which colours cells, in the mean over countermeasures."
)


def _plain_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _draw_row(axes: Axes, panel: Panel, row: Row, columns: Sequence[str], y: float, left: float, side: float) -> None:
    from matplotlib.patches import Rectangle

    shades = colour.levels(colour.LIGHT)
    name = "\n".join(folded(row.protector, 28))
    small = 8.0 if "\n" in name else 9.5
    axes.text(left - 0.08, y + LINE / 2, name, ha="right", va="center", fontsize=small, linespacing=0.95)
    for i, column in enumerate(columns):
        cell = row.cells.get(column)
        if cell is None:
            continue
        share = panel.share(column, cell.mean)
        ground, ink = ("#ffffff", "#000000") if share is None else shades[colour.level(share)]
        axes.add_patch(Rectangle((left + i * side, y), side - 0.02, LINE - 0.02, facecolor=ground, linewidth=0))
        middle = left + (i + 0.5) * side - 0.01
        axes.text(middle, y + LINE / 2, formats.percent(cell.mean), ha="center", va="center", fontsize=10, color=ink)
    place = left + len(columns) * side + 0.5
    axes.text(place, y + LINE / 2, formats.recovered(row), ha="center", va="center", fontsize=10, weight="bold")
