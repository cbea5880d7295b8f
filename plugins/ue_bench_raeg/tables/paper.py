"""Tables 1 to 4. The paper's datasets and classifiers are printed columns; what a board measures is a column apart.

Settings: ``preset`` of the generator and of what is trained, ``weights`` of a generator for the whole method,
``training``, parameters of those that are trained, and ``unseen``, a victim that no generator was trained against.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from ue_bench.api import Ask, Line, Setting, Table, UserError, write_text

from ..protector import Raeg

PAPER = "RAEG (Invertible Image Dataset Protection)"
HERE = "here"  # the measured column
METHODS = {"RAEG": "raeg", "RAE-IGSM": "rae-igsm", "RAE-CW": "rae-cw", "RIT-IGSM": "rit-igsm"}
HIDING = "rdh=ovt"  # what the paper's comparison hides by
# Strengths that the paper does not give are ours.
ATTACKS = {
    "none": "vanilla",
    "JPEG_QF90": "jpeg[quality=90]",
    "JPEG_QF50": "jpeg[quality=50]",
    "resize": "resize",
    "gaussian_noise": "gaussian-noise[std=0.05]",
    "median_filter": "median",
    "ComDefend": "comdefend",  # is trained, and so has the preset
    "DIPDefend": "dipdefend[recipe=imagenet]",  # its authors' settings for images as large as the paper's
}
# Parameters of raeg for the rows of Table 4, by preset; a row that is not here cannot be measured.
PARTS = {
    "paper": {
        "Full Implementation": "",
        "G using Enc-Dec architecture": "generator=enc-dec",
        "w/o discriminator": "gan=off",
        "w/o VGG loss": "perceptual=off",
        "Training with one victim": "targets=resnet50",
    },
    "micro": {
        "Full Implementation": "",
        "G using Enc-Dec architecture": "generator=enc-dec",
        "w/o discriminator": "gan=off",
        "Training with one victim": "targets='resnet9[blocks=1]'",
    },
}
SHIPPED = "shipped"
PRESET = Setting(
    "preset",
    "shipped: the generator that is shipped, and micro for the rest; micro, or the paper's, which takes GPUs: it is "
    "trained too",
    SHIPPED,
    (SHIPPED, *PARTS),
)
WEIGHTS = Setting("weights", "a generator of 'ue-bench raeg train' for the whole method")
TRAINING = Setting("training", "parameters of the generators that are trained, such as width=12,steps=600")
UNSEEN = Setting("unseen", "a victim that no generator was trained against, for acc_transfer")
Shown = Literal["accuracy", "psnr", "ssim"]


def table_1(preset: str = SHIPPED, weights: str | None = None) -> Table:
    """Return Table 1: accuracy on protected test images, as they are and processed."""
    printed = _by(("method", "attack"), ("dataset", "classifier"), "top1_accuracy", "raeg_table1")
    lines = [_line(("clean images", a), {}, _shown("none", (_attack(a, preset),))) for a in ATTACKS]
    for method, name in METHODS.items():
        selector = _raeg(preset, weights) if name == "raeg" else _with_preset(name, _trained(preset), HIDING)
        for attack in ATTACKS:
            ask = _shown(selector, (_attack(attack, preset),))
            lines.append(_line((method, attack), _percent(printed[method, attack]), ask))
    return Table(
        "raeg-table1",
        "accuracy on protected test images, as they are and processed",
        f"{PAPER}, Table 1",
        ("method", "attack"),
        tuple(lines),
        notes=(
            "Clean images were not printed.",
            "DIPDefend has its authors' settings for ImageNet, on squares of 32 px.",
        ),
        settings=(PRESET, WEIGHTS),
    )


def table_2(preset: str = SHIPPED, weights: str | None = None) -> Table:
    """Return Table 2: accuracy, PSNR and SSIM of protected and of recovered images."""
    if weights is not None and preset != SHIPPED:
        raise UserError("preset has no part in raeg-table2 where weights are given", "give one of them")
    raeg = _raeg(preset, weights)
    asked: list[tuple[str, str, Shown]] = [
        ("acc_original", "none", "accuracy"),
        ("acc_protected", raeg, "accuracy"),
        ("acc_recovered", _recovered(raeg), "accuracy"),
        ("psnr_protected", raeg, "psnr"),
        ("psnr_recovered", _recovered(raeg), "psnr"),
        ("ssim_protected", raeg, "ssim"),
        ("ssim_recovered", _recovered(raeg), "ssim"),
    ]
    lines = []
    for quantity, selector, value in asked:
        printed = {f"{row['dataset']} row {row['row']}": float(row[quantity]) for row in _read("raeg_table2")}
        ask = _shown(selector, value=value)
        lines.append(_line((quantity,), _percent(printed) if value == "accuracy" else printed, ask))
    return Table(
        "raeg-table2",
        "accuracy, PSNR and SSIM of protected and of recovered images",
        f"{PAPER}, Table 2",
        ("quantity",),
        tuple(lines),
        notes=(
            "The rows of a dataset are generators of other parameters, which were not printed.",
            "Measured SSIM has windows of 7 x 7.",
        ),
        settings=(PRESET, WEIGHTS),
    )


def table_3(preset: str = SHIPPED, weights: str | None = None) -> Table:
    """Return Table 3: accuracy of training on protected and on recovered images."""
    raeg = _raeg(preset, weights)
    printed = _by(("training_data",), ("dataset", "architecture"), "top1_accuracy", "raeg_table3")
    asked = {
        "originals": Ask("none", ("vanilla",)),
        "protected": Ask(raeg, ("vanilla",)),
        "protected_then_ComDefend": Ask(raeg, (_attack("ComDefend", preset),)),
        "recovered": Ask(_recovered(raeg), ("vanilla",)),
    }
    return Table(
        "raeg-table3",
        "accuracy of training on protected and on recovered images",
        f"{PAPER}, Table 3",
        ("training data",),
        tuple(_line((data,), _percent(printed.get((data,), {})), ask) for data, ask in asked.items()),
        notes=("Originals and protected images as they are were not printed.",),
        settings=(PRESET, WEIGHTS),
    )


def table_4(preset: str = SHIPPED, weights: str | None = None, training: str = "", unseen: str | None = None) -> Table:
    """Return Table 4: parts of the method left out."""
    targets = Raeg(preset=_trained(preset)).target_names
    if unseen in targets:
        raise UserError(
            f"generators of preset={_trained(preset)} see {unseen}", f"name one beside {', '.join(targets)}"
        )
    attacks = tuple(_attack(attack, preset) for attack in ATTACKS if attack != "none")
    lines = []
    for row in _read("raeg_table4"):
        setting, parts = row["setting"], PARTS[_trained(preset)]
        asks: dict[str, Ask] = {}
        if setting in parts:
            raeg = _raeg(preset, weights, parts[setting], training)
            asks = {
                "psnr_recovered": _shown(_recovered(raeg), value="psnr"),
                "acc_protected": _shown(raeg),
                "acc_defended": _shown(raeg, attacks),
            }
            if unseen is not None:
                asks["acc_transfer"] = Ask(raeg, ("vanilla",), of="evasion", victim=unseen)
        for quantity in ("psnr_recovered", "acc_protected", "acc_transfer", "acc_defended"):
            printed = {"Mini-ImageNet ResNet-50": float(row[quantity])}
            shown = printed if quantity == "psnr_recovered" else _percent(printed)
            lines.append(_line((setting, quantity), shown, asks.get(quantity)))
    return Table(
        "raeg-table4",
        "parts of the method left out",
        f"{PAPER}, Table 4",
        ("setting", "quantity"),
        tuple(lines),
        notes=(
            "acc_transfer and acc_defended are not defined in the paper. Measured: of a classifier that no generator "
            "was trained against; mean over all attacks of Table 1.",
            *(("preset=micro has no VGG loss to leave out.",) if _trained(preset) == "micro" else ()),
            f"Unseen: {unseen}." if unseen else "acc_transfer is not measured without --set unseen=VICTIM.",
        ),
        settings=(PRESET, WEIGHTS, TRAINING, UNSEEN),
    )


def _line(label: tuple[str, ...], printed: dict[str, float], ask: Ask | None) -> Line:
    if ask is None:
        return Line(label, printed, unit="dB" if label[-1].startswith("psnr") else "percent")
    return Line(label, printed, {HERE: ask}, unit=ask.unit)


def _shown(protector: str, countermeasures: Iterable[str] = ("vanilla",), value: Shown = "accuracy") -> Ask:
    """Return what is asked of a classifier, trained on clean images, that is shown test images of ``protector``."""
    return Ask(protector, tuple(countermeasures), of="evasion", value=value)


def _attack(name: str, preset: str) -> str:
    """Return our selector for an attack of Table 1."""
    ours = ATTACKS[name]
    return _with_preset(ours, _trained(preset)) if ours == "comdefend" else ours


def _raeg(preset: str, weights: str | None, parameters: str = "", training: str = "") -> str:
    """Return the selector of RAEG: of the whole method, or with ``parameters`` for a part, then always trained."""
    if weights is not None and not parameters:
        return f"raeg[weights={write_text(str(Path(weights).expanduser().absolute()))}]"
    if preset == SHIPPED and not parameters:
        return "raeg"
    given = [f"preset={_trained(preset)}", *(part for part in (training, parameters) if part)]
    return f"raeg[{','.join(given)}]"


def _with_preset(name: str, preset: str, parameters: str = "") -> str:
    """Return the selector of a plugin whose default are the paper's settings."""
    given = [*([f"preset={preset}"] if preset != "paper" else []), *([parameters] if parameters else [])]
    return f"{name}[{','.join(given)}]" if given else name


def _trained(preset: str) -> str:
    """Return the preset of what is trained."""
    return "micro" if preset == SHIPPED else preset


def _recovered(selector: str) -> str:
    quote = "'" if '"' in selector else '"'
    return f"recovered[of={quote}{selector}{quote}]"


def _percent(values: dict[str, float]) -> dict[str, float]:
    return {column: round(100 * value, 4) for column, value in values.items()}


def _by(
    label: tuple[str, ...], column: tuple[str, ...], value: str, file: str
) -> dict[tuple[str, ...], dict[str, float]]:
    """Return numbers of ``file`` by label, and then by column; all are names of its fields."""
    numbers: dict[tuple[str, ...], dict[str, float]] = {}
    for row in _read(file):
        head = " ".join(row[name] for name in column)
        numbers.setdefault(tuple(row[name] for name in label), {})[head] = float(row[value])
    return numbers


@cache
def _read(name: str) -> tuple[dict[str, str], ...]:
    text = (files(__package__) / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
