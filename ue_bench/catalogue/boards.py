"""Open boards by name or by file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.registration import DataRecord
from ..errors import UserError, ValidationError
from . import data_files, protocols
from .registry import registry

if TYPE_CHECKING:
    from ..contract.board import Board

LISTS = {  # key -> kind of the selectors in it
    "reference": "protector",
    "clean": "protector",
    "plain": "countermeasure",
    "protectors": "protector",
    "countermeasures": "countermeasure",
    "victims": "victim",
    "dataset": "dataset",
}
ONE = ("clean", "plain", "dataset")


def names() -> list[str]:
    """Return the names of all registered boards."""
    return sorted(registry().boards)


def board(argument: str) -> Board:
    """Return the board of that name, or of the file where ``argument`` has a slash or ends in ``.toml``.

    Raises UserError with the nearest names when there is none, ValidationError when it holds what no board can.
    """
    if data_files.is_path(argument):
        file = data_files.read_path(Path(argument))
        opened = _board(file, argument=argument)
    else:
        record = data_files.find(registry().boards, "board", argument)
        if record.distribution == data_files.OURS:
            return of_record(record)  # the tests have made sure of its selectors
        file, opened = data_files.read_record(record), of_record(record)
    _check(file.label, opened)
    return opened


def of_record(record: DataRecord) -> Board:
    """Return a registered board without looking whether its selectors stand for something."""
    return _board(data_files.read_record(record), argument=record.name)


def _board(file: data_files.DataFile, argument: str) -> Board:
    from ..contract.board import Board

    fields: dict[str, Any] = {"title": file.name, **file.fields}
    recipe = fields.get("protocol")
    if file.folder is not None and isinstance(recipe, str) and data_files.is_path(recipe):
        fields["protocol"] = data_files.argument_of(file.folder / Path(recipe).expanduser())
    whole = data_files.DataFile(file.name, file.label, fields, file.folder)
    return data_files.validated(Board, whole, {"name": file.name, "argument": argument})


def _check(label: str, board: Board) -> None:
    """Raise ValidationError, with the key, for a selector that stands for nothing."""
    key = "protocol"
    try:
        protocols.protocol(board.protocol)
        for key, kind in LISTS.items():
            selectors = getattr(board, key)
            if key == "dataset":
                selectors = selectors.replace("{data_dir}", ".")
            registry().one(kind, selectors) if key in ONE else registry().resolve(kind, selectors)
    except UserError as error:
        raise ValidationError(f"{label}: {key}: {error.message}", error.hint) from None
    _check_place(label, "clean", board.clean, "protector", (*board.reference, *board.protectors), "rows")
    _check_place(label, "plain", board.plain, "countermeasure", board.countermeasures, "columns")


def _check_place(label: str, key: str, text: str, kind: str, axis: Sequence[str], what: str) -> None:
    """Raise ValidationError where the selector under ``key``, which all is compared with, is not on its axis."""
    one = registry().one(kind, text)
    # Only of those of its name: to tell the selector of another one may need a file that is not here yet.
    alike = (plugin.selector for plugin in registry().resolve(kind, axis) if plugin.name == one.name)
    if one.selector not in alike:
        raise ValidationError(f"{label}: {key}: {one.selector} is none of the board's {what}", f"add it to its {kind}s")
