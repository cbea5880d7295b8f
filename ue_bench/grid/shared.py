"""What the cells of a grid have in common, computed once: a million cells have some thousand plugins between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from ..contract.plugin import Plugin
from ..keys import canonical_json, digest_text

T = TypeVar("T")


class Spelled(NamedTuple):
    """Plain data, and its canonical JSON."""

    value: Any
    text: str


def spell(value: Any) -> Spelled:
    """Return ``value`` with its canonical JSON."""
    return Spelled(value, canonical_json(value))


def digest_spelled(fields: Mapping[str, Spelled]) -> str:
    """Return what ``digest`` returns for the values of ``fields``, from texts that are there already."""
    return digest_text(joined({name: one.text for name, one in fields.items()}))


def joined(fields: Mapping[str, str]) -> str:
    """Return the canonical JSON of an object whose ``fields`` have these texts."""
    return "{" + ",".join([f'"{name}":{fields[name]}' for name in sorted(fields)]) + "}"


class Shared:
    """Keeps what depends on some axes of a grid alone. Plugins and protocols count by identity, not by equality.

    Cells of one grid hold the same object. It stays behind where a cell is sent to a worker.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._identities: dict[int, Spelled] = {}
        self._spelled: dict[tuple[type, Any], Spelled] = {}
        self._alive: dict[int, Any] = {}  # what is known by its identity must not be freed, or another could have it

    def __reduce__(self) -> tuple[type[Shared], tuple[()]]:
        return Shared, ()

    def once(self, what: Any, objects: tuple[Any, ...], values: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Return what ``make`` returned when it was first asked for ``what`` of these objects and these values."""
        place = (what, *map(id, objects), *values)
        try:
            found: T = self._kept[place]
        except KeyError:
            for one in objects:
                self._alive[id(one)] = one
            found = self._kept[place] = make()
        return found

    def identity(self, plugin: Plugin) -> Spelled:
        """Return the identity of ``plugin``."""
        found = self._identities.get(id(plugin))
        if found is None:
            self._alive[id(plugin)] = plugin
            found = self._identities[id(plugin)] = spell(plugin.identity())
        return found

    def selector(self, plugin: Plugin) -> str:
        """Return the canonical selector of ``plugin``."""
        return self.once("selector", (plugin,), (), lambda: plugin.selector)

    def scalar(self, value: str | int | float | bool | None) -> Spelled:
        """Return a single value, spelled. One and 1.0 are two values: JSON tells them apart."""
        place = (type(value), value)
        found = self._spelled.get(place)
        if found is None:
            found = self._spelled[place] = spell(value)
        return found
