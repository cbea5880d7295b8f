"""Find what a result cannot be: names that are traps, numbers out of range or at odds, cells nobody can compute."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from ..catalogue import protocols
from ..catalogue.registry import registry
from ..catalogue.selectors import parse
from ..contract.combination import with_parameters
from ..contract.plugin import Protector, Victim
from ..contract.protocol import OF_THE_OPTIMIZER, Protocol
from ..errors import UserError, without_controls
from ..grid.cell import ENGINE_REVISION, protocol_identity
from ..keys import canonical_json
from ..store.schema import Result
from .bounds import UNBOUNDED, measured

LONGEST = 200  # characters of a text
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
SLACK = timedelta(hours=1)  # between two clocks
FORMULA = ("=", "+", "-", "@")  # with which a spreadsheet begins to compute
PATH = re.compile(r"(?:^|[\s=\"'(,:;\[])(?:/\w|~[\w/]|[A-Za-z]:[\\/]|\\\\|file:)|\.\./"
                  r"|/(?:home|root|Users|tmp|mnt|var|scratch|workspace)/")  # fmt: skip
HOST = re.compile(r"[\w.-]+@[\w-]+|\blocalhost\b|\b(?:[a-z0-9-]+\.)+(?:local|lan|internal|intra|corp|home|cluster)\b"
                  r"|\b(?:[a-z][a-z0-9-]*\.){2,}[a-z]{2,}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b", re.IGNORECASE)  # fmt: skip
SHAPES = {
    "ue_bench": re.compile(r"\d+\.\d+[\w.+-]{0,40}", re.ASCII),
    "python": re.compile(r"\d+\.\d+[\w.+-]{0,40}", re.ASCII),
    "torch": re.compile(r"\d+\.\d+[\w.+-]{0,40}", re.ASCII),
    "commit": re.compile(r"(?:[0-9a-f]{7,40}\+?)?"),
}
LINK = re.compile(r"https://[\w.-]+(?:/[\w./~%#?&=+-]*)?", re.ASCII)
AXES = ("engine", "train", "test", "protector", "countermeasure", "victim", "protocol", "seed", "fraction", "precision")
KINDS = ("protector", "countermeasure", "victim")
OF_ARCHITECTURES = OF_THE_OPTIMIZER | {"shift", "mean", "std"}  # fields of a recipe that a victim may ask for


def printable(text: str) -> str:
    """Return text that a terminal can show, in one line of bounded length."""
    shown = without_controls(text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def implausible(result: Result, now: datetime, of_board: Protocol | None = None) -> Iterator[str]:
    """Yield what cannot be true of a result, worst first.

    ``of_board`` is the protocol of the board it is for, which may be a file: of others only those that are registered.
    """
    yield from _texts(result)
    yield from _date(result, now)
    yield from _cell(result, of_board)
    yield from _numbers(result)


def _texts(result: Result) -> Iterator[str]:
    plain = result.model_dump(mode="json", exclude={"link", "author"})
    for name, text in _strings(plain):
        if len(text) > LONGEST and name != "id":
            yield f"{name} has {len(text):,} characters"
        elif not text.isprintable():
            yield f"{name} holds a control character: {printable(text)}"
        elif text.startswith(FORMULA):
            yield f"{name} begins like a spreadsheet formula: {printable(text)}"
        elif PATH.search(text):
            yield f"{name} holds a path: {printable(text)}"
        elif HOST.search(text) and name.removeprefix("environment.") not in SHAPES:  # 1.2.3.4 may be a version
            yield f"{name} holds the name of a host or user: {printable(text)}"
    for name, shape in SHAPES.items():
        if not shape.fullmatch(text := getattr(result.environment, name)):
            yield f"environment.{name} is no version or commit: {printable(text)}"
    yield from improper_origin(result)


def improper_origin(result: Result) -> Iterator[str]:
    """Yield what is wrong with the author and the link of a result."""
    author, link = result.author, result.link
    if author is not None and not (author.strip() and author.isprintable() and len(author) <= 100):
        yield "author is empty, too long or holds a control character"
    elif author is not None and PATH.search(author):
        yield f"author holds a path: {printable(author)}"
    elif author is not None and author.startswith(FORMULA):
        yield f"author begins like a spreadsheet formula: {printable(author)}"
    if link is not None and not (len(link) <= LONGEST and LINK.fullmatch(link)):
        yield f"link is no https address: {printable(link)}"


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield all texts of plain data with where they stand, names of fields included."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield name or "a name", str(key)
            yield from _strings(item, f"{name}.{printable(str(key))}".removeprefix("."))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, name)


def _date(result: Result, now: datetime) -> Iterator[str]:
    try:
        finished = datetime.fromisoformat(result.finished)
    except ValueError:
        yield f"finished is no date: {printable(result.finished)}"
        return
    if finished.tzinfo is None:
        yield f"finished has no time zone: {result.finished}"
    elif finished > now + SLACK:
        yield f"it is dated in the future: {result.finished}"
    elif finished < FIRST:
        yield f"it is dated before ue-bench was written: {result.finished}"


def _cell(result: Result, of_board: Protocol | None) -> Iterator[str]:
    cell = result.cell or {}
    if set(cell) != set(AXES):
        odd = sorted(set(cell) ^ set(AXES))
        yield f"its cell {'has' if odd[0] in cell else 'lacks'} {printable(odd[0])}"
        return
    # Compared as text, for True and 1.0 are equal to 1 and make another key of the same cell.
    for name in ("seed", "fraction"):
        if canonical_json(cell[name]) != canonical_json(getattr(result, name)):
            yield f"{name} is {getattr(result, name)}, and written {printable(repr(cell[name]))} in its cell"
    if result.id != (expected_id := Result.make_id(result.model_dump())):
        yield f"its id is not {printable(expected_id)}"
    if canonical_json(cell["engine"]) != canonical_json(ENGINE_REVISION):
        yield f"its training loop has revision {printable(str(cell['engine']))}, and {ENGINE_REVISION} here"
    if result.precision not in ("bf16", "fp32"):
        yield f"its precision is {printable(result.precision)}, not bf16 or fp32"
    for kind in KINDS:
        if kind != "countermeasure" and "combination" in cell[kind]:
            yield f"its {kind} is several"
            return
        for part in _parts(cell[kind]):
            known = (kind, part["name"]) in registry().entries
            problem = _revision(kind, part) if known else _absent(result, kind, part["name"])
            if problem:
                yield problem
                return
    recipe = _recipe(result.protocol, of_board)
    if recipe is None:
        yield f"there is no protocol {printable(result.protocol)}"
        return
    if result.protocol_version != recipe.version:
        yield f"its protocol is {result.protocol} v{result.protocol_version}, and v{recipe.version} here"
    if result.protocol_digest not in (None, expected := protocols.content_digest(recipe)):
        yield f"its protocol digest is {result.protocol_digest}, and {expected} for {recipe.name} here"
    yield from _identities(result, recipe)


def _recipe(name: str, of_board: Protocol | None) -> Protocol | None:
    """Return the protocol of the board or a registered one; no file is opened that a result names."""
    if of_board is not None and name == of_board.name:
        return of_board
    return protocols.protocol(name) if name in protocols.names() else None


def _absent(result: Result, kind: str, name: str) -> str:
    if (result.distributions or {}).get(f"{kind}/{name}"):
        return ""
    return f"there is no {kind} {printable(name)}, and the result does not name the distribution it comes with"


def _revision(kind: str, part: dict[str, Any]) -> str:
    try:
        here = registry().find(kind, part["name"]).plugin_class.revision
    except UserError as error:
        return f"{kind} {part['name']} cannot be looked at: {printable(error.message)}"
    there = part.get("revision")
    return "" if there == here else f"{kind} {part['name']} has revision {printable(str(there))}, and {here} here"


def _identities(result: Result, protocol: Protocol) -> Iterator[str]:
    """Yield where a selector is not what the cell holds, and where the recipe is not the protocol's."""
    cell = result.cell or {}
    plugins = {}
    for kind in KINDS:
        selector = getattr(result, kind)
        if "#" in selector or not _all_here(kind, cell[kind]):  # a file by its content, or a plugin that is not here
            continue
        try:
            plugins[kind], identity = _plugin(kind, selector)
        except UserError as error:
            yield f"its {kind} {printable(selector)} cannot be: {printable(error.message)}"
            return
        if kind == "countermeasure":
            identity = canonical_json(with_parameters(plugins[kind], protocol.overrides).identity())
        if canonical_json(cell[kind]) != identity:
            yield f"its {kind} is called {printable(selector)}, and its cell holds another one"
            return
        if plugins[kind].selector != selector:
            yield f"its {kind} {printable(selector)} is written {plugins[kind].selector}"
    yield from _recipe_of(result, protocol, cast("Victim | None", plugins.get("victim")))
    if "protector" in plugins:
        declared = cast(Protector, plugins["protector"]).budget
        if result.budget.declared != declared and not _of_one_class(result, declared):
            yield f"it declares the budget {printable(result.budget.declared)}, and its protector {declared}"


