"""Find and load plugin distributions, each on its own: a broken one loses only itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import pluggy

from ..contract import hookspecs
from ..errors import one_line

OURS = "ue-bench"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("ue_bench_"))


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

    def call_each(self, hook: str, call: Callable[[str, Callable[..., None]], None]) -> list[Problem]:
        """Give every implementation of ``hook`` to ``call``, one by one; return the problems of those that raise.

        ``call`` receives the distribution's name and version and the implementation, which takes the arguments of the
        hook by name. pluggy's own order, ``tryfirst`` and ``trylast`` included, save that ours come before all others:
        nobody else can take the name of a built-in plugin.
        """
        problems = []
        implementations = [i for i in reversed(_implementations(self.manager, hook)) if not _fault(i)]
        for implementation in sorted(implementations, key=lambda i: not self._label(i).startswith(f"{OURS} ")):
            try:
                call(self._label(implementation), _with_its_arguments(implementation))
            except (Exception, SystemExit) as error:  # a third-party hook may raise anything
                problems.append(Problem(self._label(implementation), one_line(error)))
        return problems

    def _label(self, implementation: pluggy.HookImpl) -> str:
        return self.distributions[implementation.plugin_name]


def _with_its_arguments(implementation: pluggy.HookImpl) -> Callable[..., None]:
    def call(**arguments: Any) -> None:
        implementation.function(*(arguments[name] for name in implementation.argnames))

    return call


def _implementations(manager: pluggy.PluginManager, hook: str) -> list[pluggy.HookImpl]:
    """Return all implementations, the one to be called last first."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    return caller.get_hookimpls()


def _fault(implementation: pluggy.HookImpl) -> str:
    """Return why an implementation cannot be called, or an empty text: pluggy would ignore it in silence."""
    if implementation.wrapper or implementation.hookwrapper:
        return "is a wrapper, but every implementation of this hook is called on its own"
    function = inspect.unwrap(implementation.function)
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        return "is a generator or a coroutine, which does nothing when it is called"
    return ""


@cache
def load() -> Loaded:
    """Import every module named by an entry point of group ``ue_bench``.

    These modules are meant to be light: they say what exists and where it lives. Our own distribution comes first and
    the others by name.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    distributions: dict[str, str] = {}
    problems: list[Problem] = []
    modules: dict[str, Any] = {}
    for (distribution, version), entry_points in sorted(_entry_points().items(), key=lambda d: (d[0][0] != OURS, d[0])):
        label = f"{distribution} {version}"
        for entry_point in entry_points:
            name = f"{distribution}:{entry_point.name}"  # two distributions may use one entry-point name
            try:
                modules[name] = entry_point.load()
            except (Exception, SystemExit) as error:  # a third-party module may raise anything
                problems.append(Problem(label, one_line(error)))
            else:
                distributions[name] = label
    for name, module in reversed(modules.items()):  # pluggy calls the last one first
        try:
            manager.register(module, name)
            manager.check_pending()
        except Exception as error:
            manager.set_blocked(name)
            problems.append(Problem(distributions.pop(name), one_line(error)))
        else:
            problems += [Problem(distributions[name], reason) for reason in _faults(manager, module, name)]
    order = list(dict.fromkeys([*distributions.values(), *(p.distribution for p in problems)]))
    return Loaded(manager, distributions, tuple(sorted(problems, key=lambda p: order.index(p.distribution))))


def _faults(manager: pluggy.PluginManager, module: Any, name: str) -> Iterator[str]:
    """Yield what looks like a hook in a module and is none."""
    for hook in HOOKS:
        # In this order: pluggy 1.5 raises for a module that has no such name.
        if callable(getattr(module, hook, None)) and manager.parse_hookimpl_opts(module, hook) is None:
            yield f"{hook} is not marked with @hookimpl"
        for implementation in _implementations(manager, hook):
            if implementation.plugin_name == name and _fault(implementation):
                yield f"{implementation.function.__name__} {_fault(implementation)}"


def _entry_points() -> dict[tuple[str, str], list[metadata.EntryPoint]]:
    """Return our entry points by name and version of their distribution; of one seen twice on sys.path the first."""
    by_name: dict[str, tuple[str, list[metadata.EntryPoint]]] = {}
    for distribution in metadata.distributions():
        try:
            entry_points = [e for e in distribution.entry_points if e.group == hookspecs.PROJECT]
            name, version = (distribution.metadata["Name"], distribution.version) if entry_points else ("", "")
        except Exception:  # half removed or damaged, and so nobody's plugin
            continue
        if name:
            by_name.setdefault(name, (version, entry_points))
    return {(name, version): entry_points for name, (version, entry_points) in by_name.items()}
