"""Add results from elsewhere to a board, and keep beside its results whose they are.

``submissions.json`` in a board's folder is a list of submissions in the order they came: the author, the files they
added, and the cells of others that they measured again. From it every result has a badge: *self-reported* where it came
by a submission, *reproduced* where somebody else measured that cell again and came within five points, *measured here*
where it came by neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticError

from ..atomic import write_atomically, write_once
from ..errors import UserError, ValidationError
from ..store.results import ResultStore, fresh_path
from ..store.schema import LARGEST, Key, Percent, Result, record_text
from .badges import REPORTED, REPRODUCED, Badge
from .plausibility import improper_origin
from .validation import Checked

FILE = "submissions.json"
# Below ``results``, with no way out.
ResultFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9.-]*\.json$")]


class Submission(BaseModel):
    """What one submission brought: files by the key of their result, and accuracies of cells that it reproduced."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    received: str
    author: str | None = None
    link: str | None = None
    added: dict[Key, ResultFile] = {}
    reproduced: dict[Key, Percent] = {}


def submissions(out: Path) -> list[Submission]:
    """Return the submissions to the board in a folder. Raises ValidationError when their file cannot be read."""
    path = out / FILE
    try:
        return [Submission.model_validate(item) for item in json.loads(path.read_text(encoding="utf-8-sig"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, PydanticError, RecursionError) as error:
        raise ValidationError(f"{path} is no list of submissions", "restore it, from version control say") from error


def badges(of: Sequence[Submission]) -> Mapping[str, Badge]:
    """Return badges by key; a result without one was measured here."""
    found: dict[str, Badge] = {key: REPORTED for submission in of for key in submission.added}
    return found | {key: REPRODUCED for submission in of for key in submission.reproduced}


def badges_in(out: Path) -> Mapping[str, Badge]:
    """Return the badges of the results in a folder, by key. Raises ValidationError as ``submissions``."""
    return badges(submissions(out))


def submit(
    checked: Checked, out: Path, now: datetime, author: str | None = None, link: str | None = None
) -> Submission:
    """Add checked results to the board in ``out``, and record whose they are. No file that is there is changed.

    ``author`` and ``link`` are written into results that do not say theirs. Raises ValidationError where the results
    are of several authors, where one that is to reproduce a cell is of the author of that cell or a copy of it, or
    where a file would become too long.
    """
    results = {path: _signed(result, author, link) for path, result in ({**checked.new, **checked.known}).items()}
    if not results:
        raise UserError("there is nothing to submit", "name files of results, or folders of them")
    authors = {result.author for result in results.values()}
    if len(authors) > 1:
        raise ValidationError("the results are of several authors", "submit those of each author apart")
    [whose] = authors
    before = submissions(out)
    reported = {key: submission.author for submission in before for key in submission.added}
    for path in checked.known:
        key = results[path].key
        if key in reported and (whose is None or whose == reported[key]):
            raise ValidationError(
                f"{path} is of a cell that the same author, or one without a name, reported",
                "another author reproduces it, named by --author",
            )
        if results[path].same_run(checked.board[key]):
            raise ValidationError(
                f"{path} is a copy of the result that the board has: of the same moment, times and machine",
                "measure the cell again to reproduce it",
            )
    places = {
        path: fresh_path(out / "results", r.key, r.protector, r.countermeasure, r.victim, r.protocol, f"s{r.seed}")
        for path, r in results.items()
        if path in checked.new
    }
    submission = Submission(
        received=now.isoformat(timespec="seconds"),
        author=whose,
        link=next((r.link for r in results.values() if r.link), None),
        added={results[path].key: place.relative_to(out / "results").as_posix() for path, place in places.items()},
        reproduced={results[path].key: results[path].metrics.accuracy_last for path in checked.known},
    )
    _write(out, [*before, submission])  # first: a file without its record would pass for one that was measured here
    for path, place in places.items():
        write_once(place, record_text(results[path]).encode())
    return submission


def carry(source: Path, target: Path) -> None:
    """Keep whose the results in ``source`` are that ``target`` lacks, before they are copied there.

    Raises ValidationError as ``submissions``.
    """
    before = submissions(source)
    if not before:
        return
    there = {r.key for r in ResultStore(target).results()}
    places = {
        r.key: fresh_path(Path(), r.key, r.protector, r.countermeasure, r.victim, r.protocol, f"s{r.seed}").as_posix()
        for r in ResultStore(source).results()
        if r.key not in there
    }
    carried = []
    for one in before:
        added = {key: places[key] for key in one.added if key in places}
        reproduced = {key: accuracy for key, accuracy in one.reproduced.items() if key in places}
        if added or reproduced:
            carried.append(one.model_copy(update={"added": added, "reproduced": reproduced}))
    if carried:
        _write(target, [*submissions(target), *carried])


def undo(out: Path) -> Submission:
    """Take the last submission back: its files and its record. Raises UserError when there is none."""
    before = submissions(out)
    if not before:
        raise UserError(f"there is no submission in {out}", f"those that are there stand in {FILE}")
    last = before[-1]
    for name in last.added.values():
        (out / "results" / name).unlink(missing_ok=True)
    _write(out, before[:-1])
    return last


def _signed(result: Result, author: str | None, link: str | None) -> Result:
    signed = result.model_copy(update={"author": result.author or author, "link": result.link or link})
    problem = next(improper_origin(signed), None)
    if problem:
        raise ValidationError(problem, "see --author and --link")
    if len(record_text(signed).encode()) > LARGEST:
        raise ValidationError(f"{result.id} is longer than {LARGEST:,} bytes with its author and link", "shorten them")
    return signed


def _write(out: Path, all_of_them: Sequence[Submission]) -> None:
    path = out / FILE
    if not all_of_them:
        path.unlink(missing_ok=True)
        return
    plain = [submission.model_dump(mode="json", exclude_none=True) for submission in all_of_them]
    write_atomically(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
