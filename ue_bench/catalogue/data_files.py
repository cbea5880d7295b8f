"""Read boards and protocols from TOML: of this package, registered by another one, or a file of the user."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..contract.registration import DataRecord, Register, Registrations
from ..errors import EnvironmentProblem, UserError, ValidationError, did_you_mean, one_line

if TYPE_CHECKING:
    from pydantic import ValidationError as PydanticError

OURS = f"ue-bench {__version__}"
T = TypeVar("T")


@dataclass(frozen=True)
class DataFile:
    """The content of a TOML file. ``label`` names it in errors; ``folder`` is where the file of a user lies."""

    name: str
    label: str
    fields: Mapping[str, Any]
    folder: Path | None = None


def register_own(registrations: Registrations) -> None:
    """Register the boards and protocols of this package."""
    register = Register(registrations, OURS)
    for package, add in (("boards", register.board), ("protocols", register.protocol)):
        names = (f.name for f in files(f"ue_bench.{package}").iterdir())
        for name in sorted(n for n in names if n.endswith(".toml")):
            add(name.removesuffix(".toml"), f"ue_bench.{package}:{name}")


def is_path(text: str) -> bool:
    """Return whether ``text`` names a file, not something registered: it has a slash or ends in ``.toml``."""
    return "/" in text or os.sep in text or text.endswith(".toml")


def argument_of(path: Path) -> str:
    """Return ``path`` as text that is read as a path."""
    return str(path) if is_path(str(path)) else f"./{path}"


def find(records: Mapping[str, DataRecord], kind: str, name: str) -> DataRecord:
    """Return the record of that name. Raises UserError with the nearest names when there is none."""
    if name not in records:
        hint = did_you_mean(name, sorted(records))
        if Path(f"{name}.toml").is_file():
            hint = f"{name}.toml for the file of that name here"
        raise UserError(f"no {kind} {name!r}", hint)
    return records[name]


def read_record(record: DataRecord) -> DataFile:
    """Read what a distribution registered. Raises EnvironmentProblem when its file is not there or not TOML."""
    label = f"{record.kind} {record.name!r} of {record.distribution}"
    if not isinstance(record.source, str):
        return DataFile(record.name, label, record.source)
    package, _, path = record.source.partition(":")
    try:
        fields = tomllib.loads(files(package).joinpath(path).read_text(encoding="utf-8"))
    except Exception as error:  # the import of a third-party package may raise anything
        raise EnvironmentProblem(
            f"{label} cannot be read: {one_line(error)}", "reinstall or remove that distribution"
        ) from error
    return DataFile(record.name, label, fields)


def read_path(path: Path) -> DataFile:
    """Read a user's file; its name is that of the file. Raises UserError in one line when that cannot be done."""
    path = path.expanduser()
    try:
        fields = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # editors of Windows put a mark before the text
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no file {path}", "check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder", "give a TOML file") from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    except UnicodeDecodeError:
        raise ValidationError(f"{path} is not TOML: it is not UTF-8 text", "write it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValidationError(f"{path} is not TOML: {error}", "see https://toml.io") from None
    except RecursionError:
        raise ValidationError(f"{path} is not TOML: it is nested too deeply", "see https://toml.io") from None
    return DataFile(path.name.removesuffix(".toml"), str(path), fields, path.parent)


def validated(model: type[T], file: DataFile, given: Mapping[str, Any]) -> T:
    """Make a ``model`` of the keys of ``file`` and of what is ``given`` beside them, which no file may hold.

    Raises ValidationError with the file, the key, and what is allowed there.
    """
    from pydantic import TypeAdapter
    from pydantic import ValidationError as PydanticError
    from pydantic_core import to_json

    adapter = TypeAdapter(model)
    keys = {k: v for k, v in adapter.json_schema()["properties"].items() if k not in given}
    refuse_unknown(file.label, file.fields, keys)
    try:
        # As JSON, where a list is a tuple, but neither true a number nor "8" one.
        return adapter.validate_json(to_json({**file.fields, **given}, inf_nan_mode="constants"), strict=True)
    except PydanticError as error:
        raise problem(file.label, error, keys) from None


def refuse_unknown(label: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise ValidationError for the first of ``given`` that is not known."""
    for key in given:
        if key not in known:
            raise ValidationError(f"{label}: no key is called {key!r}", did_you_mean(key, known))


def problem(label: str, error: PydanticError, keys: Mapping[str, Any]) -> ValidationError:
    """Return the first of the validation errors as one line, with what is allowed for its key."""
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    place = ".".join(map(str, first["loc"]))
    reason = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    where = f"{label}: {place}" if place else label
    text = f"{where} is missing" if first["type"] == "missing" else f"{where}: {reason}"
    return ValidationError(text, f"{key}: {allowed(keys[key])}" if key in keys else "")


def allowed(spec: Mapping[str, Any]) -> str:
    """Return what a key may hold, from its JSON schema: kind and range, default, and what it is for."""
    from .describe import describe_property

    return ". ".join(filter(None, [describe_property(dict(spec)), spec.get("description", "")]))
