"""The result of one cell, as it lies on disk: one JSON of at most 2 KB, whose key is that of the cell it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from ..catalogue.selectors import plugin_names
from ..errors import UserError
from ..keys import canonical_json, digest

SCHEMA: Final = 2
LARGEST: Final = 2048  # bytes of a result
VERIFIED: Final = "verified"  # context of a validation: the key was compared with the cell when the file was read


_field_names: dict[frozenset[str], set[str]] = {}  # one set of each kind, which records share


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _share_field_names(self) -> Self:
        """Let records that name the same fields share the set of names: it takes more memory than their values.

        Nothing changes it: records are frozen, and copies of a record get a copy.
        """
        names = self.__pydantic_fields_set__
        object.__setattr__(self, "__pydantic_fields_set__", _field_names.setdefault(frozenset(names), names))
        return self


# Results are rounded to six digits, and single-precision sums pass their limits by rounding errors.
Percent = Annotated[float, Field(ge=0, le=100.001)]
Share = Annotated[float, Field(ge=0, le=1)]
Levels = Annotated[float, Field(ge=0, le=255.001)]
Similarity = Annotated[float, Field(ge=-1.001, le=1.001)]
Positive = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
ProtocolDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class DatasetInfo(_Record):
    """The data a cell was measured on. ``source`` is for the head of a table."""

    selector: str
    source: str
    train: Size
    test: Size
    classes: Size
    height: Size
    width: Size
    fingerprint: str


class Metrics(_Record):
    """Accuracies on the clean test set and on the last epoch's training batches, in percent.

    ``accuracy_last`` is the headline. ``accuracy_peak`` picks its epoch on the test set: an oracle, kept apart.
    ``accuracy_train`` is null where a training procedure changes images or labels inside its loss. ``learned`` is false
    where training ended at chance on its own training images: such a victim says nothing about protection.
    """

    accuracy_last: Percent
    accuracy_peak: Percent
    peak_epoch: Positive
    accuracy_train: Percent | None
    loss_train: float
    learned: bool = True


class Budget(_Record):
    """The perturbation as measured on the stored 8-bit images, beside what the protector declares.

    Linf and RMS in gray levels (of 255); L2 on the [0, 1] scale; L0 in changed pixels; PSNR in dB (null when nothing
    changed). Means are over images; ``over_8`` is the fraction of values changed by more than 8 levels.
    """

    declared: str
    linf_mean: Levels
    linf_max: int = Field(ge=0, le=255)
    rms: Levels
    over_8: Share
    l2_mean: Positive
    l0_mean: Positive
    psnr: Positive | None
    ssim: Similarity


Eager = Literal["", "plugin", "memory", "failed"]


class Cost(_Record):
    """Seconds and memory of making the protected set and of training on it.

    ``packed`` is the largest number of cells that shared the device: seconds are those of the cell alone only at 1.
    ``eager`` says why the steps of a training on CUDA were not recorded as a graph and replayed, if they were not: the
    ``plugin`` is not replayable, the images do not fit in ``memory``, or recording them ``failed``.
    """

    protect_seconds: Positive
    train_seconds: Positive
    images_per_second: Positive
    peak_memory_mb: Positive
    packed: int = Field(default=1, ge=1)
    eager: Eager = ""


class Environment(_Record):
    """What it ran on. No host names, no paths."""

    ue_bench: str
    commit: str
    python: str
    torch: str
    device: str
    threads: int = Field(ge=1)


class Measured(_Record):
    """What results of training and of evasion have in common: the cell.

    ``cell`` is everything that can change the number, and ``key`` its digest, which is recomputed whenever a result is
    read. Version 1, which is still read, has no ``cell``.
    """

    version: Literal[1, 2] = SCHEMA
    key: Key
    id: str
    dataset: DatasetInfo
    protector: str
    countermeasure: str
    victim: str
    protocol: str
    protocol_version: int = Field(ge=1)
    seed: int
    cell: dict[str, Any] | None = None

    @classmethod
    def told(cls, cell: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of this class whose values a cell holds as they are."""
        raise NotImplementedError

    @classmethod
    def make_id(cls, fields: dict[str, Any]) -> str:
        """Return the id that the other ``fields`` tell."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, fields: Any, info: ValidationInfo) -> Any:
        """Add what a long result is stored without."""
        if info.context is VERIFIED:
            return fields
        try:
            fields = cls.told(fields["cell"]) | fields
            return {"id": cls.make_id(fields)} | fields
        except (AttributeError, KeyError, TypeError, ValueError):
            return fields  # of version 1, or the fields that are missing or wrong get named

    @model_validator(mode="after")
    def _key_is_of_cell(self, info: ValidationInfo) -> Self:
        if info.context is VERIFIED:
            return self
        if (self.cell is None) != (self.version == 1):
            raise ValueError("a cell is part of version 2, and of no earlier one")
        if self.cell is not None:
            if digest(self.cell) != self.key:
                raise ValueError("the key is not that of the cell")
            try:
                pairs = list(self._said_twice(self.cell))
            except (AttributeError, KeyError, TypeError) as error:
                raise ValueError("the cell is incomplete") from error
            for name, shown, held in pairs:
                if shown != held:
                    raise ValueError(f"{name} is {shown}, but {held} in the cell")
        return self

    def _said_twice(self, cell: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yield the name of a field, what it shows, and what the cell says of it."""
        for kind in ("protector", "countermeasure", "victim"):
            yield kind, _names(getattr(self, kind)), _names_in(cell[kind])
        yield "dataset", self.dataset.fingerprint, digest([cell["train"], cell["test"]])[:16]
        for name, value in self.told(cell).items():
            yield name, rounded(getattr(self, name)), rounded(value)


