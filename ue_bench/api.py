"""Everything a plugin may use, and nothing else.

A distribution registers its plugins through an entry point of group ``ue_bench`` that names a light module with a
``ue_bench_register`` hook. Names are imported when they are first used, so such a module costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .hookspecs import hookimpl

if TYPE_CHECKING:
    from .access import find_protector, open_dataset, open_protector
    from .base import (
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
    )
    from .budget import ssim
    from .command_tools import ProgressLine, usable_device
    from .context import Context, TrainContext
    from .errors import EnvironmentProblem, UserError, ValidationError
    from .figures import check_output, picture_grid, write_output
    from .imageset import ImageSet
    from .registry import Register
    from .seeds import derive
    from .stored import Stored, open_stored
    from .surrogates import training_passes

_HOMES = {
    "Context": "context",
    "Countermeasure": "base",
    "Dataset": "base",
    "EnvironmentProblem": "errors",
    "ImageSet": "imageset",
    "InputPath": "base",
    "NetworkCost": "base",
    "Plugin": "base",
    "Preprocessing": "base",
    "ProgressLine": "command_tools",
    "Protector": "base",
    "Ratio": "base",
    "Register": "registry",
    "Stored": "stored",
    "TrainContext": "context",
    "UserError": "errors",
    "ValidationError": "errors",
    "Victim": "base",
    "check_output": "figures",
    "derive": "seeds",
    "digest_path": "base",
    "find_protector": "access",
    "open_dataset": "access",
    "open_protector": "access",
    "open_stored": "stored",
    "picture_grid": "figures",
    "ssim": "budget",
    "training_passes": "surrogates",
    "usable_device": "command_tools",
    "write_output": "figures",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"ue_bench.api has no {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __package__), name)
    globals()[name] = value
    return value


__all__ = [
    "Context",
    "Countermeasure",
    "Dataset",
    "EnvironmentProblem",
    "ImageSet",
    "InputPath",
    "NetworkCost",
    "Plugin",
    "Preprocessing",
    "ProgressLine",
    "Protector",
    "Ratio",
    "Register",
    "Stored",
    "TrainContext",
    "UserError",
    "ValidationError",
    "Victim",
    "check_output",
    "derive",
    "digest_path",
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
]
