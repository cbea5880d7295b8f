"""Loss curves of hiding networks, from the records of their training."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import EnvironmentProblem, UserError, ValidationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

Curve = dict[str, NDArray[np.float64]]  # a column of the record by its name, all of one length

FORMATS = (".png", ".pdf", ".svg")
# Okabe and Ito's colours, which colour-blind readers can tell apart.
LOSSES = {"total": "#000000", "hide": "#0072b2", "reveal": "#d55e00", "freq": "#009e73", "conc": "#cc79a7"}
PSNR = {"psnr": ("stego", "#0072b2"), "psnr_reveal": ("revealed", "#d55e00")}
NEEDED = ("step", "total", *PSNR)  # what every kind of network is trained with
# Lengths of dashes and gaps in line widths: as many records as can be told apart.
KINDS: tuple[LineStyleType, ...] = (
    "-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
WIDTH = 1.2  # of lines, in points
LONGEST = 90  # characters in a line of the legend
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3, the default
    "svg.hashsalt": "ue-bench",  # the same file from the same records
}


def labels(records: Sequence[Path]) -> dict[str, Path]:
    """Return paths by what they are called in the legend: the file's name, or the whole path where two share that.

    Raises UserError when there are more than can be told apart.
    """
    paths = list(dict.fromkeys(records))
    if len(paths) > len(KINDS):
        raise UserError(f"{len(paths)} records, but {len(KINDS)} kinds of line", "give fewer")
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def read_curve(path: Path) -> Curve:
    """Read the validation curve of a training record, one row a validation; losses that it lacks are left out.

    A training that began from another one's weights goes on where those were kept.

    Raises UserError when the file cannot be read, ValidationError when it is no such record.
    """
    hint = "give the .json that 'ue-bench deephiding train' writes"
    try:
        points = _points(json.loads(path.read_text(encoding="utf-8")))
        names = [*NEEDED, *(name for name in LOSSES if name not in NEEDED and name in points[0])]
        curve = {name: np.array([point[name] for point in points], np.float64) for name in names}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValidationError(f"{path} is not a training record with a curve", hint) from error
    if any(values.ndim != 1 for values in curve.values()):
        raise ValidationError(f"{path} is not a training record with a curve", hint)
    return curve


def _points(record: dict[str, Any]) -> list[dict[str, float]]:
    """Return the points of this training, behind those of the trainings it started from."""
    before = record.get("start", {}).get("record")
    if before is None:
        points: list[dict[str, float]] = record["curve"]
        return points
    earlier = _points(before)
    begun = earlier[-1]["step"] - before["curve"][-1]["step"] + before["achieved"]["step"]
    shifted = [{**point, "step": point["step"] + begun} for point in record["curve"]]
    return [point for point in earlier if point["step"] <= begun] + shifted


def plot(curves: dict[str, Curve], kind: str) -> bytes:
    """Return the figure as a file of ``kind``: png, pdf or svg. Raises EnvironmentProblem without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise EnvironmentProblem("curves need matplotlib", "pip install 'ue-bench[figures]'") from error
    stream = io.BytesIO()
    # The settings are global, so they are lent for this one figure. What the font lacks in names of files is a box, and
    # no line of warning.
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        draw(curves).savefig(stream, format=kind, dpi=300, metadata=dates.get(kind))
    return stream.getvalue()


def draw(curves: dict[str, Curve]) -> Figure:
    """Draw losses on a logarithmic axis, and PSNR in dB; a colour a quantity, a kind of line a record."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7.2, 3.0), layout="constrained")  # the width of a page
    losses, psnr = figure.subplots(1, 2)
    for curve, kind in zip(curves.values(), KINDS, strict=False):
        for name, colour in LOSSES.items():
            if name in curve:
                _line(losses, curve["step"], np.where(curve[name] > 0, curve[name], np.nan), name, colour, kind)
        for name, (label, colour) in PSNR.items():
            _line(psnr, curve["step"], curve[name], label, colour, kind)
    losses.set_yscale("log")
    losses.set_ylabel("loss")
    psnr.set_ylabel("PSNR [dB]")
    for axes in (losses, psnr):
        axes.set_xlabel("step")
        axes.grid(color="#e0e0e0", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        drawn = {str(line.get_label()): line.get_color() for line in axes.lines}
        handles = [Line2D([], [], color=colour, linewidth=WIDTH, label=label) for label, colour in drawn.items()]
        axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=max(1, len(handles)),
                    frameon=False, handlelength=1.5, columnspacing=1.2)  # fmt: skip
    handles = [Line2D([], [], color="#606060", linewidth=WIDTH, linestyle=kind) for kind in KINDS[: len(curves)]]
    names = [name.encode("utf-8", "replace").decode() for name in curves]
    names = [name if len(name) <= LONGEST else "..." + name[3 - LONGEST :] for name in names]
    legend = figure.legend(handles, [""] * len(handles), loc="outside lower center", frameon=False, handlelength=3,
                           ncols=min(3, len(names), LONGEST // max(map(len, names))))  # fmt: skip
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # a file's name is no formula; nor a label, which an underscore would hide
        text.set_text(name)
    return figure


def _line(
    axes: Axes,
    steps: NDArray[np.float64],
    values: NDArray[np.float64],
    label: str,
    colour: str,
    kind: LineStyleType,
) -> None:
    """Draw a curve, unless nothing of it can be shown; one of a single validation is a dot."""
    if np.isfinite(values).any():
        marker = "." if len(steps) == 1 else None
        axes.plot(steps, values, color=colour, linewidth=WIDTH, linestyle=kind, marker=marker, label=label)
