"""Tables A to K: weights of the losses, hidden images, other victims and shares, ISGAN, JPEG, cosines."""

from __future__ import annotations

from ue_bench.api import Ask, Line, Table

from .printed import (
    NATURAL,
    PAPER,
    SHORT,
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

EXCHANGED = (
    "Of ResNet-18 this table prints the numbers of Ours(S) and Ours(C) the other way round than Table 3, which agrees "
    "with Table 1."
)


def table_a(steps: str = "5000", start: str = "fresh") -> Table:
    """Return Table A: weight of the low-frequency loss."""
    return _weights("tableA", "weight of the low-frequency loss", steps, start)


def table_b(steps: str = "5000", start: str = "fresh") -> Table:
    """Return Table B: weight of the revealing loss."""
    return _weights("tableB", "weight of the revealing loss", steps, start)


def table_c(steps: str = "5000", start: str = "fresh") -> Table:
    """Return Table C: weight of the concentration loss."""
    notes = {("Ours(S)", "0.001"): {"median": "equal to the mean filter, a copy error perhaps"}}
    return _weights("tableC", "weight of the concentration loss", steps, start, notes)


def table_d(natural: str | None = None) -> Table:
    """Return Table D: kinds of hidden images, with the shipped network."""
    lines = []
    for (setting, hidden), printed_rows in groups(rows("tableD"), "setting", "hidden_images"):
        possible = {
            "Next Class": "hidden=next_class",
            "Random Natural Images": natural_images(setting, natural) if natural else None,
            "Random Prompt": "tpc=false",
            "Ours": "",
        }[hidden]
        label = (setting, "semantic images" if hidden == "Ours" else hidden.lower())
        lines.append(line(label, printed_rows, None if possible is None else selector(setting, possible)))
    return Table(
        "tableD",
        "hidden images",
        f"{PAPER}, Table D",
        ("method", "hidden images"),
        tuple(lines),
        notes=without(lines, NATURAL),
        settings=(NATURAL,),
        mean=True,
    )


def table_e(**given: str) -> Table:
    """Return Table E: accuracy under every countermeasure, for five architectures."""
    nets = victims(given)
    lines = []
    for (setting, short), printed_rows in groups(rows("tableE"), "setting", "architecture"):
        same = {"dataset": "CIFAR-10", "method": setting, "architecture": SHORT[short]}
        notes = elsewhere("vanilla", float(printed_rows[0]["accuracy"]), "Table 2", printed_value("table2", **same))
        victim = nets[SHORT[short]]
        lines.append(line((setting, SHORT[short]), printed_rows, selector(setting), victim=victim, notes=notes))
    return Table(
        "tableE",
        "test accuracy under every countermeasure, by architecture",
        f"{PAPER}, Table E",
        ("method", "architecture"),
        tuple(lines),
        notes=("The paper does not say which vision transformer it trains.",),
        settings=VICTIMS,
        mean=True,
    )


def table_f(**given: str) -> Table:
    """Return Table F: accuracy where a part of the images is protected, for five architectures."""
    nets = victims(given)
    lines = []
    for (setting, short), printed_rows in groups(rows("tableF"), "setting", "architecture"):
        printed = {f"{row['unlearnable_percent']} %": float(row["accuracy"]) for row in printed_rows}
        asks = {
            f"{row['unlearnable_percent']} %": Ask(
                selector(setting),
                ("vanilla",),
                victim=nets[SHORT[short]],
                fraction=int(row["unlearnable_percent"]) / 100,
            )
            for row in printed_rows
        }
        lines.append(Line((setting, SHORT[short]), printed, asks))
    return Table(
        "tableF",
        "test accuracy of plain training, by architecture and the share of images that are protected",
        f"{PAPER}, Table F",
        ("method", "architecture"),
        tuple(lines),
        notes=(EXCHANGED,),
        settings=VICTIMS,
    )


def table_g() -> Table:
    """Return Table G: accuracy by the share of images that are protected, up to all of them."""
    lines = []
    for (setting,), printed_rows in groups(rows("tableG"), "setting_as_printed"):
        printed = {f"{row['unlearnable_percent']} %": float(row["accuracy"]) for row in printed_rows}
        asks = {
            f"{row['unlearnable_percent']} %": Ask(
                selector(setting), ("vanilla",), fraction=int(row["unlearnable_percent"]) / 100
            )
            for row in printed_rows
        }
        notes = tuple(f"{row['unlearnable_percent']} %: {row['note']}." for row in printed_rows if row["note"])
        lines.append(Line((setting,), printed, asks, notes=notes))
    return Table(
        "tableG",
        "test accuracy of plain training, by the share of images that are protected",
        f"{PAPER}, Table G",
        ("method",),
        tuple(lines),
        notes=(EXCHANGED,),
    )


def table_h(steps: str = "5000") -> Table:
    """Return Table H: ISGAN as the hiding network."""
    lines = [
        line((setting, "ISGAN"), printed_rows, selector(setting, retrained(steps), "hider=isgan"))
        for (setting,), printed_rows in groups(rows("tableH"), "setting")
    ]
    return Table(
        "tableH",
        "ISGAN as the hiding network",
        f"{PAPER}, Table H",
        ("method", "network"),
        tuple(lines),
        settings=(STEPS,),
        mean=True,
    )


def table_i() -> Table:
    """Return Table I: quality of JPEG."""
    lines = []
    for (setting,), printed_rows in groups(rows("tableI"), "setting"):
        printed = {f"jpeg[quality={row['jpeg_quality']}]": float(row["accuracy"]) for row in printed_rows}
        lines.append(Line((setting,), printed, {column: Ask(selector(setting), (column,)) for column in printed}))
    return Table("tableI", "quality of JPEG", f"{PAPER}, Table I", ("method",), tuple(lines))


def table_j() -> Table:
    """Return Table J: cosines of features within a class, and of classes with the mean of all."""
    lines = []
    for row in rows("tableJ"):
        protector = "none" if row["data"] == "Clean images" else selector(row["data"])
        printed = {value: float(row[f"{value}_class_cosine"]) for value in ("intra", "inter")}
        asks = {value: Ask(protector, ("vanilla",), of="features", value=value) for value in printed}
        lines.append(Line((row["data"],), printed, asks, unit="cosine"))
    title = "cosines of features within a class, and of classes with the mean of all"
    return Table("tableJ", title, f"{PAPER}, Table J", ("images",), tuple(lines))


def table_k(steps: str = "5000", start: str = "fresh") -> Table:
    """Return Table K: losses of the hiding network."""
    protectors = {
        "clean data": "none",
        "L_hide only": selector("Ours(C)", retrained(steps, start), "hide_only=true"),
        "L_total": selector("Ours(C)", retrained(steps, start)),
    }
    notes = {"L_hide only": {"gaussian-filter": "equal to the median filter, a copy error perhaps"}}
    lines = [
        line((training,), printed_rows, protectors[training], notes=notes.get(training))
        for (training,), printed_rows in groups(rows("tableK"), "training")
    ]
    return Table(
        "tableK",
        "losses of the hiding network",
        f"{PAPER}, Table K",
        ("training",),
        tuple(lines),
        settings=(STEPS, START),
        mean=True,
    )


def _weights(
    name: str, title: str, steps: str, start: str, notes: dict[tuple[str, str], dict[str, str]] | None = None
) -> Table:
    """Return a table that varies the weight of one loss."""
    lines = []
    for (setting, weight, value, default), printed_rows in groups(
        rows(name), "setting", "parameter", "value", "is_default"
    ):
        changed = "" if default == "1" else f"{weight}={value}"
        protector = selector(setting, retrained(steps, start), changed)
        said = (notes or {}).get((setting, value))
        lines.append(line((setting, f"{weight}={value}"), printed_rows, protector, notes=said))
    return Table(
        name,
        title,
        f"{PAPER}, Table {name[-1]}",
        ("method", "weight"),
        tuple(lines),
        settings=(STEPS, START),
        mean=True,
    )
