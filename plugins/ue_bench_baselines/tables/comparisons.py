"""Published comparisons of many protectors under many countermeasures on CIFAR-10, with ResNet-18.

They stand beside Deep Hiding's Table 1: what papers print for one cell differs, and so does the order of rows.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from itertools import groupby

from ue_bench.api import Ask, Line, Setting, Table

DATASET = "cifar10"
METHODS = {
    "clean": "none",
    "AR": "ar",
    "DC": "deepconfuse",
    "EM": "em",
    "EntF": "entf",
    "HYPO": "hypo",
    "LSP": "lsp",
    "NTGA": "ntga",
    "OPS": "ops",
    "REM": "rem",
    "SEP": "sep",
    "TAP": "tap",
    "TensorClog": "tensorclog",
}
WITH_PRESET = ("em", "entf", "hypo", "rem", "sep", "tap", "tensorclog")
# What the tables have otherwise than our plugins at their defaults; that of APBench alone.
OTHERWISE = {"HYPO": "norm=linf", "TensorClog": "eps=8/255"}
APBENCH = {"NTGA": "surrogate=cnn"}
PRESET = Setting("preset", "of protectors that train networks; micro is for CPUs", "paper", ("paper", "micro"))
OTHERS = (
    "Methods are at the settings of our plugins, which follow their own papers, but for bounds and surrogates that are "
    "known to be others."
)


def apbench(preset: str = "paper") -> Table:
    """Return APBench's leaderboard for CIFAR-10."""
    return _table(
        "apbench-cifar10",
        "test accuracy under eleven countermeasures",
        "APBench (Qin et al., 2023), leaderboard of its site",
        preset,
        "APBench, leaderboard; ResNet-18, 200 epochs",
        "It does not print clean images under these countermeasures.",
    )


def iss(preset: str = "paper") -> Table:
    """Return the table in the README of Image Shortcut Squeezing."""
    return _table(
        "iss-cifar10",
        "test accuracy of plain training, in gray and as JPEG",
        "Image Shortcut Squeezing (Liu et al., ICML 2023), README of its code",
        preset,
        "Image Shortcut Squeezing, README; ResNet-18, 60 epochs",
        "EM and REM have the same JPEG number, a copy error perhaps.",
        "ShortcutGen is not built here.",
    )


def eclipse(preset: str = "paper") -> Table:
    """Return ECLIPSE's comparison for CIFAR-10, without AVATAR, which is not the released one there."""
    return _table(
        "eclipse-cifar10",
        "test accuracy under ten countermeasures",
        "ECLIPSE (2024), comparison on CIFAR-10",
        preset,
        "ECLIPSE, comparison; ResNet-18",
        "Its AVATAR is a module of its own and left out. URP is class-wise random noise.",
    )


def _table(name: str, title: str, source: str, preset: str, published: str, *notes: str) -> Table:
    text = (files(__package__) / f"{name.replace('-', '_')}.csv").read_text(encoding="utf-8")
    lines = []
    for method, cells in groupby(csv.DictReader(text.splitlines()), key=lambda row: row["method"]):
        printed = {row["countermeasure"]: float(row["accuracy"]) for row in cells}
        given = OTHERWISE | (APBENCH if name == "apbench-cifar10" else {})
        protector = _protector(method, preset, given.get(method))
        asks = {column: Ask(protector, (column,)) for column in printed} if protector else {}
        lines.append(Line((method,), printed, asks, dataset=DATASET))
    return Table(
        name,
        title,
        source,
        ("method",),
        tuple(lines),
        notes=(*notes, OTHERS),
        settings=(PRESET,),
        published={DATASET: published},
    )


def _protector(method: str, preset: str, given: str | None) -> str | None:
    """Return our selector for a printed method, with the parameters ``given``; None where it is not built."""
    if method == "URP":
        return "noise[mode=class]"
    name = METHODS.get(method)
    of_preset = "preset=micro" if preset == "micro" and name in WITH_PRESET else None
    parameters = [text for text in (of_preset, given) if text]
    return f"{name}[{','.join(parameters)}]" if name and parameters else name
