"""ue-bench: a plugin-based benchmark of unlearnable examples.

    import ue_bench

    results = ue_bench.run(board="demo", protectors="deephiding", countermeasures="all")
    print(results.table())

Names are imported when they are first used: importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .library import load_board, load_results, protect, recover, run

__version__ = "0.1.0"
__all__ = ["__version__", "load_board", "load_results", "protect", "recover", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ue_bench' has no attribute {name!r}")
    return getattr(import_module(".library", __package__), name)
