"""Finding and loading plugin distributions, each on its own: a broken one loses only itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata

import pluggy

from . import hookspecs


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

    These modules are meant to be light: they say what exists and where it lives.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    distributions: dict[str, str] = {}
    problems: list[Problem] = []
    for distribution in metadata.distributions():
        entry_points = [e for e in distribution.entry_points if e.group == hookspecs.PROJECT]
        if not entry_points:
            continue
        label = f"{distribution.metadata['Name']} {distribution.version}"
        for entry_point in entry_points:
            if manager.has_plugin(entry_point.name):
                continue  # the same distribution seen twice on sys.path
            try:
                module = entry_point.load()
                manager.register(module, entry_point.name)
                manager.check_pending()
            except Exception as error:  # a stranger's module may raise anything
                manager.set_blocked(entry_point.name)
                problems.append(Problem(label, one_line(error)))
            else:
                distributions[entry_point.name] = label
    return Loaded(manager, distributions, tuple(problems))
