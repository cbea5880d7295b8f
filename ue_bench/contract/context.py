"""The contexts that the harness gives plugins while they work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..atomic import publish as publish
from ..checksums import whole
from ..errors import Deferred
from ..keys import digest
from ..leases import Lease, leases_in
from ..seeds import derive
from .imageset import ImageSet, release

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")


ProgressReport = Callable[[float, float, str], None]
"""Takes the steps done, their total and what is being done."""


def _check(lease: Lease) -> None:
    """Raise Deferred when another process has taken ``lease`` over: what that one makes counts."""
    if not lease.held():
        raise Deferred(lease.path.name)


def silent(done: float, total: float, text: str) -> None:
    """Ignore a report of progress."""


class Networks(Protocol):
    """Trains the classifiers that protectors attack; the harness supplies one with the context of a stage."""

    def network(self, ctx: Context, data: ImageSet, victim: str) -> nn.Module:
        """Return an untrained classifier, see :meth:`Context.network`."""

    def surrogate(
        self, ctx: Context, data: ImageSet, victim: str, countermeasure: str, recipe: Mapping[str, Any]
    ) -> nn.Module:
        """Return a trained classifier, see :meth:`Context.surrogate`."""

    def checkpoints(
        self, ctx: Context, data: ImageSet, victim: str, countermeasure: str, recipe: Mapping[str, Any], count: int
    ) -> list[nn.Module]:
        """Return states of one training, see :meth:`Context.checkpoints`."""


@dataclass(frozen=True, kw_only=True)
class CleanDataAccess:
    """A context that gives access to clean data of the adversary, as those of purification and training do."""

    clean: ImageSet | None = field(default=None, repr=False)
    rows: NDArray[np.int64] | None = field(default=None, repr=False)
    queried: ImageSet | None = field(default=None, repr=False)

    @property
    def clean_rows(self) -> NDArray[np.int64]:
        """Where in the training set the protected versions of ``clean_data`` are, in its order.

        Raises RuntimeError where they were not asked for with ``needs_pairs``.
        """
        if self.rows is None:
            raise RuntimeError("no rows of clean data here: a countermeasure says with needs_pairs that it needs them")
        return self.rows

    @property
    def queried_data(self) -> ImageSet:
        """What the owner's service made of ``clean_data``, in its order: images that came after the set was protected.

        Raises RuntimeError where it was not asked for with ``queries``.
        """
        if self.queried is None:
            raise RuntimeError("no answers to queries here: a countermeasure says with queries that it asks for them")
        return self.queried

    @property
    def clean_data(self) -> ImageSet:
        """Unprotected versions of as many training images as the countermeasure's ``clean_images`` says.

        In random order, balanced over classes. The same images for every protector; a countermeasure that asks for
        fewer has the first of them. Raises RuntimeError when none were asked for.
        """
        if self.clean is None:
            raise RuntimeError("no clean data here: a countermeasure says with clean_images how many images it needs")
        return self.clean


@dataclass(frozen=True)
class Context(CleanDataAccess):
    """Device, randomness, scratch space, artifacts and progress for one piece of work.

    ``device`` is a torch device name; ``seed`` belongs to this piece of work and nothing else; ``scratch`` is a
    folder that disappears afterwards; ``data_dir`` is where datasets are looked for and downloaded to; ``precision`` is
    ``bf16`` or ``fp32``, for the layers of networks; ``recovery_key`` holds what a protector needs to recover images;
    ``learn_from`` are the training images where others are to be protected, see ``learning``; ``secret`` says that
    this is a data owner's work, whose randomness nobody else may know, see ``method_seed``.
    """

    device: str
    seed: int
    scratch: Path
    artifacts: Path
    data_dir: Path
    report: ProgressReport = silent
    open_dataset: Callable[[str, str], ImageSet] | None = field(default=None, repr=False)
    precision: str = "fp32"
    recovery_key: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    learn_from: ImageSet | None = field(default=None, repr=False)
    networks: Networks | None = field(default=None, repr=False)
    secret: bool = False
    defers: bool = False  # work that has to wait for another process ends with Deferred, to be started again

    def method_seed(self, published: int, chosen: int | None = None) -> int:
        """Return the seed of what a method draws once for all, such as a filter or a centre a class.

        On a board that is the seed the authors published, so that everybody's images are the same. Whoever knows it can
        draw the same and subtract it: for a data owner it is derived from their own seed, 63 bits of it. ``chosen`` is
        the plugin's parameter where it has one: a value other than the published is taken as it is, by both.
        """
        if chosen is not None and chosen != published:
            return chosen
        return derive(self.seed, "method") if self.secret else published

    def rng(self, *axes: object) -> np.random.Generator:
        """Return a NumPy generator of its own for ``axes``."""
        return np.random.default_rng(derive(self.seed, *axes))

    def generator(self, *axes: object) -> torch.Generator:
        """Return a torch generator of its own for ``axes``, on the device of this context."""
        import torch

        return torch.Generator(self.device).manual_seed(derive(self.seed, *axes))

    def autocast(self) -> torch.autocast:
        """Return a context manager in which the layers of networks run in this context's precision."""
        import torch

        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16")

    def progress(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        """Pass ``items`` through and report how far they are."""
        if total is None:
            total = len(items)  # type: ignore[arg-type]  # callers give a total with bare iterators
        for done, item in enumerate(items):
            self.report(done, total, text)
            yield item
        self.report(total, total, text)

    def dataset(self, selector: str, split: str = "train") -> ImageSet:
        """Return another dataset, for instance one of natural images to hide."""
        if self.open_dataset is None:
            raise RuntimeError("this context has no access to datasets")
        return self.open_dataset(selector, split)

    def learning(self, data: ImageSet) -> tuple[ImageSet, Context]:
        """Return the images that a protector learns from to protect ``data``, and the context to learn in.

        These are ``data`` and this context, save where images are protected that come after the set, such as test
        images: then the training images, in the context in which they would be protected, so that what was learnt is
        shared.
        """
        if self.learn_from is None:
            return data, self
        return self.learn_from, replace(self, learn_from=None)

    def _named(self, key: Any) -> Any:
        """Return ``key``, another one where protectors learn from other images than those they protect."""
        return key if self.learn_from is None else {"learnt from": self.learn_from.fingerprint, "key": key}

    def store_images(self, shape: tuple[int, ...], chunks: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Write ``chunks`` of images one after the other and return them as one memory-mapped array.

        ``shape`` is N x H x W x 3. Only a chunk at a time is in memory, so the set may be larger than memory.
        Raises ValueError when the chunks do not add up to ``shape``.
        """
        handle, name = tempfile.mkstemp(suffix=".npy", dir=self.scratch)
        written = 0
        with os.fdopen(handle, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                if chunk.dtype != np.uint8 or chunk.shape[1:] != tuple(shape[1:]):
                    raise ValueError(f"expected uint8 images of shape {shape[1:]}, got {chunk.dtype} {chunk.shape}")
                file.write(np.ascontiguousarray(chunk).data)
                written += len(chunk)
                del chunk  # not kept while the next one is made
        if written != shape[0]:
            raise ValueError(f"expected {shape[0]} images, got {written}")
        stored: NDArray[np.uint8] = np.load(name, mmap_mode="r")
        return stored

    def map_images(
        self,
        data: ImageSet,
        change: Callable[[NDArray[np.uint8], slice], NDArray[np.uint8]],
        text: str,
        batch: int = 500,
    ) -> ImageSet:
        """Return ``data`` with ``change(images, where)`` applied to consecutive batches."""
        parts = list(range(0, len(data), batch))

        def changed() -> Iterator[NDArray[np.uint8]]:
            for start in self.progress(parts, text):
                where = slice(start, min(start + batch, len(data)))
                yield change(data.images[where], where)
                release(data.images)

        return data.with_images(self.store_images(data.images.shape, changed()))

    def cached(self, key: Any, make: Callable[[Path], None]) -> Path:
        """Return the artifact folder for ``key`` (plain data), filled by ``make(folder)`` if it does not exist yet.

        The folder appears whole or not at all, its files are read-only, and they are compared with their checksums when
        a process first uses them: a damaged one is made anew. Where several processes want the same one, one makes it
        and the others wait.
        """
        target = self.artifacts / "plugin" / digest(self._named(key))
        if whole(target):
            return target
        name = f"plugin.{target.name}"
        leases = leases_in(self.artifacts)
        with leases.hold(name, "an artifact of a plugin", lambda: self._busy(name)) as lease:
            if not whole(target):
                publish(target, make, lambda: _check(lease))
        return target

    def _busy(self, name: str) -> None:
        """Say that the lease ``name`` is another process's. Raises Deferred where this work can be put off."""
        if self.defers:
            raise Deferred(name)
        self.report(0, 1, "wait for another worker")

    def checkpoint_dir(self, key: Any) -> Path:
        """Return a folder for the state of long work, which outlives a kill. Remove it when the work is done.

        It belongs to this process until the work ends; another one that wants it waits, and takes it over when this one
        has died.

        ``save_checkpoint`` and ``save_arrays`` write files there that ``load_checkpoint`` and ``load_arrays`` believe
        only when they are whole and of this ``key``.
        """
        parent, name = self.artifacts / "unfinished", digest(self._named(key))
        leases, held = leases_in(self.artifacts), f"unfinished.{name}"
        lease = leases.mine(held) or leases.wait(held, "the state of long work", lambda: self._busy(held))
        # A process that was stopped and lost its lease goes on to write where nobody reads.
        folder = parent / f"{name}.{lease.token}"
        if not folder.exists():
            earlier = sorted(parent.glob(f"{name}*"), key=lambda path: path.stat().st_mtime)
            if earlier:
                earlier[-1].rename(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def network(self, data: ImageSet, victim: str) -> nn.Module:
        """Return an untrained classifier for ``data``, on the device; ``victim`` is a selector."""
        return self._networks().network(self, data, victim)

    def surrogate(self, data: ImageSet, victim: str, countermeasure: str = "@plain", **recipe: Any) -> nn.Module:
        """Return a classifier trained on ``data``, in eval mode and frozen; it takes pixels in [0, 1], N x 3 x H x W.

        ``victim`` and ``countermeasure`` are selectors, ``recipe`` fields of a protocol such as ``epochs=40``. Trained
        once and kept: protectors that ask for the same network share it. A training that was killed continues.
        Where other images than the set are protected, it is the one of the training images.
        """
        data, ctx = self.learning(data)
        return self._networks().surrogate(ctx, data, victim, countermeasure, recipe)

    def checkpoints(
        self, data: ImageSet, victim: str, count: int, countermeasure: str = "@plain", **recipe: Any
    ) -> list[nn.Module]:
        """Return ``count`` states of one such classifier, after equal numbers of epochs; the last is fully trained.

        Raises UserError when ``recipe`` has fewer epochs.
        """
        data, ctx = self.learning(data)
        return self._networks().checkpoints(ctx, data, victim, countermeasure, recipe, count)

    def _networks(self) -> Networks:
        if self.networks is None:
            raise RuntimeError("this context trains no networks: 'networks' says who does, as in ue_bench.testing")
        return self.networks


@dataclass(frozen=True)
class TrainContext(CleanDataAccess):
    """The context of a training procedure in one step.

    ``generator`` lives on the training device; ``epoch`` counts from 0; ``autocast`` is a context manager factory for
    the precision of this run.
    """

    generator: torch.Generator
    epoch: int
    epochs: int
    autocast: Callable[[], Any]
