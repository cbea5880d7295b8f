"""Keep the record of protection: what was asked for, of which images, and what came of it.

It is how a command that is given again knows what is done: with the same images, with some of them removed, or with
some that could not be read before.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from . import files, folders, keyfile
from .looking import Seen, content_of
from .request import ProtectionRequest
from .writing import ProtectionOutcome

FORMAT = "ue-bench protect 1"
SEED_BITS = 63  # as many as ``derive`` keeps: the seed is the secret, it must not be tried out

Record = dict[str, Any]
Inputs = dict[str, list[str]]


def inputs_of(seen: Iterable[Seen]) -> Inputs:
    """Return content and class of each image."""
    return {one.file.name: [one.content, one.file.label] for one in seen}


def begin(request: ProtectionRequest, settings: dict[str, Any], inputs: Inputs, listed: list[str]) -> Record:
    """Return the record of this work: a finished one, that of an interrupted run, or a new one.

    A record whose state is not ``finished`` has under ``kept`` the files that are written and stay. Without a seed that
    of the record is taken, else one is drawn. Raises UserError when something else is there.
    """
    known = files.read_json(request.record)
    known = known if isinstance(known, dict) and known.get("format") == FORMAT else None
    if known is not None:
        before, finished = known["settings"], known["state"] == "finished"
        wanted = {**settings, "input": before["input"]}
        if settings["seed"] is None:
            wanted["seed"] = before["seed"]
        unchanged = before["input"] == settings["input"] or known.get("inputs") == inputs
        same = before == wanted and (unchanged or _continues(request, known, inputs))
        if same and not (request.force and finished):
            there = {name: target for name, target in known.get("files", {}).items() if name in inputs}
            lost = [target for target in there.values() if not (request.out / target).is_file()]
            if finished:
                _check_unchanged(request, known, lost)
            has_key = request.key.is_file() or not request.protector.recovers()
            if finished and unchanged and has_key and not lost:
                return known
            if unchanged or not has_key:  # all of it once more: the rest comes out as it is there
                there = {}
            kept = {name: target for name, target in there.items() if target not in lost}
            force = known.get("force", False) or request.force
            return {**known, "state": "unfinished", "force": force, "kept": kept}
    _check_free(request, known)
    if settings["seed"] is None:
        settings = {**settings, "seed": secrets.randbits(SEED_BITS)}
    record = {
        "format": FORMAT, "state": "unfinished", "force": request.force, "settings": settings, "inputs": inputs,
        "listed": listed,
    }  # fmt: skip
    files.check_writable(request.out)
    if request.protector.recovers():
        files.check_writable(request.key.parent)
    files.write_json(request.record, record)
    return {**record, "kept": {}}


def _check_unchanged(request: ProtectionRequest, known: Record, lost: list[str]) -> None:
    """Raise UserError where a file is not the one that was written: it would pass for protected."""
    for target, content in known.get("contents", {}).items():
        path = request.out / target
        if target not in lost and path.is_file() and content_of(path.read_bytes()) != content:
            raise UserError(
                f"{path} is not what was written there", "remove it and it is made again, or --force to overwrite"
            )


def _continues(request: ProtectionRequest, known: Record, inputs: Inputs) -> bool:
    """Return whether ``inputs`` are images of ``known``, or such as could not be used then.

    The latter only where images do not depend on one another.
    """
    earlier: Inputs | None = known.get("inputs")
    if earlier is None:
        return False
    mended = () if request.protector.one_size else known.get("failed", ())
    return all(earlier[name] == value if name in earlier else name in mended for name, value in inputs.items())


def _check_free(request: ProtectionRequest, known: Record | None) -> None:
    """Raise UserError when something is there that is not the beginning of this command."""
    if request.force:
        return
    in_the_way = []
    if request.out.is_dir() and any(request.out.iterdir()):
        in_the_way.append(request.out)
    begun = known is not None and known["state"] != "finished"
    if request.record.exists() and not begun:
        in_the_way.append(request.record)
    if request.protector.recovers() and request.key.exists():
        in_the_way.append(request.key)
    if in_the_way:
        reason = "holds other images, or the same with other settings" if known else "is there already"
        raise UserError(f"{in_the_way[0]} {reason}", "choose another folder, or --force to overwrite")


def forget(request: ProtectionRequest) -> None:
    """Remove the record of work that came to nothing, and its folder if that is empty."""
    request.record.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        request.out.rmdir()


def refreshed(request: ProtectionRequest, known: Record, listing: folders.Listing, failed: dict[str, str]) -> Record:
    """Return a finished record, with what cannot be used now instead of what could not be then."""
    there = {file.name for file in listing.files} | ({listing.table.path.name} if listing.table else set())
    remain = {name: reason for name, reason in known["failed"].items() if name in there and name not in known["files"]}
    new = {
        **known, "failed": dict(sorted((remain | failed).items())), "ignored": listing.ignored,
        "images": len(listing.files) + len(listing.refused),
    }  # fmt: skip
    if new != known:
        files.write_json(request.record, new)
    return new


def key_of(request: ProtectionRequest, done: ProtectionOutcome) -> keyfile.Key:
    """Return the key with which the owner recovers the images."""
    parameters = request.protector.model_dump(mode="json", include=set(request.protector.changed()))
    return keyfile.Key(
        request.protector.name, request.protector.revision, parameters, request.seed or 0, request.device,
        request.threads, request.precision, done.arrays, done.earlier | done.images,
    )  # fmt: skip


def finished(
    request: ProtectionRequest, begun: Record, seen: list[Seen], listing: folders.Listing, done: ProtectionOutcome
) -> Record:
    """Return the finished record."""
    recovery = None
    if request.protector.recovers():
        entries = list(done.images.values())
        exact = sum(done.images[digest].exact for digest in done.digests.values())
        mse = done.squares / max(1, done.values)
        stored = sum(len(e.sidecar) for e in entries if e.sidecar)
        recovery = {
            "exact": exact, "stored": sum(e.sidecar is not None for e in entries), "lost": done.lost,
            "others": len(done.digests) - exact, "psnr_of_others": 10 * math.log10(255**2 / mse) if mse else None,
            "bits_per_pixel": 8 * stored * 3 / max(1, done.measured.values),
        }  # fmt: skip
    return {
        "format": FORMAT, "state": "finished", "settings": begun["settings"], "ue_bench": __version__,
        "images": len(listing.files) + len(listing.refused), "classes": list(listing.classes),
        "measured": done.measured.result(request.protector.budget).model_dump(),
        "recovery": recovery, "failed": dict(sorted(done.failed.items())), "ignored": listing.ignored,
        "notes": {s.file.name: list(s.notes) for s in seen if s.notes},
        "files": {s.file.name: done.written[s.file.name] for s in seen if s.file.name in done.written},
        "contents": {done.written[n]: c for n, c in sorted(done.contents.items()) if n in done.written},
        "inputs": inputs_of(s for s in seen if s.file.name not in done.gone), "listed": names_of(begun, listing),
        "table": table_digest(request.out / listing.table.path.name) if listing.table else None,
    }  # fmt: skip


def names_of(begun: Record, listing: folders.Listing) -> list[str]:
    """Return names of all images, also of those removed since: what a file is called depends on the others."""
    return list(dict.fromkeys([*begun.get("listed", ()), *(file.name for file in listing.files)]))


def table_digest(path: Path) -> str | None:
    """Return a digest that tells whether a file of labels is as it was written; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    except OSError:
        return None
