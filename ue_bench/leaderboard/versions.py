"""Tell whether this version of ue-bench would compute a result's cell again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ue_bench.catalogue import protocols
from ue_bench.store.schema import Result

from .board import BoardInfo


def obstacle(board: BoardInfo, result: Result) -> str:
    """Return why this version of ue-bench cannot compute the cell of ``result``; empty where it can."""
    version = board.protocol_versions.get(result.protocol)
    if protocols.is_file(result.protocol):  # named by its content: whoever has the file has the protocol
        version = result.protocol_version
    old = [("protocol", result.protocol, "version", result.protocol_version, version)]
    old += _revisions(board, result.cell or {})  # results of the first schema do not hold their cell
    for kind, name, what, then, now in old:
        if then != now:
            measured = f"Measured with {' '.join(filter(None, [kind, name]))}, {what} {then}"
            here = f"has {what} {now}" if now is not None else "does not have it"
            return f"{measured}: this version of ue-bench {here}, so no command gives this cell."
    names = result.protector, result.countermeasure, result.victim, result.dataset.selector
    if not all(map(str.isprintable, names)):
        return "A name here holds a line break or a like sign, which no command line can show."
    return ""


def _revisions(board: BoardInfo, cell: Mapping[str, Any]) -> list[tuple[str, str, str, int, int | None]]:
    """Return kind, name, and revisions then and now, of the plugins and the engine in the identity of a cell."""
    if board.revision is None or not cell:
        return []
    revisions = [("training loop", "", "revision", cell["engine"], board.engine_revision)]
    for kind in ("protector", "countermeasure", "victim"):
        for part in cell[kind].get("combination", [cell[kind]]):
            revisions.append((kind, part["name"], "revision", part["revision"], board.revision(kind, part["name"])))
    return revisions
