"""Collect what a plugin says of itself, for whatever shows a method: ``show``, pages of a board, the documentation."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .registry import registry

if TYPE_CHECKING:
    from ..contract.plugin import Plugin
    from ..contract.registration import PluginRecord

# A paragraph that begins so, in a docstring, is about that; see "Parameters" in docs/plugins.md.
PAIRS = "the adversary knows which training images its clean ones are"  # said of what ``needs_pairs``
QUERIES = "the adversary has its clean images protected by the owner's service, and leaves them out of the set"
ANSWERS = "images that come after the set can be protected as it was"  # said of what ``answers_queries``
BEGINNINGS = {
    "deviations": re.compile(r"(Further )?[Dd]eviations?\b"),
    "expected": re.compile(r"(Expect|Published|No published|No paper publishes|Reported)\b"),
    "raises": re.compile(r"Raises\b"),
}
# Between paragraphs, and before a sentence within one that begins like those above.
BREAK = re.compile(r"\n\s*\n|(?<=\.)\s+(?=Deviations?: |Published for |Reported, |Raises [A-Z])")


@dataclass(frozen=True)
class Sections:
    """A docstring by what its paragraphs are about, each part in the order of the docstring, joined by empty lines.

    ``opening`` is the first paragraph and ``method`` whatever is in none of the others. Parts may be empty.
    """

    opening: str
    method: str
    deviations: str
    expected: str
    raises: str


@dataclass(frozen=True)
class Facts:
    """What is known of a plugin without running it. ``text`` is its docstring, ``parameters`` its JSON schema by name.

    ``plugin`` is an instance: the one that was asked for, else the one with all defaults, else None where a parameter
    has no default. What depends on parameters is empty then.
    """

    record: PluginRecord
    plugin: Plugin | None
    paper: str
    revision: int
    text: str
    parameters: dict[str, Any]

    @property
    def sections(self) -> Sections:
        return sections(self.text)

    @property
    def note(self) -> str:
        """Why a countermeasure at its defaults changes nothing; empty for all others."""
        return str(getattr(self.record.plugin_class, "identity_note", ""))

    @property
    def budget(self) -> str:
        """The bound that a protector declares, such as ``linf 8/255``; empty for other kinds."""
        from ..contract.plugin import Protector

        return self.plugin.budget if isinstance(self.plugin, Protector) else ""

    @property
    def uses_networks(self) -> bool:
        """Whether a protector trains or attacks networks."""
        from ..contract.plugin import Protector

        return isinstance(self.plugin, Protector) and self.plugin.uses_networks

    @property
    def recovers(self) -> bool:
        """Whether a protector can be undone."""
        from ..contract.plugin import Protector

        return isinstance(self.plugin, Protector) and self.plugin.recovers()

    @property
    def largest_image(self) -> int:
        """Pixels of the largest image that a protector takes; 0 for other kinds."""
        from ..contract.plugin import Protector

        return self.plugin.largest_image if isinstance(self.plugin, Protector) else 0

    @property
    def clean_images(self) -> int:
        """How many clean training images a countermeasure needs."""
        from ..contract.plugin import Countermeasure

        return self.plugin.clean_images if isinstance(self.plugin, Countermeasure) else 0

    @property
    def must_know(self) -> str:
        """What the adversary of a countermeasure knows beyond the clean images it has; empty for nothing."""
        from ..contract.plugin import Countermeasure

        if not isinstance(self.plugin, Countermeasure):
            return ""
        return QUERIES if self.plugin.queries else PAIRS if self.plugin.needs_pairs else ""

    @property
    def answers_queries(self) -> bool:
        """Whether a protector can protect images that come after the set as it was protected."""
        from ..contract.plugin import Protector

        return isinstance(self.plugin, Protector) and self.plugin.answers_queries

    @property
    def passes(self) -> float:
        """Network passes that an image costs under a countermeasure, 1 in plain training; 0 for other kinds."""
        from ..contract.plugin import Countermeasure

        return self.plugin.passes if isinstance(self.plugin, Countermeasure) else 0

    @property
    def protocol_fields(self) -> dict[str, Any]:
        """The fields of the protocol that a victim changes."""
        from ..contract.plugin import Victim

        return self.plugin.optimizer() if isinstance(self.plugin, Victim) else {}


def facts(record: PluginRecord, selector: str = "") -> Facts:
    """Return the facts of a registered plugin, at the parameters of ``selector`` or at its defaults.

    Raises UserError for a selector that stands for nothing, or for several plugins; EnvironmentProblem where the class
    cannot be loaded.
    """
    plugin_class = record.plugin_class
    plugin: Plugin | None = None
    if selector not in ("", record.name):
        plugin = registry().one(record.kind, selector)
    elif record.complete:
        plugin = plugin_class()
    return Facts(
        record,
        plugin,
        plugin_class.paper,
        plugin_class.revision,
        inspect.getdoc(plugin_class) or "",
        plugin_class.model_json_schema().get("properties", {}),
    )


def sections(text: str) -> Sections:
    """Return a docstring by what its paragraphs are about. A list belongs to the paragraph above it."""
    parts: dict[str, list[str]] = {name: [] for name in ("opening", "method", *BEGINNINGS)}
    about = "opening"
    for paragraph in BREAK.split(text.strip()):
        if not paragraph.startswith("- "):
            about = next((name for name, start in BEGINNINGS.items() if start.match(paragraph)), "method")
            about = about if parts["opening"] else "opening"
        parts[about].append(paragraph)
    return Sections(**{name: "\n\n".join(paragraphs) for name, paragraphs in parts.items()})
