"""RAEG's tables: what was printed, and what is to be measured for each of their lines."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Literal

TITLES = {
    "raeg-table1": "RAEG, Table 1: accuracy on protected test images, as they are and processed",
    "raeg-table2": "RAEG, Table 2: accuracy, PSNR and SSIM of protected and of recovered images",
    "raeg-table3": "RAEG, Table 3: accuracy of training on protected and on recovered images",
    "raeg-table4": "RAEG, Table 4: parts of the method left out",
}
METHODS = {"RAEG": "raeg", "RAE-IGSM": "rae-igsm", "RAE-CW": "rae-cw", "RIT-IGSM": "rit-igsm"}
# Strengths that the paper does not give are ours.
ATTACKS = {
    "none": "vanilla",
    "JPEG_QF90": "jpeg[quality=90]",
    "JPEG_QF50": "jpeg[quality=50]",
    "resize": "resize",
    "gaussian_noise": "gaussian-noise[std=0.05]",
    "median_filter": "median",
    "ComDefend": "comdefend",
    "DIPDefend": "dipdefend",
}
# Parameters of raeg for the rows of Table 4, by preset; a row that is not here cannot be measured.
PARTS = {
    "paper": {
        "Full Implementation": "",
        "w/o discriminator": "gan=off",
        "w/o VGG loss": "perceptual=off",
        "Training with one victim": "targets=resnet50",
    },
    "micro": {
        "Full Implementation": "",
        "w/o discriminator": "gan=off",
        "Training with one victim": "targets='resnet9[blocks=1]'",
    },
}
Value = Literal["accuracy", "psnr", "ssim"]


@dataclass(frozen=True)
class Ask:
    """What is measured: the mean of ``value`` over ``countermeasures``, for a classifier trained on clean images.

    With ``trained``, for one trained on the images of ``protector``, on clean test images. With ``unseen``, for a
    classifier that no generator was trained against.
    """

    protector: str
    countermeasures: tuple[str, ...] = ("vanilla",)
    value: Value = "accuracy"
    trained: bool = False
    unseen: bool = False


@dataclass(frozen=True)
class Line:
    """A line: its label, what was printed by column (accuracies in percent), and what is measured beside, if it can."""

    label: tuple[str, ...]
    printed: dict[str, float]
    ask: Ask | None


@dataclass(frozen=True)
class Table:
    """A table with printed numbers as columns and one measured column a victim to come."""

    name: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def printed(self) -> tuple[str, ...]:
        """Printed columns: dataset, and classifier or row."""
        return tuple(dict.fromkeys(column for line in self.lines for column in line.printed))

    @property
    def trains(self) -> bool:
        """Whether victims are trained on protected images."""
        return any(line.ask and line.ask.trained for line in self.lines)


def table(name: str, preset: str, weights: str | None, known: Mapping[str, bool]) -> Table:
    """The table ``name``. ``known`` are the names of countermeasures that there are, and whether they have presets.

    What is trained is trained with ``preset``; the generator of the whole method may be in the file ``weights``, quoted
    where a selector needs it.
    """
    makers = {"raeg-table1": _table1, "raeg-table2": _table2, "raeg-table3": _table3, "raeg-table4": _table4}
    heads, lines, notes = makers[name](preset, weights)
    missing = {c for _, _, ask in lines if ask for c in ask.countermeasures if c.partition("[")[0] not in known}
    if missing:
        notes = (*notes, f"Not measured, because it is not installed: {', '.join(sorted(missing))}")
    return Table(
        name,
        heads,
        tuple(Line(label, printed, _possible(ask, preset, known)) for label, printed, ask in lines),
        notes,
    )


Lines = list[tuple[tuple[str, ...], dict[str, float], Ask | None]]


def _possible(ask: Ask | None, preset: str, known: Mapping[str, bool]) -> Ask | None:
    """``ask`` with countermeasures of ``preset``, without those that are not there; None when nothing is left of it."""
    if ask is None:
        return None
    there = [c for c in ask.countermeasures if c.partition("[")[0] in known]
    left = tuple(_with_preset(c, preset) if known[c.partition("[")[0]] else c for c in there)
    return replace(ask, countermeasures=left) if left else None


def _raeg(preset: str, weights: str | None, parameters: str = "") -> str:
    """Selector of RAEG with parameters; ``weights`` are those of the whole method."""
    if weights is not None and not parameters:
        return f"raeg[weights={weights}]"
    return _with_preset("raeg", preset, parameters)


def _with_preset(name: str, preset: str, parameters: str = "") -> str:
    given = [*([f"preset={preset}"] if preset != "paper" else []), *([parameters] if parameters else [])]
    return f"{name}[{','.join(given)}]" if given else name


def _recovered(selector: str) -> str:
    quote = "'" if '"' in selector else '"'
    return f"recovered[of={quote}{selector}{quote}]"


def _table1(preset: str, weights: str | None) -> tuple[tuple[str, ...], Lines, tuple[str, ...]]:
    printed = _by([("method", "attack"), ("dataset", "classifier"), "top1_accuracy"], "raeg_table1.csv")
    lines: Lines = [(("clean images", attack), {}, Ask("none", (ours,))) for attack, ours in ATTACKS.items()]
    for method, name in METHODS.items():
        selector = _raeg(preset, weights) if name == "raeg" else _with_preset(name, preset)
        for attack, ours in ATTACKS.items():
            lines.append(((method, attack), _percent(printed[method, attack]), Ask(selector, (ours,))))
    notes = (
        "Clean images were not printed.",
        "RAE and RIT hide their data by prediction-error expansion here, by optimal value transfer in the paper.",
    )
    return ("method", "attack"), lines, notes


def _table2(preset: str, weights: str | None) -> tuple[tuple[str, ...], Lines, tuple[str, ...]]:
    raeg = _raeg(preset, weights)
    rows = _read("raeg_table2.csv")
    lines: Lines = []
    asked: list[tuple[str, str, Value]] = [
        ("acc_original", "none", "accuracy"),
        ("acc_protected", raeg, "accuracy"),
        ("acc_recovered", _recovered(raeg), "accuracy"),
        ("psnr_protected", raeg, "psnr"),
        ("psnr_recovered", _recovered(raeg), "psnr"),
        ("ssim_protected", raeg, "ssim"),
        ("ssim_recovered", _recovered(raeg), "ssim"),
    ]
    for quantity, selector, value in asked:
        printed = {f"{r['dataset']} row {r['row']}": float(r[quantity]) for r in rows}
        lines.append(((quantity,), _percent(printed) if value == "accuracy" else printed, Ask(selector, value=value)))
    notes = (
        "The rows of a dataset are generators of other parameters, which were not printed.",
        "Measured SSIM has windows of 7 x 7.",
    )
    return ("quantity",), lines, notes


def _table3(preset: str, weights: str | None) -> tuple[tuple[str, ...], Lines, tuple[str, ...]]:
    raeg = _raeg(preset, weights)
    printed = _by([("training_data",), ("dataset", "architecture"), "top1_accuracy"], "raeg_table3.csv")
    rows = {
        "originals": Ask("none", trained=True),
        "protected": Ask(raeg, trained=True),
        "protected_then_ComDefend": Ask(raeg, (ATTACKS["ComDefend"],), trained=True),
        "recovered": Ask(_recovered(raeg), trained=True),
    }
    lines: Lines = [((data,), _percent(printed.get((data,), {})), ask) for data, ask in rows.items()]
    return ("training data",), lines, ("Originals and protected images as they are were not printed.",)


def _table4(preset: str, weights: str | None) -> tuple[tuple[str, ...], Lines, tuple[str, ...]]:
    attacks = tuple(ours for attack, ours in ATTACKS.items() if attack != "none")
    lines: Lines = []
    for row in _read("raeg_table4.csv"):
        setting = row["setting"]
        asks: dict[str, Ask] = {}
        if setting in PARTS[preset]:
            raeg = _raeg(preset, weights, PARTS[preset][setting])
            asks = {
                "psnr_recovered": Ask(_recovered(raeg), value="psnr"),
                "acc_protected": Ask(raeg),
                "acc_transfer": Ask(raeg, unseen=True),
                "acc_defended": Ask(raeg, attacks),
            }
        for quantity in ("psnr_recovered", "acc_protected", "acc_transfer", "acc_defended"):
            printed = {"Mini-ImageNet ResNet-50": float(row[quantity])}
            shown = printed if quantity == "psnr_recovered" else _percent(printed)
            lines.append(((setting, quantity), shown, asks.get(quantity)))
    notes = (
        "acc_transfer and acc_defended are not defined in the paper. Measured: of a classifier that no generator was "
        "trained against; mean over all attacks of Table 1 that are installed.",
        "An encoder and a decoder in place of the invertible generator are not built.",
        *(("preset=micro has no VGG loss to leave out.",) if preset == "micro" else ()),
    )
    return ("setting", "quantity"), lines, notes


def _percent(values: dict[str, float]) -> dict[str, float]:
    return {column: round(100 * value, 4) for column, value in values.items()}


def _by(names: list[tuple[str, ...] | str], file: str) -> dict[tuple[str, ...], dict[str, float]]:
    """Numbers of ``file`` by label, and then by column; ``names`` are the fields of label, column and value."""
    label, column, value = names
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for row in _read(file):
        head = " ".join(row[name] for name in column)
        found.setdefault(tuple(row[name] for name in label), {})[head] = float(row[str(value)])
    return found


@cache
def _read(name: str) -> tuple[dict[str, str], ...]:
    text = (files("ue_bench") / "reference" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
