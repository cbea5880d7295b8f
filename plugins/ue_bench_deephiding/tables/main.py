"""Tables 1 to 4: the comparison with other methods, and the parts of the method."""

from __future__ import annotations

from ue_bench.api import Ask, Line, Setting, Table, UserError

from .printed import (
    NATURAL,
    PAPER,
    START,
    STEPS,
    VICTIMS,
    elsewhere,
    groups,
    line,
    natural_images,
    printed_value,
    retrained,
    rows,
    selector,
    victims,
    without,
)

DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet-subset": "imagenet100"}
METHODS = {
    "Clean": "none",
    "EM": "em",
    "REM": "rem",
    "TAP": "tap",
    "EntF": "entf",
    "LSP": "lsp",
    "AR": "ar",
    "OPS": "ops",
}
SURROGATES = ("em", "rem", "tap", "entf")  # have presets, because they train networks
CIFAR, IMAGENET = "ResNet-18, 40,000 steps", "ResNet-18, 8,000 steps"
IDENTITY = "the filter is an identity, so this should repeat vanilla ({:.2f})"
NOT_REPEATED = (("CIFAR-10", "EntF"), ("CIFAR-100", "EM"))
PRESET = Setting("preset", "of em, rem, tap and entf; micro is for CPUs", "paper", ("paper", "micro"))
DATASET = Setting(
    "dataset", "cifar10, cifar100 or imagenet100: measure its lines on the board's images, whatever these are"
)
OTHERS = "The other methods are at the settings of our plugins, which follow their own papers."


def table_1(dataset: str | None = None, preset: str = "paper") -> Table:
    """Return Table 1: accuracy under every countermeasure on three datasets."""
    lines = []
    for (data, method), printed_rows in groups(rows("table1"), "dataset", "method"):
        vanilla = float(printed_rows[0]["accuracy"])
        other = printed_value("table2", dataset=data, method=method, architecture="ResNet-18")
        notes = elsewhere("vanilla", vanilla, "Table 2", other)
        if (data, method) in NOT_REPEATED:
            notes["gaussian-filter"] = IDENTITY.format(vanilla)
        protector = _protector(method, preset, DATASETS[data])
        lines.append(line((data, method), printed_rows, protector, dataset=DATASETS[data], notes=notes))
    return Table(
        "table1",
        "test accuracy under every countermeasure",
        f"{PAPER}, Table 1",
        ("dataset", "method"),
        _of(lines, dataset),
        notes=(OTHERS,),
        settings=(DATASET, PRESET),
        mean=True,
        published={
            name: f"Deep Hiding, Table 1; {IMAGENET if name == 'imagenet100' else CIFAR}" for name in DATASETS.values()
        },
    )


def table_2(dataset: str | None = None, preset: str = "paper", **given: str) -> Table:
    """Return Table 2: accuracy of plain training, for five architectures."""
    nets = victims(given)
    lines = []
    for (data, method), printed_rows in groups(rows("table2"), "dataset", "method"):
        printed = {row["architecture"]: float(row["accuracy"]) for row in printed_rows}
        protector = _protector(method, preset, DATASETS[data])
        asks = {column: Ask(protector, ("vanilla",), victim=nets[column]) for column in printed}
        other = printed_value("table1", dataset=data, method=method, countermeasure="Vanilla")
        notes = elsewhere("ResNet-18", printed["ResNet-18"], "Table 1", other)
        said = tuple(f"{column}: {note}." for column, note in notes.items())
        lines.append(Line((data, method), printed, asks, dataset=DATASETS[data], notes=said))
    return Table(
        "table2",
        "test accuracy of plain training, by architecture",
        f"{PAPER}, Table 2",
        ("dataset", "method"),
        _of(lines, dataset),
        notes=(OTHERS, "The paper does not say which vision transformer it trains."),
        settings=(DATASET, PRESET, *VICTIMS),
    )


