"""Names and what they stand for. Nothing heavy is imported until a plugin is used."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EnvironmentProblem, NothingSelected, UserError
from . import loading, selectors
from .loading import Problem, one_line

if TYPE_CHECKING:
    from ..contract.plugin import Plugin

KIND_NAMES = ("protector", "countermeasure", "victim", "dataset")


@dataclass(frozen=True)
class Entry:
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
def _load(entry: Entry) -> type[Plugin]:
    from ..contract.plugin import KINDS

    module_name, _, attribute = entry.target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a stranger's module may raise anything
        raise EnvironmentProblem(
            f"{entry.kind} {entry.name!r} of {entry.distribution} cannot be loaded: {one_line(error)}",
            "reinstall or remove that distribution",
        ) from error
    if not (isinstance(found, type) and issubclass(found, KINDS[entry.kind])):
        raise EnvironmentProblem(
            f"{entry.target} of {entry.distribution} is not a {KINDS[entry.kind].__name__} class",
            "fix the target it registers",
        )
    if found.name != entry.name:
        raise EnvironmentProblem(
            f"{entry.target} of {entry.distribution} calls itself {found.name!r} but is registered as {entry.name!r}",
            "give both the same name",
        )
    return found


@dataclass(frozen=True)
class NamedSet:
    """An ordered list of selectors under one name, such as the columns of a paper's table."""

    kind: str
    name: str
    members: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class TableEntry:
    """A registered table of a paper: the function that makes it, and what ``list`` says of it."""

    name: str
    target: str
    summary: str
    distribution: str


class Register:
    """What ``ue_bench_register`` receives. Call it for every plugin; nothing is imported."""

    def __init__(self, registry: Registry, distribution: str) -> None:
        self._registry, self._distribution = registry, distribution

    def __call__(self, kind: str, name: str, target: str, summary: str, tags: Iterable[str] = ()) -> None:
        """Register ``name`` of ``kind``; its class is ``target``, written ``package.module:Class``."""
        if kind not in KIND_NAMES:
            raise ValueError(f"no kind {kind!r}; kinds are {', '.join(KIND_NAMES)}")
        if not selectors.NAME.fullmatch(name) or set("*?") & set(name) or name == "all":
            raise ValueError(f"{name!r} cannot be the name of a plugin")
        taken = self._registry.entries.get((kind, name))
        if taken:
            raise ValueError(f"{kind} {name!r} is already registered by {taken.distribution}")
        self._registry.entries[kind, name] = Entry(kind, name, target, summary, tuple(tags), self._distribution)

    def set(self, kind: str, name: str, members: Iterable[str], summary: str) -> None:
        """Register ``@name`` as an ordered list of selectors."""
        if (kind, name) in self._registry.sets:
            raise ValueError(f"the set @{name} is already registered")
        self._registry.sets[kind, name] = NamedSet(kind, name, tuple(members), summary)

    def table(self, name: str, target: str, summary: str) -> None:
        """Register a table of a paper. ``target``, written ``package.module:function``, returns the table."""
        if not selectors.NAME.fullmatch(name) or set("*?") & set(name):
            raise ValueError(f"{name!r} cannot be the name of a table")
        taken = self._registry.tables.get(name)
        if taken:
            raise ValueError(f"table {name!r} is already registered by {taken.distribution}")
        self._registry.tables[name] = TableEntry(name, target, summary, self._distribution)


