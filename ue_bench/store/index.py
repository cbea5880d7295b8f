"""The records of a folder in one file, so that files that did not change need not be read again: only ever a cache.

An index is believed for a file as long as the stamp of that file is what it was when it was read. It is written in one
piece, carries a checksum of its content and a digest of the rules by which files were judged, and may be deleted.
Whatever is wrong with it, files are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel

from .. import __version__, keys
from ..atomic import write_atomically
from ..catalogue import selectors
from ..temporaries import clock_of
from . import schema
from .listing import SETTLED, Stamp

FILE = ".index"  # in a folder of records
WORTH = 500  # files to read from which on an index saves more than it costs

R = TypeVar("R", bound=BaseModel)


def read_index(folder: Path, kind: type[R], files: Mapping[str, Stamp | None]) -> dict[str, R]:
    """Return the records of those ``files`` that did not change since they were indexed, by their path in ``folder``.

    Their values are held to their ranges again; keys were compared with cells when the files were read.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
        head, body = (folder / FILE).read_bytes().split(b"\n", 1)
        if head.decode() != _head(kind, body):
            return {}
        content = json.loads(body)
        stamps = map(Stamp._make, zip(*content["stamps"], strict=True))
        known = [
            (place, name)
            for place, (name, stamp) in enumerate(zip(content["files"], stamps, strict=True))
            if files.get(name) == stamp
        ]
        places = [place for place, _ in known]
        columns = [_spread(column, places, _model_of(kind, name)) for name, column in content["fields"].items()]
        rows = zip(*columns, strict=True)
        names = list(content["fields"])
        return {
            file: kind.model_validate(dict(zip(names, row, strict=True)), context=schema.VERIFIED)
            for (_, file), row in zip(known, rows, strict=True)
        }
    return {}


def write_index(folder: Path, kind: type[R], records: Mapping[str, tuple[Stamp, R]], began: int) -> None:
    """Keep ``records``, by their path in ``folder``, save those of files that may change without another stamp.

    ``began``: the time of the file system before the files were read, see ``time_of``. Where the index cannot be
    written those who come later do without.
    """
    settled = {name: one for name, one in records.items() if one[0].newest < began - SETTLED}
    if len(settled) < WORTH:
        return
    stamps = zip(*(stamp for stamp, _ in settled.values()), strict=True)
    fields = {name: _column([getattr(record, name) for _, record in settled.values()]) for name in kind.model_fields}
    content = {"files": list(settled), "stamps": list(stamps), "fields": fields}
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    with contextlib.suppress(OSError):
        write_atomically(folder / FILE, _head(kind, body).encode() + b"\n" + body)


def time_of(folder: Path) -> int | None:
    """Return the time of the file system of ``folder`` in nanoseconds; None where nothing can be written there.

    This machine's own clock may be another one, and be set back.
    """
    try:
        return int(clock_of(folder) * 1e9)
    except OSError:
        return None


def _head(kind: type[BaseModel], body: bytes) -> str:
    """Return the first line of an index: what it was made by, and the checksum of the rest."""
    checksum = hashlib.blake2b(body, digest_size=32).hexdigest()
    return f"ue-bench index of {kind.__name__}, rules {_rules(kind)}, checksum {checksum}"


def _rules(kind: type[BaseModel]) -> str:
    """Return a digest of what decides whether a file is a record, and how it is kept here."""
    digest = hashlib.blake2b(f"{__version__} {pydantic.VERSION}".encode(), digest_size=16)
    for module in (sys.modules[kind.__module__], schema, keys, selectors, sys.modules[__name__]):
        with contextlib.suppress(OSError, TypeError):  # an installation without sources: its version tells
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def _column(values: Sequence[Any], split: bool = True) -> dict[str, Any]:
    """Return ``values`` as plain data, each distinct one once; objects of the same keys ``split`` into columns."""
    if split and values and all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        return {"fields": {name: _column([value[name] for value in values], False) for name in values[0]}}
    distinct: dict[Any, tuple[int, Any]] = {}  # by what tells values apart: their places, and one of each
    places = [distinct.setdefault(_spelled(value), (len(distinct), value))[0] for value in values]
    plain = [one.model_dump(mode="json") if isinstance(one, BaseModel) else one for _, one in distinct.values()]
    return {"values": plain} if len(plain) == len(values) else {"values": plain, "places": places}


def _spelled(value: Any) -> str | tuple[str]:
    """Return a text as it is, and anything else spelled in a tuple: 1, 1.0 and true are three values."""
    if isinstance(value, str):
        return value
    return (value.model_dump_json() if isinstance(value, BaseModel) else repr(value),)


def _spread(column: Mapping[str, Any], chosen: Collection[int], make: Callable[[Any], Any]) -> Iterable[Any]:
    """Return the ``chosen`` ones of the values that ``_column`` was given; equal ones are one object."""
    if "fields" in column:
        rows = zip(*(_spread(inner, chosen, make) for inner in column["fields"].values()), strict=True)
        return [dict(zip(column["fields"], row, strict=True)) for row in rows]
    values, places = [make(value) for value in column["values"]], column.get("places")
    return [values[place] for place in chosen] if places is None else [values[places[place]] for place in chosen]


def _model_of(kind: type[BaseModel], name: str) -> Callable[[Any], Any]:
    """Return what makes the value of a field from plain data."""
    annotation = kind.model_fields[name].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_validate
    return lambda value: value
