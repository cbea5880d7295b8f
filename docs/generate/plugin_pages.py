"""Write the page of one plugin from its docstring and parameters, and the page that lists all of a kind."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ue_bench.catalogue.boards import board, names
from ue_bench.catalogue.describe import describe_property
from ue_bench.catalogue.facts import ANSWERS, Facts
from ue_bench.contract.plugin import megapixels
from ue_bench.contract.registration import KIND_NAMES
from ue_bench.contract.values import format_value

HEADINGS = {"protector": "Protectors", "countermeasure": "Countermeasures", "victim": "Victims", "dataset": "Datasets"}
assert tuple(HEADINGS) == KIND_NAMES


def address(kind: str, name: str = "index") -> str:
    """Return the path of a page in the documentation."""
    return f"methods/{kind}s/{name}.md"


def overview(kind: str, known: Iterable[Facts]) -> str:
    """Return the page of a kind: a line for each plugin."""
    lines = [f"# {HEADINGS[kind]}, one page each", "", "| name | what it does | tags |", "|---|---|---|"]
    for facts in known:
        record = facts.record
        tags = " ".join(f"`@{tag}`" for tag in record.tags)
        lines.append(f"| [`{record.name}`]({record.name}.md) | {cell(record.summary)} | {tags} |")
    return "\n".join([*lines, ""])


def plugin_page(facts: Facts, measured: Collection[str] = ()) -> str:
    """Return the page of one plugin: what it does, how it differs from its paper, what to expect, its parameters.

    ``measured`` are the boards that have tables on the site.
    """
    record, parts = facts.record, facts.sections
    lines = [f"# {record.name}", "", prose(parts.opening), ""]
    lines += ["| | |", "|---|---|", *(f"| {head} | {cell(value)} |" for head, value in glance(facts, measured)), ""]
    for heading, text in (
        ("What it does", parts.method),
        ("Where it differs from the paper or its code", parts.deviations),
        ("Numbers to expect", parts.expected),
        ("Errors", parts.raises),
    ):
        if text:
            lines += [f"## {heading}", "", prose(text), ""]
    lines += ["## Parameters", ""]
    if facts.parameters:
        lines += ["| parameter | values | meaning |", "|---|---|---|"]
        for name, schema in facts.parameters.items():
            values, meaning = describe_property(schema), schema.get("description", "")
            lines.append(f"| `{name}` | {cell(values)} | {cell(meaning)} |")
    else:
        lines.append("It has none.")
    return "\n".join([*lines, ""])


def glance(facts: Facts, measured: Collection[str]) -> list[tuple[str, str]]:
    """Return what a reader looks for first, as heads and values; without those that say nothing."""
    record = facts.record
    on = [
        f"[`{name}`](../../leaderboards/{name}/tables.md)" if name in measured else f"`{name}`"
        for name in names()
        if record.name in _words(name, record.kind)
    ]
    rows = [
        ("kind", record.kind),
        ("paper", facts.paper),
        ("tags", " ".join(f"`@{tag}`" for tag in record.tags)),
        ("declared budget", facts.budget),
        ("needs a network", "yes" if facts.uses_networks else ""),
        ("can be undone", "yes, by `ue-bench recover`" if facts.recovers else ""),
        ("largest image", megapixels(facts.largest_image) if facts.largest_image else ""),
        ("changes nothing", facts.note),
        ("passes an image", f"{facts.passes:.3g}, where plain training has 1" if facts.passes > 1 else ""),
        ("clean images it needs", f"{facts.clean_images:,}" if facts.clean_images else ""),
        ("what it must know", facts.must_know),
        ("queries", ANSWERS if facts.answers_queries else ""),
        ("differs from the protocol in", _fields(facts)),
        ("on the boards", " ".join(on)),
        ("revision", str(facts.revision)),
        ("distribution", record.distribution.partition(" ")[0]),
        ("on the command line", f"`ue-bench show {record.name}`"),
    ]
    return [(head, value) for head, value in rows if value]


def _fields(facts: Facts) -> str:
    return ", ".join(f"`{field}={format_value(value)}`" for field, value in facts.protocol_fields.items())


def _words(name: str, kind: str) -> set[str]:
    """Return the names of plugins of a kind that a board's selectors hold, also within its sets."""
    from ue_bench.catalogue.registry import registry

    shown = board(name)
    selectors = {
        "protector": (*shown.reference, *shown.protectors),
        "countermeasure": shown.countermeasures,
        "victim": shown.victims,
        "dataset": (shown.dataset,),
    }[kind]
    members = [
        member
        for selector in selectors
        for member in (registry().sets[kind, selector[1:]].members if selector.startswith("@") else (selector,))
    ]
    return {part.partition("[")[0] for member in members for part in re.split(r"\+(?![^\[]*\])", member)}


def prose(text: str) -> str:
    """Return a docstring's paragraphs as Markdown: code spans, lists apart from the text above them, signs as they are.

    >>> prose("One of ``a``, x < 2:\\n- ``b``\\n  more\\n- c")
    'One of `a`, x &lt; 2:\\n\\n- `b`\\n    more\\n- c'
    """
    lines: list[str] = []
    for line in text.replace("``", "`").splitlines():
        if line.startswith("- ") and lines and lines[-1] and not lines[-1].startswith(("- ", "    ")):
            lines.append("")
        lines.append(re.sub(r"^ +", "    ", line))
    return escaped("\n".join(lines))


def cell(text: str) -> str:
    """Return text of one line as the cell of a table."""
    return escaped(" ".join(text.replace("``", "`").split())).replace("|", "\\|")


def escaped(text: str) -> str:
    """Return Markdown in which what looks like HTML, or like emphasis, is text; code spans stay as they are."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = [re.sub(r"([*_])(?=\S)", r"\\\1", part.replace("<", "&lt;")) for part in parts[::2]]
    return "".join(piece for pair in zip(plain, [*parts[1::2], ""], strict=True) for piece in pair)