@dataclass
class Registry:
    """All registered plugins and sets, and the distributions that could not be used."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    sets: dict[tuple[str, str], NamedSet] = field(default_factory=dict)
    tables: dict[str, TableEntry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Entry]:
        """Entries of one kind by name."""
        return sorted((e for e in self.entries.values() if e.kind == kind), key=lambda e: e.name)

    def find(self, kind: str, name: str) -> Entry:
        """The entry of that name. Raises UserError with the nearest names when there is none."""
        entry = self.entries.get((kind, name))
        if entry is None:
            known = [e.name for e in self.of_kind(kind)]
            raise UserError(f"no {kind} {name!r}", did_you_mean(name, known))
        return entry

    def create(self, kind: str, name: str, parameters: dict[str, Any], folders: Iterable[Path] = ()) -> Plugin:
        """A plugin with these parameters. Raises UserError that names the valid ones with their ranges.

        ``folders`` is where inputs written as ``NAME#DIGEST`` are looked for beside the current folder.
        """
        from pydantic import ValidationError as PydanticError

        found = self.find(kind, name).plugin_class
        try:
            return found.model_validate(parameters, context={"folders": tuple(folders)})
        except PydanticError as error:
            first = error.errors()[0]
            parameter = str(first["loc"][0]) if first["loc"] else ""
            valid = "; ".join(describe(found)) or "it has none"
            if first["type"] == "extra_forbidden":
                raise UserError(f"{kind} {name!r} has no parameter {parameter!r}", f"parameters: {valid}") from None
            if first["type"] == "missing":
                raise UserError(f"{kind} {name!r} needs {parameter}=...", f"parameters: {valid}") from None
            reason = first["msg"].removeprefix("Value error, ")
            where = f"{name}[{parameter}={first['input']}]" if parameter else name
            raise UserError(f"{where}: {reason}", f"parameters: {valid}") from None

    def resolve(
        self, kind: str, text: str | Iterable[str], everything: Iterable[str] = (), folders: Iterable[Path] = ()
    ) -> list[Plugin]:
        """Plugins that selectors stand for, in order and without repetition.

        ``everything`` is what ``all`` means: the list of the board. ``folders`` are those of ``create``. Combinations
        ``a+b`` need a kind that can be combined, which is countermeasures. Raises UserError for names and parameters
        that do not exist, and NothingSelected when nothing is left.
        """
        everything, folders = tuple(everything), tuple(folders)
        chosen: dict[str, Plugin] = {}  # by all parameters: a selector would read the content of paths
        for term in selectors.parse(text):
            found = {repr(plugin): plugin for plugin in self._combined(kind, term, everything, folders)}
            if not term.exclude:
                chosen |= found
                continue
            chosen = {k: v for k, v in chosen.items() if k not in found}
            if not any(part.parameters for part in term.parts):  # a bare name takes every variant away
                bare = {v.name for v in found.values() if not v.changed()}
                chosen = {k: v for k, v in chosen.items() if v.name not in bare}
        if not chosen:
            raise NothingSelected(f"the selection of {kind}s is empty", f"see 'ue-bench list {kind}s'")
        return list(chosen.values())

    def _combined(
        self, kind: str, term: selectors.Term, everything: Iterable[str], folders: Iterable[Path]
    ) -> list[Plugin]:
        choices = [self._part(kind, part, everything, folders) for part in term.parts]
        if len(choices) == 1:
            return choices[0]
        if kind != "countermeasure":
            raise UserError(f"{kind}s cannot be combined with '+'", "give them as a comma-separated list")
        from ..contract.combination import combine

        combined = choices[0]
        for more in choices[1:]:
            combined = [combine(a, b) for a in combined for b in more]
        return combined

    def _part(
        self, kind: str, part: selectors.Part, everything: Iterable[str], folders: Iterable[Path]
    ) -> list[Plugin]:
        if part.name == "all" or part.name.startswith("@"):
            if part.parameters:
                raise UserError(f"{part.name} takes no parameters", "give them to a single name")
            return self._group(kind, part.name, everything, folders)
        names = [part.name]
        if set("*?") & set(part.name):
            matching = [e for e in self.of_kind(kind) if fnmatch.fnmatchcase(e.name, part.name)]
            names = [e.name for e in matching if part.parameters or e.complete]
            if not names:
                raise NothingSelected(f"no {kind} matches {part.name!r}", f"see 'ue-bench list {kind}s'")
        return [self.create(kind, name, values, folders) for name in names for values in part.combinations()]

    def _group(self, kind: str, name: str, everything: Iterable[str], folders: Iterable[Path]) -> list[Plugin]:
        if name == "all":
            members = list(everything) or [e.name for e in self.of_kind(kind) if e.complete]
            return self.resolve(kind, members, folders=folders)
        named = self.sets.get((kind, name[1:]))
        if named:
            return self.resolve(kind, named.members, folders=folders)
        tagged = [e.name for e in self.of_kind(kind) if name[1:] in e.tags]
        if not tagged:
            tags = {t for e in self.of_kind(kind) for t in e.tags}
            sets = {s.name for s in self.sets.values() if s.kind == kind}
            raise UserError(f"no {kind} is tagged {name}", did_you_mean(name[1:], sorted(tags | sets)))
        return [self.create(kind, n, {}) for n in tagged]


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint with the nearest of the known names, or all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"


def describe(plugin: type[Plugin]) -> list[str]:
    """One line a parameter: name, type, default and range."""
    properties = plugin.model_json_schema().get("properties", {})
    return [f"{name}={describe_property(spec)}" for name, spec in properties.items()]


def describe_property(spec: dict[str, Any]) -> str:
    """The values one parameter takes, from its JSON schema: ``integer 1..100, default 75``."""
    options = [o for o in spec.get("anyOf", [spec]) if o.get("type") != "null"]
    body = {**spec, **options[0]}
    if "enum" in body:
        text = "|".join(map(str, body["enum"]))
    elif "const" in body:
        text = str(body["const"])
    elif body.get("format") in (None, "ratio"):
        text = body.get("type", "value")
    else:
        text = body["format"]
    # pydantic writes the second spelling for a bound on an already annotated type
    low = next((body[k] for k in ("minimum", "exclusiveMinimum", "ge", "gt") if k in body), None)
    high = next((body[k] for k in ("maximum", "exclusiveMaximum", "le", "lt") if k in body), None)
    if low is not None or high is not None:
        text += f" {'' if low is None else low}..{'' if high is None else high}"
    if "default" in spec:
        from ..contract.plugin import format_value

        default = spec["default"]
        shown = default if isinstance(default, str) else format_value(default, body.get("format") == "ratio")
        text += f", default {shown}"
    return text


@cache
def registry() -> Registry:
    """The registry of this process, filled from all installed distributions."""
    found = Registry()
    loaded = loading.load()
    found.problems.extend(loaded.problems)
    for name, module in loaded.manager.list_name_plugin():
        implementation = getattr(module, "ue_bench_register", None)
        if implementation is None:
            continue
        label = loaded.distributions[name]
        try:
            implementation(register=Register(found, label))
        except Exception as error:  # a stranger's hook may raise anything
            found.problems.append(Problem(label, one_line(error)))
    return found
