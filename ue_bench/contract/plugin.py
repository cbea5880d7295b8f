"""The base classes of plugins: frozen, typed parameter objects with one or two methods."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ..errors import UserError
from .inputs import content_digest, find_input, has_path, with_paths
from .values import format_value, read_ratio

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from .context import Context, TrainContext
    from .imageset import ImageSet


class Plugin(BaseModel):
    """The base of all plugins. The fields of a subclass are its parameters.

    Class attributes: ``name`` on the command line; ``revision``, an integer to raise whenever a change moves results,
    because it is part of every cell's key; ``paper``, the source in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = ""

    @field_validator("*", mode="after")
    @classmethod
    def _find_inputs(cls, value: Any, info: ValidationInfo) -> Any:
        """Replace a path that is written as in results by the path that it stands for."""
        folders = (info.context or {}).get("folders", ())
        return with_paths(value, lambda path: find_input(path, folders))

    @property
    def selector(self) -> str:
        """Canonical selector: the name with every parameter that differs from its default.

        It names no folder, and whoever has the files can give it again. Raises UserError when an input is not there.
        """
        shown = []
        for field, value in self.changed().items():
            markers = _metadata(type(self).model_fields[field])
            ratio = any(isinstance(m, BeforeValidator) and m.func is read_ratio for m in markers)
            shown.append(f"{field}={format_value(value, ratio)}")
        return f"{self.name}[{','.join(shown)}]" if shown else self.name

    def changed(self) -> dict[str, Any]:
        """Return the parameters that have no default, or another value than their default."""
        values = {}
        for field, info in type(self).model_fields.items():
            value = getattr(self, field)
            if info.is_required() or value != info.get_default(call_default_factory=True):
                values[field] = value
        return values

    def refuse_idle(self, idle: Iterable[str], why: str) -> None:
        """Raise ValueError where a parameter of ``idle`` has another value than its default: for use in a validator.

        ``why`` names what makes them do nothing, such as ``t=0``: two selectors would then stand for one method.
        """
        ignored = sorted(set(idle) & set(self.changed()))
        if ignored:
            raise ValueError(f"{', '.join(ignored)} would do nothing with {why}")

    def identity(self) -> dict[str, Any]:
        """Return everything of the plugin that can change a number, as plain data: name, revision, changed parameters.

        Defaults are left to the revision, so that a new parameter leaves old results valid; a default that changes
        needs a new revision.
        """
        changed = self.changed()
        values = self.model_dump(mode="json", include=set(changed))
        values |= {field: with_paths(value, content_digest) for field, value in changed.items() if has_path(value)}
        return {"name": self.name, "revision": self.revision, "parameters": values}


def _metadata(info: Any) -> list[Any]:
    """Return the markers on a field, also inside ``InputPath | None``."""
    markers = list(info.metadata)
    for argument in getattr(info.annotation, "__args__", ()):
        markers.extend(getattr(argument, "__metadata__", ()))
    return markers


class Dataset(Plugin):
    """A labelled image set with a training and a test split."""

    kind: ClassVar[str] = "dataset"

    def files(self, data_dir: Path) -> list[Path]:
        """Return files and folders that loading reads; the stored copy is made anew when one of them changes."""
        return []

    def load(self, split: str, ctx: Context) -> ImageSet:
        """Return the images of ``split`` ("train" or "test")."""
        raise NotImplementedError


@dataclass(frozen=True)
class NetworkCost:
    """Passes through a network: ``victim`` is its selector, ``passes`` are per image.

    Unit: forward and backward, as in training. To the image alone, without gradients of weights, is two thirds of one,
    forward alone a third. ``size`` is height and width that the network sees images in, where it is not their own.
    """

    victim: str
    passes: float
    size: tuple[int, int] | None = None


