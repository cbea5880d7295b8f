"""Map names and selectors to plugins. Nothing heavy is imported until a plugin is used."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.registration import PluginRecord, Register, Registrations
from ..errors import EnvironmentProblem, NothingSelected, UserError, did_you_mean
from . import data_files, loading, selectors
from .describe import describe
from .loading import Problem

if TYPE_CHECKING:
    from ..contract.plugin import Plugin

LeftOut = Callable[[str, UserError], None]  # hears of a plugin by its selector, and of why it is not used


@dataclass
class Registry(Registrations):
    """Everything that is registered, and the distributions that could not be used."""

    problems: list[Problem] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[PluginRecord]:
        """Return the records of one kind, sorted by name."""
        return sorted((e for e in self.entries.values() if e.kind == kind), key=lambda e: e.name)

    def find(self, kind: str, name: str) -> PluginRecord:
        """Return the record of that name. Raises UserError with the nearest names when there is none."""
        entry = self.entries.get((kind, name))
        if entry is None:
            raise UserError(f"no {kind} {name!r}", self.nearest(name, [e.name for e in self.of_kind(kind)]))
        return entry

    def nearest(self, name: str, known: Iterable[str]) -> str:
        """Return a hint for a name that is none: what could not be loaded, which may have it, or the nearest names."""
        near = did_you_mean(name, known)
        if not self.problems or near.startswith("did you mean"):
            return near
        problem = self.problems[0]
        return f"{problem.distribution} cannot be used: {problem.reason}"

    def distribution(self, kind: str, name: str) -> str:
        """Return the name and version of the distribution that a plugin comes with; empty where that is not known."""
        entry = self.entries.get((kind, name))
        return entry.distribution if entry else ""

    def identity_notes(self) -> dict[str, str]:
        """Return, by name, why a countermeasure at its defaults changes nothing, for those that say so."""
        notes = {}
        for record in self.of_kind("countermeasure"):
            try:
                note = getattr(record.plugin_class, "identity_note", "")
            except EnvironmentProblem:  # of a distribution that nobody may have asked for
                continue
            if note:
                notes[record.name] = note
        return notes

    def create(self, kind: str, name: str, parameters: dict[str, Any], folders: Iterable[Path] = ()) -> Plugin:
        """Make a plugin with these parameters. Raises UserError that names the valid ones with their ranges.

        ``folders`` is where inputs written as ``NAME#DIGEST`` are looked for beside the current folder.
        """
        from pydantic import ValidationError as PydanticError

        plugin_class = self.find(kind, name).plugin_class
        try:
            return plugin_class.model_validate(parameters, context={"folders": tuple(folders)})
        except PydanticError as error:
            first = error.errors()[0]
            parameter = str(first["loc"][0]) if first["loc"] else ""
            valid = "; ".join(describe(plugin_class)) or "it has none"
            if first["type"] == "extra_forbidden":
                raise UserError(f"{kind} {name!r} has no parameter {parameter!r}", f"parameters: {valid}") from None
            if first["type"] == "missing":
                raise UserError(f"{kind} {name!r} needs {parameter}=...", f"parameters: {valid}") from None
            reason = first["msg"].removeprefix("Value error, ")
            where = f"{name}[{parameter}={first['input']}]" if parameter else name
            raise UserError(f"{where}: {reason}", f"parameters: {valid}") from None

    def resolve(
        self,
        kind: str,
        text: str | Iterable[str],
        everything: Iterable[str] = (),
        folders: Iterable[Path] = (),
        left_out: LeftOut | None = None,
    ) -> list[Plugin]:
        """Return the plugins that selectors stand for, in order and without repetition.

        ``everything`` is what ``all`` means: the list of the board. ``folders`` are those of ``create``. Combinations
        ``a+b`` need a kind that can be combined, which is countermeasures. With ``left_out``, what a glob or a tag
        stands for has to be there to be used, such as weights that a hub has: what is not is reported there and left
        out. What is named stays, and fails where it is used.

        Raises UserError for names and parameters that do not exist, and NothingSelected when nothing is left.
        """
        everything, folders = tuple(everything), tuple(folders)
        chosen: dict[str, Plugin] = {}  # by all parameters: a selector would read the content of paths
        for term in selectors.parse(text):
            if term.exclude and (named := self._named(kind, term)):
                # Every variant goes, also of what cannot be made without parameters.
                chosen = {k: v for k, v in chosen.items() if v.name not in named}
                continue
            plugins = {repr(plugin): plugin for plugin in self._combined(kind, term, everything, folders)}
            if not term.exclude:
                if left_out and any(self._is_open(kind, part.name) for part in term.parts):
                    new = {k: p for k, p in plugins.items() if k not in chosen}
                    plugins = {k: p for k, p in new.items() if _is_there(p, left_out)}
                chosen |= plugins
                continue
            chosen = {k: v for k, v in chosen.items() if k not in plugins}
            if not any(part.parameters for part in term.parts):
                bare = {v.name for v in plugins.values() if not v.changed()}
                chosen = {k: v for k, v in chosen.items() if v.name not in bare}
        if not chosen:
            raise NothingSelected(f"the selection of {kind}s is empty", f"see 'ue-bench list {kind}s'")
        return list(chosen.values())

    def one(self, kind: str, selector: str) -> Plugin:
        """Return the one plugin that ``selector`` stands for. Raises UserError when it stands for several."""
        plugins = self.resolve(kind, selector)
        if len(plugins) != 1:
            raise UserError(f"{selector!r} is {len(plugins)} {kind}s", f"name one {kind}")
        return plugins[0]

    def _is_open(self, kind: str, name: str) -> bool:
        """Whether ``name`` stands for whatever is installed and fits: a glob, or a tag that is no set of names."""
        return bool(set("*?") & set(name)) or (name.startswith("@") and (kind, name[1:]) not in self.sets)

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
        return [self.create(kind, n, {}) for n in tagged if self.find(kind, n).complete]

    def _named(self, kind: str, term: selectors.Term) -> set[str]:
        """Return the plugins that a single name, glob or tag without parameters stands for; none for other terms."""
        [part, *more] = term.parts
        if more or part.parameters or part.name == "all":
            return set()
        if set("*?") & set(part.name):
            return {e.name for e in self.of_kind(kind) if fnmatch.fnmatchcase(e.name, part.name)}
        if part.name.startswith("@"):
            is_set = (kind, part.name[1:]) in self.sets
            return set() if is_set else {e.name for e in self.of_kind(kind) if part.name[1:] in e.tags}
        return {self.find(kind, part.name).name}


def _is_there(plugin: Plugin, left_out: LeftOut) -> bool:
    """Whether all that makes up the identity of ``plugin`` can be had here; if not, say so to ``left_out``."""
    try:
        plugin.identity()
    except EnvironmentProblem as problem:
        left_out(plugin.selector, problem)
        return False
    return True


@cache
def registry() -> Registry:
    """Return the registry of this process, filled from all installed distributions."""
    names = Registry()
    data_files.register_own(names)
    loaded = loading.load()
    names.problems.extend(loaded.problems)
    names.problems.extend(
        loaded.call_each("ue_bench_register", lambda label, hook: hook(register=Register(names, label)))
    )
    return names
