"""What the commands of Deep Hiding share: folders that are filled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ue_bench.api import UserError, write_atomically


def not_below(out: Path, source: Path) -> None:
    """Raise UserError when ``out`` lies in the folder ``source``: its files would be taken for input next time."""
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out} lies in {source}", "choose a folder beside it")


def begin(out: Path, settings: dict[str, Any], name: str) -> None:
    """Make ``out``, or accept one in which the same command was begun: file ``name`` keeps its ``settings``.

    Raises UserError otherwise.
    """
    record = out / name
    text = json.dumps(settings, allow_nan=False)
    try:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file", "choose a folder")
        if out.is_dir() and any(out.iterdir()):
            if not record.is_file() or record.read_bytes() != text.encode():
                raise UserError(f"{out} holds something else already", "choose another folder, or empty it")
            return
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(record, text)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}", "choose another folder") from error
