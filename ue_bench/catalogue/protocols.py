"""Open protocols by name or by file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.registration import DataRecord
from ..errors import UserError, ValidationError, did_you_mean
from ..keys import digest
from . import data_files
from .registry import registry

if TYPE_CHECKING:
    from ..contract.protocol import Protocol

SHOWN = re.compile(r"(?P<path>.+)#(?P<digest>[0-9a-f]{8})")
ABOUT = {"name", "version", "summary", "source", "overrides"}  # what no countermeasure can change


def names() -> list[str]:
    """Return the names of all registered protocols."""
    return sorted(registry().protocols)


def protocol(argument: str) -> Protocol:
    """Return the protocol of that name, or of the file where ``argument`` has a slash or ends in ``.toml``.

    That of a file is called ``mine.toml#3f2a91bc``, so that two files of one name are two protocols: in keys, in
    results and on pages. ``argument`` may be that as well: the file must then still hold the same.

    Raises UserError with the nearest names when there is none, ValidationError when it holds what no protocol can.
    """
    if not is_file(argument):
        return of_record(data_files.find(registry().protocols, "protocol", argument))
    path, shown = path_of(argument), SHOWN.fullmatch(argument)
    recipe = _of_file(Path(path))
    if shown and not recipe.name.endswith(f"#{shown['digest']}"):
        raise UserError(
            f"{path} is another protocol than {argument}: it is {recipe.name}", "give the file that was used"
        )
    return recipe


def content_digest(recipe: Protocol) -> str:
    """Return the digest of all of a protocol that can change a number, with what differs under countermeasures.

    Defaults are left out, so that a new field leaves digests as they are.
    """
    content = recipe.model_dump(mode="json", exclude={"summary", "source"}, exclude_defaults=True)
    return digest(content)[:12]


def is_file(argument: str) -> bool:
    """Return whether ``argument`` is a file, or what ``protocol`` calls one, rather than a registered name."""
    return data_files.is_path(argument) or SHOWN.fullmatch(argument) is not None


def path_of(argument: str) -> str:
    """Return ``argument`` without the digest that ``protocol`` appends to the name of a file."""
    shown = SHOWN.fullmatch(argument)
    return shown["path"] if shown else argument


def of_record(record: DataRecord) -> Protocol:
    """Return a registered protocol."""
    from ..contract.protocol import Protocol

    file = data_files.read_record(record)
    recipe = data_files.validated(Protocol, file, {"name": record.name})
    _check_fields(file, recipe)
    return recipe


def _of_file(path: Path) -> Protocol:
    from ..contract.protocol import Protocol

    file = data_files.read_path(path)
    fields: dict[str, Any] = {"version": 1, "summary": "", "source": "", **file.fields}
    whole = data_files.DataFile(file.name, file.label, fields, file.folder)
    recipe = data_files.validated(Protocol, whole, {"name": path.name})
    _check_fields(file, recipe)
    known = [record.name for kind in ("countermeasure", "victim") for record in registry().of_kind(kind)]
    for name in recipe.overrides:
        if name not in known:
            raise ValidationError(
                f"{file.label}: overrides.{name}: no countermeasure or victim {name!r}", did_you_mean(name, known)
            )
    content = recipe.model_dump(mode="json", exclude={"name", "summary", "source"})
    return recipe.model_copy(update={"name": f"{path.name}#{digest(content)[:8]}"})


def _check_fields(file: data_files.DataFile, recipe: Protocol) -> None:
    """Raise ValidationError for overrides that cannot be, and for fields that do nothing."""
    from pydantic import ValidationError as PydanticError

    from ..contract.protocol import PARAMETERS

    keys = {k: v for k, v in type(recipe).model_json_schema()["properties"].items() if k not in ABOUT}
    recipes = [recipe]
    for name, fields in recipe.overrides.items():
        where = f"{file.label}: overrides.{name}"
        parameters = fields.get(PARAMETERS, {})
        data_files.refuse_unknown(where, fields, {**keys, PARAMETERS: ""})
        try:
            recipes.append(recipe.under([name], {}))
        except PydanticError as error:
            raise data_files.problem(where, error, keys) from None
        _refuse_idle(where, fields, recipes[-1:])
        if not parameters:
            continue
        try:
            registry().create("countermeasure", name, parameters)
        except UserError as error:
            raise ValidationError(f"{where}.{PARAMETERS}: {error.message}", error.hint) from None
    _refuse_idle(file.label, file.fields, recipes)
    # Here and not in Protocol: plugins train surrogates so, and how those are trained is in keys.
    if any(one.schedule == "multistep" and not one.milestones for one in recipes):
        raise ValidationError(f"{file.label}: multistep needs milestones", "a rate that stays is schedule = 'constant'")


def _refuse_idle(where: str, fields: Iterable[str], recipes: Sequence[Protocol]) -> None:
    """Raise ValidationError for the first of ``fields`` that does nothing in any of ``recipes``."""
    for name in fields:
        reasons = [recipe.idle(name) for recipe in recipes]
        if all(reasons):
            raise ValidationError(
                f"{where}: {name}: {reasons[0]}", "leave it out: it would only change the key of cells"
            )
