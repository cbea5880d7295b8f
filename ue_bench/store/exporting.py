"""Results as tables for other programs: Parquet, CSV and SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from ..atomic import replacing
from ..collector import without_collector
from ..errors import UserError
from ..keys import canonical_json
from .evasion import EvasionResult, EvasionStore
from .results import ResultStore
from .schema import Failure, Result, rounded

if TYPE_CHECKING:
    import pandas

TABLES: dict[str, type[BaseModel]] = {"results": Result, "evasion": EvasionResult, "failures": Failure}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula
DTYPES = {int: "Int64", float: "Float64", bool: "boolean", str: "string"}


def export(out: Path, file: Path, form: str, table: str = "results") -> int:
    """Write what lies in the results folder ``out`` to ``file``, whole or not at all; return the number of rows.

    SQLite takes all tables, the others ``table``. There is one column a field, those of parts joined by ``_``, and the
    cell as JSON. Raises UserError where there is nothing in the folder.
    """
    records: Mapping[str, Callable[[], Iterable[BaseModel]]] = {
        "results": ResultStore(out).results,
        "evasion": EvasionStore(out).results,
        "failures": ResultStore(out).failures,
    }
    if not any((out / name).is_dir() for name in TABLES):
        raise UserError(f"{out} holds no results", "name a folder that 'ue-bench run' filled")
    frames = {name: _frame(TABLES[name], records[name]()) for name in (TABLES if form == "sqlite" else [table])}
    with replacing(file.absolute()) as temporary:
        temporary.touch()  # where that fails, the error names the file; those of pandas and its engines do not
        WRITERS[form](frames, temporary)
    return sum(len(frame) for frame in frames.values())


def _frame(kind: type[BaseModel], records: Iterable[BaseModel]) -> pandas.DataFrame:
    import pandas as pd

    columns = _columns(kind)
    with without_collector():
        rows = [_row(record) for record in records]
    return pd.DataFrame(
        {name: pd.array([row.get(name) for row in rows], dtype=cast(Any, dtype)) for name, dtype in columns.items()}
    )


def _columns(kind: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Return the columns of records of ``kind``, and their types: the same ones whatever the records hold."""
    columns: dict[str, str] = {}
    for name, info in kind.model_fields.items():
        choices = [a for a in getattr(info.annotation, "__args__", (info.annotation,)) if a is not type(None)]
        inner = choices[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            columns |= _columns(inner, f"{prefix}{name}_")
        else:
            columns[prefix + name] = DTYPES.get(_plain_type(inner), "string")
    return columns


def _plain_type(annotation: Any) -> Any:
    """The type that JSON has for ``annotation``: of a choice of literals that of its values."""
    origin = getattr(annotation, "__origin__", annotation)
    return origin if isinstance(origin, type) else type(annotation)


def _row(record: BaseModel) -> dict[str, Any]:
    row = _flat(rounded(record.model_dump(mode="json", exclude={"cell"})))
    cell = getattr(record, "cell", None)
    return row if cell is None else row | {"cell": canonical_json(cell)}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat.update(_flat(item, f"{prefix}{name}_"))
        else:
            flat[prefix + name] = item
    return flat


def _write_parquet(frames: Mapping[str, pandas.DataFrame], path: Path) -> None:
    [frame] = frames.values()
    frame.to_parquet(path, engine="pyarrow", index=False)


def _write_csv(frames: Mapping[str, pandas.DataFrame], path: Path) -> None:
    [frame] = frames.values()
    texts: Iterable[str] = frame.select_dtypes("string").columns
    frame = frame.assign(**{name: frame[name].map(_harmless, na_action="ignore") for name in texts})
    frame.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def _harmless(text: str) -> str:
    """Return ``text`` so that no spreadsheet takes it for a formula, as OWASP has it: behind an apostrophe."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _write_sqlite(frames: Mapping[str, pandas.DataFrame], path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        for name, frame in frames.items():
            frame.to_sql(name, database, index=False)
        database.commit()


WRITERS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "sqlite": _write_sqlite,
}
