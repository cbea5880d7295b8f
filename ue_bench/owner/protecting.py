"""Protect a folder of images of any sizes and formats.

Images are read twice: once to know which can be used, then size by size. The protected pixels of a size are kept in the
cache until all its files are written, so that whoever interrupts this loses nothing but the file at hand.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import Any

from ..contract.context import ProgressReport
from ..errors import EnvironmentProblem, UserError, ValidationError, disk_problem
from ..keys import digest as digest_of
from ..store import perturbation
from . import files, folders, keyfile, pictures, recording
from .looking import Seen, by_size, look
from .recording import Record
from .request import ProtectionRequest
from .writing import TAKEN, UNCHANGED, ProtectionOutcome, ProtectionWork

NAMED = 3  # reasons in an error of one line


def protect(request: ProtectionRequest, report: ProgressReport) -> Record:
    """Protect the folder and return the record, as it is written beside it too.

    Raises UserError when nothing can be done, or when what is there belongs to something else. Single images that
    cannot be protected are named in ``failed`` of the record.
    """
    _check_places(request)
    listing = folders.scan(request.source, request.labels)
    seen, refused = look(listing, request.size, report)
    failed = listing.refused | refused
    if not seen:
        raise UserError(f"{request.source} holds no image to protect{_reasons(failed)}", "check the path")
    groups = by_size(seen, request.protector)
    perturbation.check_classes(request.protector, (one.file.label for one in seen))
    record = recording.begin(
        request, _settings(request, seen), recording.inputs_of(seen), [file.name for file in listing.files]
    )
    if record["state"] == "finished":
        return recording.refreshed(request, record, listing, failed)
    request = replace(request, seed=record["settings"]["seed"], force=record["force"])
    same = frozenset([".jpg", ".jpeg"]) if request.kind == "jpeg" else frozenset[str]()
    names = folders.renamed(recording.names_of(record, listing), pictures.SUFFIX[request.kind], same)
    work = ProtectionWork(
        request, listing.classes, names | record["kept"], record["settings"]["input"], ProtectionOutcome(failed=failed)
    )
    if record["kept"] and request.protector.recovers():
        key = keyfile.load(request.key)
        work.done.arrays, work.done.earlier = dict(key.arrays), key.images
    _each_size(work, groups, record, report)
    if not work.done.written:
        _nothing(work, seen)
    return _finish(work, record, seen, listing)


def _check_places(request: ProtectionRequest) -> None:
    """Raise UserError when what is written would be published, or overwrite what it is made from."""
    files.apart(request.source, request.out)
    files.check_private(request.record, "record", [request.source, request.out])
    if request.protector.recovers():
        files.check_private(request.key, "key", [request.source, request.out])
        if request.key.resolve() == request.record.resolve():
            raise UserError(f"{request.key} would be both key and record", "give them names of their own")


def _settings(request: ProtectionRequest, seen: list[Seen]) -> dict[str, Any]:
    """Return what must be the same for a command to be the same."""
    return {
        "protector": request.protector.identity(), "selector": request.protector.selector, "seed": request.seed,
        "format": request.kind, "size": request.size, "lossless": request.lossless, "precision": request.precision,
        "input": digest_of([[one.file.name, one.content, one.file.label] for one in seen]),
    }  # fmt: skip


def _each_size(work: ProtectionWork, groups: list[list[Seen]], record: Record, report: ProgressReport) -> None:
    """Protect size by size what is not written yet. What fails stops no other size."""
    protector, done = work.request.protector, work.done
    for number, group in enumerate(groups, 1):
        text = f", size {number} of {len(groups)}" if len(groups) > 1 else ""
        written = [one for one in group if one.file.name in record["kept"]]
        rest = [one for one in group if one.file.name not in record["kept"]]
        if written and rest and protector.one_size:  # they were learned from together, without these
            earlier = record.get("failed", {})
            done.failed |= {one.file.name: earlier.get(one.file.name, "was not there before") for one in rest}
            rest = []
        try:
            with work.request.owner_context(report) as ctx:
                if written:
                    work.measure_again(written, ctx, text)
                if rest:
                    work.protect(rest, ctx, text)
        except EnvironmentProblem:
            raise
        except UserError as error:
            if len(groups) == 1:
                raise
            _fail(done, group, error.message)
        except (Exception, SystemExit) as error:  # a protector may raise anything
            if len(groups) == 1 or (isinstance(error, OSError) and disk_problem(error)):
                raise
            logging.getLogger(__name__).exception("%s failed%s", protector.name, text)
            _fail(done, group, f"{type(error).__name__}: {error}".splitlines()[0])


def _fail(done: ProtectionOutcome, group: list[Seen], reason: str) -> None:
    done.failed |= {one.file.name: reason for one in group if one.file.name not in done.written}


def _nothing(work: ProtectionWork, seen: list[Seen]) -> None:
    """Raise the error for a command that wrote not one image, which must not look like a success."""
    request, failed = work.request, work.done.failed
    _clear(work.done)
    if all(failed.get(one.file.name) == UNCHANGED for one in seen):
        recording.forget(request)
        raise ValidationError(
            f"{request.protector.selector} left all {len(seen):,} images as they were",
            "nothing was written; choose another protector, or other parameters",
        )
    raise UserError(f"not one image was protected{_reasons(failed)}", "mend or remove these, then the same command")


def _finish(work: ProtectionWork, record: Record, seen: list[Seen], listing: folders.Listing) -> Record:
    """Write the file of labels, the key and the record, which is returned, and clear the cache."""
    request, done = work.request, work.done
    if listing.table is not None:
        target = request.out / listing.table.path.name
        lines = listing.table.renamed(done.written).encode("utf-8", "surrogateescape")
        ours = not target.exists() or recording.table_digest(target) == record.get("table")
        if ours or request.force or target.read_bytes() == lines:
            files.write(target, lines)
        else:
            done.failed[target.name] = TAKEN
    if request.protector.recovers():
        files.write_private(request.key, keyfile.encode(recording.key_of(request, done)))
    finished = recording.finished(request, record, seen, listing, done)
    files.write_json(request.record, finished)
    _clear(done)
    return finished


def _clear(done: ProtectionOutcome) -> None:
    for folder in done.cached:
        shutil.rmtree(folder, ignore_errors=True)


def _reasons(failed: dict[str, str]) -> str:
    shown = "; ".join(f"{name}: {reason}" for name, reason in list(failed.items())[:NAMED])
    return f" - {shown}" if shown else ""
