"""What a parameter for a model may be: a folder, or the id of a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from ue_bench.api import find_input

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

Model = Path | str


def folder_or_id(model: Model) -> Model:
    """Return a path where ``model`` is a folder, else ``model``: the id of a repository on the Hugging Face hub.

    Raises UserError when it names a folder by its content, as in ``micro#3f2a91bc``, and there is none.
    """
    path = find_input(Path(model).expanduser())
    return path if path.is_dir() else model