def _recipe_of(result: Result, protocol: Protocol, victim: Victim | None) -> Iterator[str]:
    """Yield where the recipe in the cell is not the protocol's, and where the result is of an epoch that is not in it.

    An architecture that is not here may ask for an optimizer of its own: the other fields are compared.
    """
    cell = result.cell or {}
    names, [architecture] = ([part["name"] for part in _parts(cell[kind])] for kind in ("countermeasure", "victim"))
    recipe = protocol.under(names, victim.optimizer() if victim else {}, architecture)
    expected, found = protocol_identity(recipe), cell["protocol"]
    if victim is None and isinstance(found, dict):
        expected, found = ({k: v for k, v in one.items() if k not in OF_ARCHITECTURES} for one in (expected, found))
    if canonical_json(found) != canonical_json(expected):
        yield f"the training recipe in its cell is not that of protocol {protocol.name} v{protocol.version}"
    length = recipe.total_epochs(result.dataset.train)
    if result.metrics.peak_epoch > math.ceil(length):  # a length in steps ends within an epoch
        yield f"its peak is in epoch {result.metrics.peak_epoch:g} of {length:g}"


def _all_here(kind: str, of_cell: dict[str, Any]) -> bool:
    return all((kind, part["name"]) in registry().entries for part in _parts(of_cell))