class Protector(Plugin):
    """A method that makes images unlearnable. ``budget`` declares its bound, such as ``linf 8/255``, or ``none``.

    ``changes_images`` is false where images that are left as they were are a right result, not a failure.
    """

    kind: ClassVar[str] = "protector"
    changes_images: ClassVar[bool] = True

    @property
    def budget(self) -> str:
        return "none"

    @property
    def uses_networks(self) -> bool:
        """Whether protection trains or attacks networks: the precision they run in is then part of the set's key."""
        return False

    def cost(self, images: int) -> NetworkCost | None:
        """Return what protecting so many images asks of a network, as far as it is known before; None for nothing.

        For progress and for ``plan``; no number depends on it.
        """
        return None

    @property
    def one_size(self) -> bool:
        """Whether all images must be of one size, because something is learned from all of them together.

        Where they need not, images of different sizes are protected in groups of one size each.
        """
        return self.uses_networks

    @property
    def classes_needed(self) -> int:
        """How many classes must have images: two where an image is moved by what tells its class from others.

        Fewer are refused before protection starts.
        """
        return 1

    @property
    def largest_image(self) -> int:
        """Pixels of the largest image that is taken, in some 8 GB of memory; ``check_size`` refuses larger ones.

        512 x 512 where networks are trained or attacked, whose layers hold about 2 kB a pixel for each image of a
        batch, else 100 million.
        """
        return 2**18 if self.uses_networks else 100_000_000

    @property
    def answers_queries(self) -> bool:
        """Whether images that come after the set can be protected as it was, which the owner's service would do.

        ``protect`` is then asked again, with the training images as the context's ``learn_from``. False where images
        and a network were optimised together: there is no protecting one more.
        """
        return False

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Return protected images in the same order, of the same shape and with the same labels.

        ``data`` is the training set. Where it is not, which is for test images that ``ue-bench evade`` shows to
        classifiers and for images of an adversary that asks, ``ctx.learning`` has what may be learnt from.
        """
        raise NotImplementedError

    def recovery_key(self, data: ImageSet, ctx: Context) -> dict[str, NDArray[Any]]:
        """Return the arrays that ``recover`` needs beside the parameters, such as weights of a network.

        Asked for after ``protect`` and with the same arguments. Must not depend on the images where ``one_size`` is
        false: there is one key for all sizes.
        """
        return {}

    def recover(self, images: NDArray[np.uint8], ctx: Context) -> NDArray[np.uint8]:
        """Return the clean images behind protected ones, N x H x W x 3, as well as they can be restored.

        What comes of an image depends on no other in the batch. ``ctx.recovery_key`` holds the arrays of
        ``recovery_key``. Raises UserError when one of the images was not protected in this way.
        """
        raise NotImplementedError

    @classmethod
    def recovers(cls) -> bool:
        """Return whether this class has its own ``recover``."""
        return cls.recover is not Protector.recover


def check_size(protector: Protector, size: tuple[int, int]) -> None:
    """Raise UserError when images of ``size``, height and width, are larger than ``protector`` takes."""
    height, width = size
    if height * width > protector.largest_image:
        side = math.isqrt(protector.largest_image)
        raise UserError(
            f"{protector.name} takes images of up to {megapixels(protector.largest_image)}, not {width}x{height}",
            f"bring them to {side}x{side} or less (--size of 'ue-bench protect', size= of a dataset)",
        )


def megapixels(pixels: int) -> str:
    """Write a number of pixels as ``8.39 megapixels``."""
    return f"{pixels / 1e6:.3g} megapixels"


class Countermeasure(Plugin):
    """An answer of the adversary to protection. A subclass overrides one or more of the five methods.

    ``uses_labels``: whether labels are read or changed. ``identity_note``: set, in one sentence, when the operation at
    its defaults is known to change nothing; tables say so. ``cache_purified``: purified sets are kept in the store.
    ``passes``: network passes a training image costs, in forward-and-backward passes, 1 for plain training.

    ``replayable``: on a GPU, ``augment`` and ``loss`` may be recorded once and replayed for every batch, which saves
    the time that Python takes. That is right where they do the same tensor operations at every step (of a ``phase``)
    whatever the numbers in the tensors, draw from the generator they are given alone, copy nothing between host and
    device, and keep nothing for later. Where it is false, steps run one by one, and the result says so.
    """

    kind: ClassVar[str] = "countermeasure"
    uses_labels: ClassVar[bool] = False
    identity_note: ClassVar[str] = ""
    cache_purified: ClassVar[bool] = False
    replayable: ClassVar[bool] = False

    @property
    def passes(self) -> float:
        return 1.0

    @property
    def clean_images(self) -> int:
        """How many training images the adversary must own unprotected: the context's ``clean_data``."""
        return 0

    @property
    def needs_pairs(self) -> bool:
        """Whether the adversary must know which protected images the clean ones belong to: ``clean_rows``.

        Then ``purify`` may leave these rows out, where others return all images in their order.
        """
        return False

    @property
    def queries(self) -> bool:
        """Whether the adversary has its clean images protected by the owner's service: ``queried_data``.

        Refused with protectors that answer no queries.
        """
        return False

    @property
    def control_selector(self) -> str:
        """Return the selector of its control, empty where it has none.

        The control has the same clean data without the method, or without what the method learns from protected images:
        a countermeasure that is not above it owes its accuracy to the data. Boards say how the two compare.
        """
        return ""

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Clean the stored images, once, before training."""
        raise NotImplementedError

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change a batch: ``x`` N x 3 x H x W in [0, 1] after crop and flip, ``y`` int64 labels."""
        raise NotImplementedError

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        """Return the scalar to minimise for a batch in [0, 1]. ``model`` normalises the batch itself."""
        raise NotImplementedError

    def phase(self, epoch: int, epochs: int) -> Hashable:
        """Return what of ``epoch``, from 0, of so many tells which operations ``loss`` does, if that changes."""
        return None

    def selection_score(self, model: nn.Module, ctx: TrainContext) -> float:
        """Return how good the network is, asked at every evaluation: the first with the highest score is kept.

        ``model`` takes a batch in [0, 1] and normalises it itself; it may be left in either mode.
        """
        raise NotImplementedError

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        """Change the weights of the trained network in place, before it is measured for the last time."""
        raise NotImplementedError

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Return whether this class has its own ``method``, such as ``purify`` or ``loss``."""
        return getattr(cls, method) is not getattr(Countermeasure, method)


class Preprocessing(Countermeasure):
    """A countermeasure that works on stored images, and may be asked to treat the test images alike."""

    apply_to_test: bool = Field(False, description="treat the test images in the same way")


class Victim(Plugin):
    """A classifier architecture. The training loop belongs to the harness."""

    kind: ClassVar[str] = "victim"

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        """Return a fresh network for N x 3 x H x W inputs, drawn from torch's generator, which the harness seeds."""
        raise NotImplementedError

    def pretrain(self, data: ImageSet, ctx: Context) -> dict[str, Tensor]:
        """Return weights of the network, by name, learnt from the training images before the protocol trains it.

        ``data`` is what the protocol trains on, purified already. Keep what takes long with ``ctx.cached``: its key
        holds ``data.fingerprint``, ``ctx.seed`` and ``ctx.precision``. Weights that are not named stay fresh.
        """
        return {}

    def cost(self, images: int) -> NetworkCost | None:
        """Return what ``pretrain`` on so many images asks of a network, for ``plan``; None where it does nothing."""
        return None

    @property
    def trained_by_protocol(self) -> bool:
        """Whether the protocol trains the network. Where not, ``pretrain`` learns all there is, and it is measured.

        Of the protocol the shift alone then counts, and countermeasures that act on batches or in training are refused.
        """
        return True

    def optimizer(self) -> dict[str, Any]:
        """Return protocol fields that this architecture needs otherwise, such as ``{"learning_rate": 0.01}``.

        Name learning rate and weight decay beside another ``optimizer``: a protocol's are meant for its own.
        """
        return {}


KINDS: dict[str, type[Plugin]] = {c.kind: c for c in (Protector, Countermeasure, Victim, Dataset)}
