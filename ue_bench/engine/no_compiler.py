"""Train without torch's compiler, which every optimizer of torch imports although nothing is compiled."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


class CompilerStandIn(ModuleType):
    """What optimizers ask of the compiler while nothing is compiled; any other attribute imports the real one."""

    def graph_break(self, msg: str = "") -> None:
        """Do nothing, as the compiler does outside of its own work."""

    def disable(self, fn: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
        """Return ``fn``: nothing compiles it."""
        return fn

    def __getattr__(self, name: str) -> Any:
        # ``__path__`` is asked for when a module of the package is imported. Attributes that modules need not have are
        # looked up by inspection and pickling, which need no compiler.
        if name != "__path__" and name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)


def leave_compiler_out() -> None:
    """Put a stand-in for torch's compiler where its optimizers import it: over a second of CPU for each process.

    The first use of anything else of it, such as by ``torch.compile``, imports the real one. Nothing is done where it
    has been imported.
    """
    import torch

    if COMPILER not in sys.modules:
        stand_in = CompilerStandIn(COMPILER)
        sys.modules[COMPILER] = stand_in
        torch._dynamo = stand_in  # type: ignore[assignment, unused-ignore]  # what is imported becomes an attribute