def _parts(of_cell: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = of_cell.get("combination", [of_cell])
    return found


def _of_one_class(result: Result, declared: str) -> bool:
    """Return whether a result would be ranked alike under another declaration of the same kind of bound."""
    as_told, now = measured([result]).perturbation_class, measured([result], declared).perturbation_class
    return as_told == now != UNBOUNDED


@lru_cache(1024)
def _plugin(kind: str, selector: str) -> tuple[Any, str]:
    """Return a plugin and the canonical JSON of its identity."""
    parse(selector)
    plugin = registry().one(kind, selector)
    return plugin, canonical_json(plugin.identity())


def _numbers(result: Result) -> Iterator[str]:
    data, m, b = result.dataset, result.metrics, result.budget
    if data.classes < 2:
        yield "its dataset has fewer than two classes"
        return
    chance, images = 100 / data.classes, data.test
    if images <= 100_000 and abs(hits := m.accuracy_last * images / 100) and abs(hits - round(hits)) > 0.02:
        yield f"accuracy_last {m.accuracy_last:g} % is no whole number of {images:,} test images"
    if m.accuracy_last < chance / 2:
        yield f"accuracy_last {m.accuracy_last:g} % is far below guessing, {chance:g} %; is it a share of 1?"
    if m.accuracy_peak < m.accuracy_last - 0.001:
        yield f"accuracy_peak {m.accuracy_peak:g} is below accuracy_last {m.accuracy_last:g}"
    if result.seed < 0:
        yield f"its seed is {result.seed}"
    if b.linf_mean > b.linf_max + 0.001 or b.rms > b.linf_max + 0.001:
        yield f"its changes have a mean or RMS above their maximum, {b.linf_max}"
    if b.l0_mean > data.height * data.width + 0.5:
        yield f"l0_mean {b.l0_mean:g} is more than the {data.height * data.width:,} pixels of an image"
    if (b.psnr is None) != (b.rms == 0) or (b.psnr is not None and abs(b.psnr - 20 * math.log10(255 / b.rms)) > 0.05):
        yield f"psnr {b.psnr} and rms {b.rms:g} are not of one change"
    if (summary := measured([result])).exceeds:
        yield f"its measured {summary.exceeded} exceeds the declared {printable(b.declared)}"
    if result.attempts > 1_000:
        yield f"it took {result.attempts:,} attempts"
