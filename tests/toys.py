"""Toy plugins: one of every kind of parameter, and countermeasures that leave a mark."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, TypeVar, cast

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from ue_bench.catalogue.registry import Registry
from ue_bench.contract.context import Context, TrainContext
from ue_bench.contract.imageset import ImageSet
from ue_bench.contract.inputs import InputPath
from ue_bench.contract.plugin import Countermeasure, Dataset, Plugin, Preprocessing, Protector, Victim
from ue_bench.contract.protocol import Protocol
from ue_bench.contract.registration import Register
from ue_bench.contract.values import Ratio
from ue_bench.grid.cell import Cell, Data
from ue_bench.grid.planner import Planned, plan
from ue_bench.grid.stages.base import Stage, Stores
from ue_bench.store.schema import DatasetInfo

Install = Callable[..., None]  # see the fixture of that name
R = TypeVar("R")


def noting(seen: list[Any], function: Callable[..., R], argument: int = 0) -> Callable[..., R]:
    """Return ``function`` with a note of one of its arguments, call by call, in ``seen``."""

    def noted(*given: Any) -> R:
        seen.append(given[argument])
        return function(*given)

    return noted


def tree(folder: Path) -> list[str]:
    """Return the files below ``folder``."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def torchvision_module(name: str) -> Any:
    """Return a module of torchvision; skips where it cannot be imported: one for another torch fails in many ways."""
    try:
        return importlib.import_module(name)
    except Exception as problem:
        pytest.skip(f"{name} cannot be imported: {problem}")


class Toy(Protector):
    """Has a parameter of every sort."""

    name: ClassVar[str] = "toy"

    count: int = Field(3, ge=-1000, le=1000)
    scale: float = 1.0
    eps: Ratio = Field(8 / 255, gt=0, le=1)
    radius: Ratio | None = None
    text: str = "plain"
    mode: Literal["class", "sample"] = "class"
    flag: bool = False

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(np.minimum(data.images, 250) + np.uint8(self.count))


class Clean(Protector):
    name: ClassVar[str] = "clean"

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data


class Needy(Protector):
    """Needs a parameter, and can be given a file."""

    name: ClassVar[str] = "needy"

    path: InputPath
    other: InputPath | None = None


class Plain(Countermeasure):
    name: ClassVar[str] = "plain"


class Brighter(Preprocessing):
    name: ClassVar[str] = "brighter"

    by: int = Field(1, ge=0, le=100)

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(data.images + np.uint8(self.by))


class Doubler(Preprocessing):
    name: ClassVar[str] = "doubler"
    cache_purified: ClassVar[bool] = True

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(data.images * np.uint8(2))


class Halver(Countermeasure):
    name: ClassVar[str] = "halver"

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return x / 2, y


class Procedure(Countermeasure):
    name: ClassVar[str] = "procedure"

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)


class Other(Procedure):
    name: ClassVar[str] = "other"


class Linear(Victim):
    name: ClassVar[str] = "linear"

    width: int = 1

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size[0] * image_size[1], num_classes))


class Files(Dataset):
    """A data set from one ``.npz`` in the data folder, that counts how often it is read."""

    name: ClassVar[str] = "files"
    loads: ClassVar[list[str]] = []

    def files(self, data_dir: Path) -> list[Path]:
        return [data_dir / "set.npz"]

    def load(self, split: str, ctx: Context) -> ImageSet:
        self.loads.append(split)
        with np.load(ctx.data_dir / "set.npz") as archive:
            names = tuple(archive[f"{split}_names"])
            return ImageSet(archive[f"{split}_x"], archive[f"{split}_y"], names, "toy set")


TOYS: list[type[Plugin]] = [Toy, Clean, Needy, Plain, Brighter, Doubler, Halver, Procedure, Other, Linear, Files]
PROTOCOL = Protocol(
    name="toy", version=1, summary="", source="", batch=4, epochs=2, learning_rate=0.1, schedule="cosine"
)


def toy_registry() -> Registry:
    found = Registry()
    register = Register(found, "toys 1.0")
    for plugin in TOYS:
        register(plugin.kind, plugin.name, f"{__name__}:{plugin.__name__}", plugin.name)
    return found


def random_set(count: int = 10, size: int = 8, seed: int = 0, classes: int = 2) -> ImageSet:
    rng = np.random.default_rng(seed)
    names = tuple("abcdefgh"[:classes])
    return ImageSet(
        rng.integers(0, 100, (count, size, size, 3), dtype=np.uint8), np.arange(count, dtype=np.int64) % classes, names
    )


def write_set(folder: Path, train: ImageSet, test: ImageSet) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for split, data in (("train", train), ("test", test)):
        arrays |= {f"{split}_x": data.images, f"{split}_y": data.labels, f"{split}_names": np.array(data.class_names)}
    np.savez(folder / "set.npz", **arrays)


def toy_data(train: str = "train", test: str = "test") -> Data:
    info = DatasetInfo(
        selector="files", source="toys", train=10, test=4, classes=2, height=8, width=8, fingerprint="f" * 16
    )
    return Data(Files(), "artifact", info, train, test)


def toy_cell(**changes: Any) -> Cell:
    fields: dict[str, Any] = {
        "data": toy_data(),
        "protector": Toy(),
        "countermeasure": Brighter(),
        "victim": Linear(),
        "protocol": PROTOCOL,
        "seed": 0,
        "fraction": 1.0,
        "precision": "fp32",
    }
    return Cell(**(fields | changes))


class _Known:
    """Stands for stored results: those whose key ``exists`` knows."""

    def __init__(self, kind: str, exists: Callable[[str, str], bool]) -> None:
        self.kind, self.exists = kind, exists

    def __contains__(self, key: str) -> bool:
        return self.exists(self.kind, key)


def planned(targets: Iterable[Stage], exists: Callable[[str, str], bool] = lambda kind, key: False) -> list[Planned]:
    """Plan ``targets`` where ``exists(kind, key)`` says what is stored."""
    stores: Any = SimpleNamespace(
        artifacts=SimpleNamespace(has=exists), trained=_Known("result", exists), evaded=_Known("evasion", exists)
    )
    return plan(targets, cast(Stores, stores))
