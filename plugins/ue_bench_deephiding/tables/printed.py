"""Printed numbers as the CSV files have them, our names for their rows and columns, and lines made of both."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import fmean

from ue_bench.api import Ask, Line, Setting, UserError, write_text

PAPER = "Deep Hiding (ICLR 2024 submission)"
COUNTERMEASURES = {
    "Vanilla": "vanilla",
    "Cutout": "cutout",
    "Cutmix": "cutmix",
    "Mixup": "mixup",
    "MeanF": "mean",
    "MedianF": "median",
    "BDR": "bdr",
    "Gray": "gray",
    "GaussN": "gaussian-noise",
    "GaussF": "gaussian-filter",
    "JPEG10": "jpeg[quality=10]",
    "JPEG50": "jpeg[quality=50]",
    "AT": "at",
}
MODES = {"Ours(S)": "mode=sample", "Ours(C)": ""}  # class-wise is the default
STEPS = Setting("steps", "optimizer steps of every hiding network that is trained", "5000")
START = Setting(
    "start",
    "weights that training begins from: drawn at random, or the shipped network's",
    "fresh",
    ("fresh", "shipped"),
)
NATURAL = Setting("natural", "photographs for lines that hide natural images: a folder of images or Parquet files")
VICTIMS = (
    Setting("resnet18", "victim in the place of ResNet-18", "resnet18"),
    Setting("resnet50", "victim in the place of ResNet-50", "resnet50"),
    Setting("vgg19", "victim in the place of VGG-19", "vgg19"),
    Setting("densenet121", "victim in the place of DenseNet-121", "densenet121"),
    Setting("vit", "victim in the place of ViT", "vit"),
)
ARCHITECTURES = dict(
    zip(("ResNet-18", "ResNet-50", "VGG-19", "DenseNet-121", "ViT"), (v.name for v in VICTIMS), strict=True)
)
SHORT = dict(zip(("R18", "R50", "V19", "D121", "ViT"), ARCHITECTURES, strict=True))  # of the appendix
ROUNDING = 0.00501  # printed means have two decimals


@cache
def rows(table: str) -> tuple[dict[str, str], ...]:
    """Return the rows of ``<table>.csv``."""
    text = (files(__package__) / f"{table}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def groups(
    printed_rows: Iterable[dict[str, str]], *fields: str
) -> Iterator[tuple[tuple[str, ...], list[dict[str, str]]]]:
    """Yield rows by the values of some fields, in their order."""
    by_values: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in printed_rows:
        by_values.setdefault(tuple(row[f] for f in fields), []).append(row)
    yield from by_values.items()


def accuracies(printed_rows: Iterable[dict[str, str]]) -> dict[str, float]:
    """Return printed accuracies by our name of the countermeasure, without the printed mean."""
    named = ((COUNTERMEASURES.get(row["countermeasure"]), row["accuracy"]) for row in printed_rows)
    return {ours: float(accuracy) for ours, accuracy in named if ours}


def line(
    label: tuple[str, ...],
    printed_rows: Iterable[dict[str, str]],
    protector: str | None,
    *,
    victim: str | None = None,
    dataset: str = "",
    notes: Mapping[str, str] | None = None,
) -> Line:
    """Return a line of training under all countermeasures. Without a protector nothing is measured.

    ``notes`` are by column. A printed mean that is not the mean of its columns is noted first.
    """
    listed = list(printed_rows)
    printed = accuracies(listed)
    said = [f"{column}: {note}." for column, note in (notes or {}).items()]
    [mean] = [float(row["accuracy"]) for row in listed if row["countermeasure"] == "Mean"]
    if abs(mean - fmean(printed.values())) > ROUNDING:
        said.insert(0, f"mean: the paper prints {mean:.2f}, its columns give {fmean(printed.values()):.2f}.")
    asks = {column: Ask(protector, (column,), victim=victim) for column in printed} if protector else {}
    return Line(label, printed, asks, dataset=dataset, notes=tuple(said))


def selector(setting: str, *parameters: str) -> str:
    """Return our selector for "Ours(S)" or "Ours(C)" with further parameters."""
    given = ",".join(text for text in (MODES[setting], *parameters) if text)
    return f"deephiding[{given}]" if given else "deephiding"


def retrained(steps: str, start: str = "fresh") -> str:
    """Return the parameters of a protector that trains a hiding network of its own."""
    if not steps.isdecimal() or int(steps) < 1:
        raise UserError(f"steps={steps} is no number of steps", "write a whole number, such as steps=5000")
    return f"retrain=true,train_steps={int(steps)}" + (f",start={start}" if start != "fresh" else "")


def natural_images(setting: str, folder: str) -> str:
    """Return the parameters of a protector that hides photographs of ``folder``: one a class, or one an image."""
    kind = {"Ours(S)": "random_natural", "Ours(C)": "natural"}[setting]
    return f"hidden={kind},hidden_images={write_text(str(Path(folder).expanduser().absolute()))}"


def without(lines: Iterable[Line], setting: Setting) -> tuple[str, ...]:
    """Return a note that names the lines that need a setting which is not given."""
    names = [line.name for line in lines if not line.asks]
    return (f"Not measured without --set {setting.name}=...: {'; '.join(names)}.",) if names else ()


def victims(given: Mapping[str, str]) -> dict[str, str]:
    """Return our victims by the paper's names of architectures."""
    chosen = {setting.name: setting.default or setting.name for setting in VICTIMS} | dict(given)
    return {printed: chosen[name] for printed, name in ARCHITECTURES.items()}


def elsewhere(column: str, value: float, table: str, other: float | None) -> dict[str, str]:
    """Return a note, by column, where another table of the paper prints another value for the same thing."""
    return {column: f"{table} of the paper prints {other:.2f}"} if other not in (None, value) else {}


def printed_value(table: str, **fields: str) -> float | None:
    """Return the accuracy of the one row of a CSV file with these fields; None where there is none."""
    matching = [row["accuracy"] for row in rows(table) if all(row[name] == value for name, value in fields.items())]
    return float(matching[0]) if matching else None
