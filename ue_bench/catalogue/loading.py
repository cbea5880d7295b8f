"""Finding and loading plugin distributions, each on its own: a broken one loses only itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata

import pluggy

from ..contract import hookspecs

OURS = "ue-bench"


@dataclass(frozen=True)
class Problem:
    """A distribution, or one of its plugins, that could not be used."""

    distribution: str
    reason: str


@dataclass(frozen=True)
class Loaded:
    """The plugin manager, with the distribution of every plugin module and what went wrong."""

    manager: pluggy.PluginManager
    distributions: dict[str, str]
    problems: tuple[Problem, ...]


def one_line(error: BaseException) -> str:
    """An exception as a user reads it: its type and the first line of its message."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


@cache
def load() -> Loaded:
    """Import every module named by an entry point of group ``ue_bench``.

    These modules are meant to be light: they say what exists and where it lives. Our own distribution comes first and
    the others by name, so that nobody else can take the name of a built-in plugin.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    distributions: dict[str, str] = {}
    problems: list[Problem] = []
    for (distribution, version), entry_points in sorted(_found().items(), key=lambda d: (d[0][0] != OURS, d[0])):
        label = f"{distribution} {version}"
        for entry_point in entry_points:
            name = f"{distribution}:{entry_point.name}"  # two distributions may use one entry-point name
            try:
                module = entry_point.load()
                manager.register(module, name)
                manager.check_pending()
            except Exception as error:  # a stranger's module may raise anything
                manager.set_blocked(name)
                problems.append(Problem(label, one_line(error)))
            else:
                distributions[name] = label
    return Loaded(manager, distributions, tuple(problems))


def _found() -> dict[tuple[str, str], list[metadata.EntryPoint]]:
    """Our entry points by name and version of their distribution; of one seen twice on sys.path the first."""
    found: dict[str, tuple[str, list[metadata.EntryPoint]]] = {}
    for distribution in metadata.distributions():
        try:
            entry_points = [e for e in distribution.entry_points if e.group == hookspecs.PROJECT]
            name, version = (distribution.metadata["Name"], distribution.version) if entry_points else ("", "")
        except Exception:  # half removed or damaged, and so nobody's plugin
            continue
        if name:
            found.setdefault(name, (version, entry_points))
    return {(name, version): entry_points for name, (version, entry_points) in found.items()}
