"""Records of what distributions register, and the object that ``ue_bench_register`` receives to write them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import EnvironmentProblem, one_line

if TYPE_CHECKING:
    from .plugin import Plugin

KIND_NAMES = ("protector", "countermeasure", "victim", "dataset")
PLUGIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
RESOURCE = re.compile(r"[A-Za-z_][\w.]*:[^:]+\.toml")


@dataclass(frozen=True)
class PluginRecord:
    """One registered plugin: where its class lives, and what ``list`` says of it."""

    kind: str
    name: str
    target: str
    summary: str
    tags: tuple[str, ...]
    distribution: str

    @property
    def complete(self) -> bool:
        """Whether the bare name is a plugin: no parameter without a default."""
        return not any(f.is_required() for f in self.plugin_class.model_fields.values())

    @property
    def plugin_class(self) -> type[Plugin]:
        """The class, imported now. Raises EnvironmentProblem in one line when that fails."""
        return _load(self)


@cache
def _load(record: PluginRecord) -> type[Plugin]:
    from .plugin import KINDS

    module_name, _, attribute = record.target.partition(":")
    try:
        plugin_class = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a third-party module may raise anything
        raise EnvironmentProblem(
            f"{record.kind} {record.name!r} of {record.distribution} cannot be loaded: {one_line(error)}",
            "reinstall or remove that distribution",
        ) from error
    if not (isinstance(plugin_class, type) and issubclass(plugin_class, KINDS[record.kind])):
        raise EnvironmentProblem(
            f"{record.target} of {record.distribution} is not a {KINDS[record.kind].__name__} class",
            "fix the target it registers",
        )
    if plugin_class.name != record.name:
        raise EnvironmentProblem(
            f"{record.target} of {record.distribution} calls itself {plugin_class.name!r} but is registered as "
            f"{record.name!r}",
            "give both the same name",
        )
    return plugin_class


@dataclass(frozen=True)
class NamedSet:
    """An ordered list of selectors under one name, such as the columns of a paper's table."""

    kind: str
    name: str
    members: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class DataRecord:
    """A registered board or protocol.

    ``source`` is a TOML file of a package, written ``package:folder/file.toml``, or what such a file would hold.
    """

    kind: str
    name: str
    source: str | Mapping[str, Any]
    distribution: str


@dataclass(frozen=True)
class TableRecord:
    """A registered table of a paper: the function that makes it, and what ``list`` says of it."""

    name: str
    target: str
    summary: str
    distribution: str


@dataclass
class Registrations:
    """Everything that distributions have registered so far."""

    entries: dict[tuple[str, str], PluginRecord] = field(default_factory=dict)
    sets: dict[tuple[str, str], NamedSet] = field(default_factory=dict)
    boards: dict[str, DataRecord] = field(default_factory=dict)
    protocols: dict[str, DataRecord] = field(default_factory=dict)
    tables: dict[str, TableRecord] = field(default_factory=dict)


class Register:
    """The object that ``ue_bench_register`` receives. Call it for every plugin; nothing is imported or read.

    Everything raises ValueError for a name that is taken or that selectors cannot write.
    """

    def __init__(self, registrations: Registrations, distribution: str) -> None:
        self._registrations, self._distribution = registrations, distribution

    def __call__(self, kind: str, name: str, target: str, summary: str, tags: Iterable[str] = ()) -> None:
        """Register ``name`` of ``kind``; its class is ``target``, written ``package.module:Class``."""
        if kind not in KIND_NAMES:
            raise ValueError(f"no kind {kind!r}; kinds are {', '.join(KIND_NAMES)}")
        _check_name(name, "a plugin")
        taken = self._registrations.entries.get((kind, name))
        if taken:
            raise ValueError(f"{kind} {name!r} is already registered by {taken.distribution}")
        record = PluginRecord(kind, name, target, summary, tuple(tags), self._distribution)
        self._registrations.entries[kind, name] = record

    def set(self, kind: str, name: str, members: Iterable[str], summary: str) -> None:
        """Register ``@name`` as an ordered list of selectors."""
        if (kind, name) in self._registrations.sets:
            raise ValueError(f"the set @{name} is already registered")
        self._registrations.sets[kind, name] = NamedSet(kind, name, tuple(members), summary)

    def board(self, name: str, source: str | Mapping[str, Any]) -> None:
        """Register a board: a TOML file of a package, ``package:folder/file.toml``, or its keys and values."""
        self._add(self._registrations.boards, "board", name, source)

    def protocol(self, name: str, source: str | Mapping[str, Any]) -> None:
        """Register a protocol, given as for ``board``."""
        self._add(self._registrations.protocols, "protocol", name, source)

    def table(self, name: str, target: str, summary: str) -> None:
        """Register a table of a paper. ``target``, written ``package.module:function``, returns it."""
        _check_name(name, "a table")
        taken = self._registrations.tables.get(name)
        if taken:
            raise ValueError(f"table {name!r} is already registered by {taken.distribution}")
        self._registrations.tables[name] = TableRecord(name, target, summary, self._distribution)

    def _add(self, records: dict[str, DataRecord], kind: str, name: str, source: str | Mapping[str, Any]) -> None:
        _check_name(name, f"a {kind}")
        if name.endswith(".toml"):
            raise ValueError(f"{name!r} cannot be the name of a {kind}: it would be read as a file")
        if isinstance(source, str) and not RESOURCE.fullmatch(source):
            raise ValueError(f"{kind} {name!r}: {source!r} is not written package:folder/file.toml")
        if not isinstance(source, str | Mapping):
            raise ValueError(f"{kind} {name!r} is neither the name of a file nor a mapping")
        if name in records:
            raise ValueError(f"{kind} {name!r} is already registered by {records[name].distribution}")
        records[name] = DataRecord(kind, name, source, self._distribution)


def _check_name(name: str, what: str) -> None:
    if not PLUGIN_NAME.fullmatch(name) or name == "all":
        raise ValueError(f"{name!r} cannot be the name of {what}")