def table_3(preset: str = "paper") -> Table:
    """Return Table 3: accuracy where a part of the images is protected."""
    lines = []
    for (method,), printed_rows in groups(rows("table3"), "method"):
        printed = {f"{row['unlearnable_percent']} %": float(row["accuracy"]) for row in printed_rows}
        protector = _protector(method, preset, "cifar10")
        asks = {
            f"{row['unlearnable_percent']} %": Ask(
                protector, ("vanilla",), fraction=int(row["unlearnable_percent"]) / 100
            )
            for row in printed_rows
        }
        doubtful = [row for row in printed_rows if row["as_printed"].replace(" ", ".") != row["accuracy"]]
        notes = tuple(
            f"{row['unlearnable_percent']} %: printed as {row['as_printed']}, read as {row['accuracy']}."
            for row in doubtful
        )
        lines.append(Line((method,), printed, asks, notes=notes))
    return Table(
        "table3",
        "test accuracy of plain training, by the share of images that are protected",
        f"{PAPER}, Table 3",
        ("method",),
        tuple(lines),
        notes=(OTHERS, "Tables F and G print the lines Ours(S) and Ours(C) the other way round."),
        settings=(PRESET,),
    )


def table_4(steps: str = "5000", start: str = "fresh", natural: str | None = None) -> Table:
    """Return Table 4: accuracy without parts of the method."""
    lines = []
    for (setting, lfc, tpc, diffusion), printed_rows in groups(
        rows("table4"), "setting", "lfc", "tpc", "sd_controlnet"
    ):
        hidden = "" if tpc == "1" else "tpc=false"
        if diffusion == "0":
            hidden = natural_images(setting, natural) if natural else ""
        protector = selector(setting, hidden, retrained(steps, start), "" if lfc == "1" else "lfc=false")
        parts = ", ".join(
            f"{part} {'on' if value == '1' else 'off'}"
            for part, value in (("LFC", lfc), ("TPC", tpc), ("SD+C", diffusion))
        )
        notes: dict[str, str] = {}
        if (setting, lfc, tpc, diffusion) == ("Ours(S)", "1", "0", "0"):  # is a line of Table D too
            for column, ours in (("Mixup", "mixup"), ("Gray", "gray")):
                same = {"setting": setting, "hidden_images": "Random Natural Images", "countermeasure": column}
                accuracy = next(float(row["accuracy"]) for row in printed_rows if row["countermeasure"] == column)
                notes |= elsewhere(ours, accuracy, "Table D", printed_value("tableD", **same))
        possible = protector if diffusion == "1" or natural else None
        lines.append(line((setting, parts), printed_rows, possible, notes=notes))
    return Table(
        "table4",
        "concentration loss, prompt clustering, diffusion with edges",
        f"{PAPER}, Table 4",
        ("method", "parts"),
        tuple(lines),
        notes=without(lines, NATURAL),
        settings=(STEPS, START, NATURAL),
        mean=True,
    )


def _protector(method: str, preset: str, dataset: str) -> str:
    """Return our selector for a method of a dataset."""
    if method.startswith("Ours"):
        return selector(method)
    name = METHODS[method]
    if name == "lsp" and dataset == "imagenet100":
        return "lsp[patch=32]"  # of larger images
    return f"{name}[preset={preset}]" if name in SURROGATES and preset != "paper" else name


def _of(lines: list[Line], dataset: str | None) -> tuple[Line, ...]:
    """Return all lines; of a ``dataset`` those it has, to be measured on any images."""
    if dataset is None:
        return tuple(lines)
    chosen = [Line(x.label, x.printed, x.asks, notes=x.notes) for x in lines if x.dataset == dataset]
    if not chosen:
        known = dict.fromkeys(x.dataset for x in lines)
        raise UserError(f"the table has no lines of {dataset!r}", f"it has those of {', '.join(known)}")
    return tuple(chosen)