class Result(Measured):
    """A finished cell: what it is, what came out, what it cost and where it ran.

    ``protocol_digest`` is that of the whole protocol with its overrides. ``distributions`` are those of plugins that
    do not come with ue-bench, by ``kind/name``. ``author`` and ``link`` say whose result it is; a file that lacks one
    of these four, as older ones do, is as valid. None of them is in the key.
    """

    fraction: Share
    precision: str
    metrics: Metrics
    budget: Budget
    cost: Cost
    environment: Environment
    attempts: int = Field(1, ge=1)
    finished: str
    protocol_digest: ProtocolDigest | None = None
    distributions: dict[str, str] | None = None
    author: str | None = None
    link: str | None = None

    @property
    def clean_commit(self) -> bool:
        """Whether it is known which code measured it: a commit without changes."""
        return bool(self.environment.commit) and not self.environment.commit.endswith("+")

    def same_run(self, other: Result) -> bool:
        """Whether this and ``other`` are of one training: of one moment, or with the same times on the same machine."""
        alike = self.cost == other.cost and self.environment == other.environment
        return alike or self.finished == other.finished

    @classmethod
    def told(cls, cell: dict[str, Any]) -> dict[str, Any]:
        recipe = cell["protocol"]
        found = {name: cell[name] for name in ("seed", "fraction", "precision")}
        return found | {"protocol": recipe["name"], "protocol_version": recipe["version"]}

    @classmethod
    def make_id(cls, fields: dict[str, Any]) -> str:
        names = (fields[name] for name in ("protector", "countermeasure", "victim", "protocol", "seed", "fraction"))
        return cell_id(fields["dataset"]["selector"], *names)


FailureKind = Literal["error", "diverged", "oom", "timeout", "infrastructure"]


class Failure(_Record):
    """A cell that could not be computed. Never read as a result.

    ``kind`` is ``diverged`` where a training of its victim, or of a network it needs, was no longer finite; ``oom``
    where memory ran out even with the device to itself; ``timeout`` where it twice ran past its limit;
    ``infrastructure`` where its worker died or its device broke again and again; else ``error``.
    """

    version: Literal[1] = 1
    key: Key
    id: str
    attempts: Count
    kind: FailureKind = "error"
    error: str
    failed: str


class Curve(_Record):
    """Test accuracy over training, kept beside the result."""

    key: Key
    epoch: list[Positive]
    accuracy_test: list[Percent]
    accuracy_train: list[Percent | None]
    loss_train: list[float]

    @model_validator(mode="after")
    def _one_of_each_an_epoch(self) -> Curve:
        if {len(self.accuracy_test), len(self.accuracy_train), len(self.loss_train)} != {len(self.epoch)}:
            raise ValueError("its lists are not of one length")
        return self


@lru_cache(4096)
def _names(selector: str) -> list[str]:
    """Return the names of the plugins in a selector. Raises ValueError when it cannot be read."""
    try:
        return plugin_names(selector)
    except UserError as error:
        raise ValueError(error.message) from error


def _names_in(identity: Any) -> list[str]:
    """Return the names of the plugins in an identity."""
    return [part["name"] for part in identity.get("combination", [identity])]


def cell_id(
    dataset: str, protector: str, countermeasure: str, victim: str, protocol: str, seed: int | str, fraction: float
) -> str:
    """Return the readable name of a cell from the selectors in it."""
    protector += "" if fraction == 1 else f"@{fraction:g}"
    return "/".join([dataset, protector, countermeasure, victim, protocol, f"s{seed}"])


def as_json(record: BaseModel) -> dict[str, Any]:
    """Return plain data, floats kept short enough for a diff and a 2 KB file; those of a cell as they are."""
    plain: dict[str, Any] = record.model_dump(mode="json")
    cell = plain.pop("cell", None)
    if isinstance(record, Result):  # these are said only where they are odd or known, as in older results
        for name in ("protocol_digest", "distributions", "author", "link"):
            if plain[name] is None:
                del plain[name]
        if record.metrics.learned:
            del plain["metrics"]["learned"]
        if record.cost.packed == 1:
            del plain["cost"]["packed"]
        if not record.cost.eager:
            del plain["cost"]["eager"]
    found: dict[str, Any] = rounded(plain)
    return found if cell is None else found | {"cell": cell}


def rounded(value: Any) -> Any:
    """Return plain data with floats as results keep them, of six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return value


def json_text(value: Any) -> str:
    """Return indented JSON of plain data, floats shortened as in results. Raises ValueError for NaN and infinity."""
    return json.dumps(rounded(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def record_text(record: BaseModel) -> str:
    """Return a record as it is written: indented JSON, its cell in one line at the end.

    Where that is longer than 2 KB, without white space, without what the cell tells, and without a single attempt.
    """
    plain = as_json(record)
    cell = plain.pop("cell", None)
    text = json_text(plain)
    if cell is None or not isinstance(record, Measured):
        return text
    text = text.removesuffix("\n}\n") + f',\n "cell": {canonical_json(cell)}\n}}\n'
    if len(text.encode()) > LARGEST:
        known = {"id", *record.told(cell), *(["attempts"] if plain.get("attempts") == 1 else [])}
        short = {name: value for name, value in plain.items() if name not in known}
        text = json.dumps(short | {"cell": cell}, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
    return text
