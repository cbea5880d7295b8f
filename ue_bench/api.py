"""Everything that a plugin may use, and nothing else.

A distribution registers its plugins through an entry point of group ``ue_bench`` that names a light module with a
``ue_bench_register`` hook. Names are imported when they are first used, so such a module costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from .atomic import (
        check_output,
        claim_checkpoint,
        kept_images,
        load_arrays,
        load_checkpoint,
        replacing,
        save_arrays,
        save_checkpoint,
        write_atomically,
        write_output,
    )
    from .cli.training import TrainingOptions, device_option, folder_options, training_options
    from .contract.context import Context, TrainContext
    from .contract.imageset import ImageSet, release
    from .contract.inputs import InputPath, digest_path, find_input
    from .contract.plugin import Countermeasure, Dataset, NetworkCost, Plugin, Preprocessing, Protector, Victim
    from .contract.registration import Register
    from .contract.table import Ask, Line, Setting, Table
    from .contract.values import Ratio, write_text
    from .engine.divergence import DivergenceCheck, check_finite, not_finite
    from .engine.training_log import TrainingLog, best_validation, describe_data, describe_environment
    from .errors import Diverged, EnvironmentProblem, UserError, ValidationError, first_line
    from .files import check_file, class_folders, visible_files
    from .grid.opening import find_protector, open_dataset, open_protector
    from .grid.surrogates import training_passes
    from .keys import json_ready
    from .leaderboard.figures import picture_grid
    from .network_files import load_weights, save_weights
    from .progress import ProgressLine, usable_device
    from .seeds import derive
    from .store.image_readers import Stored, StoredNoise, open_noise, open_stored
    from .store.perturbation import ssim

_HOMES = {
    "Ask": "contract.table",
    "Context": "contract.context",
    "Countermeasure": "contract.plugin",
    "Dataset": "contract.plugin",
    "Diverged": "errors",
    "DivergenceCheck": "engine.divergence",
    "EnvironmentProblem": "errors",
    "ImageSet": "contract.imageset",
    "InputPath": "contract.inputs",
    "Line": "contract.table",
    "NetworkCost": "contract.plugin",
    "Plugin": "contract.plugin",
    "Preprocessing": "contract.plugin",
    "ProgressLine": "progress",
    "Protector": "contract.plugin",
    "Ratio": "contract.values",
    "Register": "contract.registration",
    "Setting": "contract.table",
    "Stored": "store.image_readers",
    "StoredNoise": "store.image_readers",
    "Table": "contract.table",
    "TrainContext": "contract.context",
    "TrainingLog": "engine.training_log",
    "TrainingOptions": "cli.training",
    "UserError": "errors",
    "ValidationError": "errors",
    "Victim": "contract.plugin",
    "best_validation": "engine.training_log",
    "check_file": "files",
    "check_finite": "engine.divergence",
    "check_output": "atomic",
    "claim_checkpoint": "atomic",
    "class_folders": "files",
    "derive": "seeds",
    "describe_data": "engine.training_log",
    "describe_environment": "engine.training_log",
    "device_option": "cli.training",
    "digest_path": "contract.inputs",
    "find_input": "contract.inputs",
    "find_protector": "grid.opening",
    "first_line": "errors",
    "folder_options": "cli.training",
    "kept_images": "atomic",
    "load_arrays": "atomic",
    "load_checkpoint": "atomic",
    "load_weights": "network_files",
    "json_ready": "keys",
    "not_finite": "engine.divergence",
    "open_dataset": "grid.opening",
    "open_noise": "store.image_readers",
    "open_protector": "grid.opening",
    "open_stored": "store.image_readers",
    "picture_grid": "leaderboard.figures",
    "replacing": "atomic",
    "save_arrays": "atomic",
    "save_checkpoint": "atomic",
    "save_weights": "network_files",
    "release": "contract.imageset",
    "ssim": "store.perturbation",
    "training_options": "cli.training",
    "training_passes": "grid.surrogates",
    "usable_device": "progress",
    "visible_files": "files",
    "write_atomically": "atomic",
    "write_output": "atomic",
    "write_text": "contract.values",
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
    "Diverged",
    "DivergenceCheck",
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
    "StoredNoise",
    "Table",
    "TrainContext",
    "TrainingLog",
    "TrainingOptions",
    "UserError",
    "ValidationError",
    "Victim",
    "best_validation",
    "check_file",
    "check_finite",
    "check_output",
    "claim_checkpoint",
    "class_folders",
    "derive",
    "describe_data",
    "describe_environment",
    "device_option",
    "digest_path",
    "find_input",
    "find_protector",
    "first_line",
    "folder_options",
    "hookimpl",
    "json_ready",
    "kept_images",
    "load_arrays",
    "load_checkpoint",
    "load_weights",
    "not_finite",
    "open_dataset",
    "open_noise",
    "open_protector",
    "open_stored",
    "picture_grid",
    "release",
    "replacing",
    "save_arrays",
    "save_checkpoint",
    "save_weights",
    "ssim",
    "training_options",
    "training_passes",
    "usable_device",
    "visible_files",
    "write_atomically",
    "write_output",
    "write_text",
]
