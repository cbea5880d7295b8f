"""Everything a plugin may use, and nothing else.

A distribution registers its plugins through an entry point of group ``ue_bench`` that names a light module with a
``ue_bench_register`` hook. Names are imported when they are first used, so such a module costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from .catalogue.selectors import write_text
    from .contract.context import Context, TrainContext
    from .contract.imageset import ImageSet
    from .contract.plugin import (
        Countermeasure,
        Dataset,
        InputPath,
        NetworkCost,
        Plugin,
        Preprocessing,
        Protector,
        Ratio,
        Victim,
        digest_path,
        find_input,
    )
    from .contract.registration import Register
    from .contract.table import Ask, Line, Setting, Table
    from .errors import EnvironmentProblem, UserError, ValidationError
    from .grid.opening import find_protector, open_dataset, open_protector
    from .grid.surrogates import training_passes
    from .leaderboard.figures import check_output, picture_grid, write_output
    from .progress import ProgressLine, usable_device
    from .seeds import derive
    from .store.image_readers import Stored, open_stored
    from .store.perturbation import ssim

_HOMES = {
    "Ask": "contract.table",
    "Context": "contract.context",
    "Countermeasure": "contract.plugin",
    "Dataset": "contract.plugin",
    "EnvironmentProblem": "errors",
    "ImageSet": "contract.imageset",
    "InputPath": "contract.plugin",
    "Line": "contract.table",
    "NetworkCost": "contract.plugin",
    "Plugin": "contract.plugin",
    "Preprocessing": "contract.plugin",
    "ProgressLine": "progress",
    "Protector": "contract.plugin",
    "Ratio": "contract.plugin",
    "Register": "contract.registration",
    "Setting": "contract.table",
    "Stored": "store.image_readers",
    "Table": "contract.table",
    "TrainContext": "contract.context",
    "UserError": "errors",
    "ValidationError": "errors",
    "Victim": "contract.plugin",
    "check_output": "leaderboard.figures",
    "derive": "seeds",
    "digest_path": "contract.plugin",
    "find_input": "contract.plugin",
    "find_protector": "grid.opening",
    "open_dataset": "grid.opening",
    "open_protector": "grid.opening",
    "open_stored": "store.image_readers",
    "picture_grid": "leaderboard.figures",
    "ssim": "store.perturbation",
    "training_passes": "grid.surrogates",
    "usable_device": "progress",
    "write_output": "leaderboard.figures",
    "write_text": "catalogue.selectors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"ue_bench.api has no {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __package__), name)
    globals()[name] = value
    return value


__all__ = [
    "Ask",
    "Context",
    "Countermeasure",
    "Dataset",
    "EnvironmentProblem",
    "ImageSet",
    "InputPath",
    "Line",
    "NetworkCost",
    "Plugin",
    "Preprocessing",
    "ProgressLine",
    "Protector",
    "Ratio",
    "Register",
    "Setting",
    "Stored",
    "Table",
    "TrainContext",
    "UserError",
    "ValidationError",
    "Victim",
    "check_output",
    "derive",
    "digest_path",
    "find_input",
    "find_protector",
    "hookimpl",
    "open_dataset",
    "open_protector",
    "open_stored",
    "picture_grid",
    "ssim",
    "training_passes",
    "usable_device",
    "write_output",
    "write_text",
]
